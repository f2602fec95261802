// Requests to the server: the access token, errors, reconnection and event streams.

import { announce, byId } from "./dom.js";
import { emit, tabStorage } from "./state.js";
import { shown } from "./text.js";

/** An error whose message is for the user; `param` and `code` are those of the server's answer. */
export class UserError extends Error {
  constructor(message, { param = "", code = "" } = {}) {
    super(message);
    Object.assign(this, { param: param ?? "", code });
  }
}

export const get = async (path, signal) => (await request(path, null, signal)).json();

/** Posts a file as it is, and anything else as JSON. */
export const post = async (path, body, signal) => (await request(path, body, signal)).json();

/** Yields the JSON of server-sent events (HTML standard, 9.2). `EventSource` cannot send the token. */
export async function* stream(path, body, signal) {
  const response = await request(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => handleOffline(error, signal));
    if (done) return;
    const events = (buffer + value).split(/\r?\n\r?\n/);
    buffer = events.pop() ?? "";
    for (const event of events) {
      const data = event.replace(/^data: ?/, "");
      if (data === event) continue; // a comment that keeps the connection open
      const answer = JSON.parse(data);
      if (answer.error) throw new UserError(answer.error.message, answer.error);
      yield answer;
    }
  }
}

/** The characters that a header may contain; `fetch` fails with others. */
const HEADER_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

let token = tabStorage.get("token", "");
if (!HEADER_VALUE.test(token)) token = "";

async function request(path, body, signal) {
  const isFile = body instanceof Blob;
  const contentType = isFile ? "application/octet-stream" : "application/json";
  for (;;) {
    const used = token;
    const response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: { ...(body && { "Content-Type": contentType }), ...(used && { Authorization: `Bearer ${used}` }) },
      body: body && (isFile ? body : JSON.stringify(body)),
      cache: "no-store",
      signal,
    }).catch((error) => handleOffline(error, signal));
    if (response.ok) return response;
    if (response.status !== 401) {
      const { error } = await response.json().catch(() => ({}));
      if (error?.code === "model_not_found") emit("missing");
      throw new UserError(error?.message ?? `the server returned status ${response.status}`, error);
    }
    await askForToken(used);
  }
}

let tokenDialog = null;

/** Waits until the user has entered another token than the rejected one. */
async function askForToken(rejected) {
  if (token !== rejected) return; // another request has asked in the meantime
  tokenDialog ??= new Promise((resolve) => {
    const [dialog, input, error] = [byId("token"), byId("token-field"), byId("token-error")];
    const wrong = "The token is not valid.";
    error.textContent = rejected ? wrong : "";
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const entered = input.value.trim();
      error.textContent = HEADER_VALUE.test(entered) ? "" : wrong;
      if (error.textContent) return input.select();
      token = entered;
      tabStorage.set("token", token);
      tokenDialog = null;
      dialog.close();
      resolve(undefined);
    };
    // Without a token nothing works, so Escape must not close the dialog. Browsers let a second Escape close it.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => tokenDialog && !dialog.open && dialog.showModal();
    input.value = "";
    dialog.showModal();
  });
  await tokenDialog;
}

let isOffline = false;

/** Throws the error of a request without an answer; unless it was aborted, starts to reconnect. */
function handleOffline(error, signal) {
  if (signal?.aborted) throw error;
  reconnect();
  throw new UserError("The server does not respond.");
}

async function reconnect() {
  if (isOffline) return;
  isOffline = true;
  const line = byId("offline");
  line.textContent = "The server does not respond. Retrying …";
  line.hidden = false;
  for (let wait = 1000; isOffline; wait = Math.min(2 * wait, 8000)) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    isOffline = !(await fetch("/healthz", { cache: "no-store" }).then(({ ok }) => ok, () => false));
  }
  line.hidden = true;
  announce("The server is back.");
  emit("models");
}

/** Returns a function that returns a new abort signal and aborts the previous one. */
export function makeLatestSignal() {
  let controller = new AbortController();
  return () => {
    controller.abort();
    controller = new AbortController();
    return controller.signal;
  };
}

/**
 * Returns the result of some work, or undefined after an error, which is shown in a line in place of the previous
 * one. An aborted request is no error. `rephrase` adapts the message to the view.
 */
export async function attempt(line, work, rephrase = (text) => text) {
  line.textContent = "";
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof UserError)) console.error(error);
    line.textContent = sentence(rephrase(shown(withFieldName(error))));
  }
}

/** Returns a function that requests a path for a model and draws the answer, unless that model is already shown. */
export function makeShow(error, path, draw) {
  let model = "";
  const newSignal = makeLatestSignal();
  return async (card) => {
    if (model === card.name) return;
    model = card.name;
    const answer = await attempt(error, () => get(`${path}?model=${encodeURIComponent(card.name)}`, newSignal()));
    if (answer) draw(answer, card);
    else if (model === card.name) model = ""; // so that the next call tries again
  };
}

/** The labels of the fields that set the parameters of a request. */
const FIELDS = { prompt: "The text", inputs: "The inputs", beams: "Search", text: "The text", remember: "Text to remember", max_tokens: "Max tokens", seed: "Seed", temperature: "Temperature",
  top_k: "Top-k", top_p: "Top-p", starts: "Starts with", ends: "Ends with", contains: "Contains", length: "Length",
  regex: "Matches (regex)", minutes: "Minutes", name: "Run name", new_name: "New name", kind: "Read as" };

const withFieldName = ({ message, param = "" }) =>
  Object.hasOwn(FIELDS, param) ? message.replace(new RegExp(`^${param}\\b`), FIELDS[param]) : message;

/** Adds a period and, unless the text begins with a file name, a capital letter. */
function sentence(text) {
  const isWord = /^\p{L}+(?=[\s,:;]|$)/u.test(text);
  return (isWord ? text.charAt(0).toUpperCase() + text.slice(1) : text) + (/[.!?…]$/.test(text) ? "" : ".");
}
