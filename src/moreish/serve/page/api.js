// The way to the server: one place that knows the token, the errors and the streams.

import { byId, say } from "./dom.js";
import { shown } from "./text.js";
import { keep, tell } from "./state.js";

/** An answer that is no success, in the server's words. */
export class ApiError extends Error {
  constructor(status, { message, param = null, code = null }) {
    super(message);
    Object.assign(this, { status, param, code });
  }
}

/** What is not even asked; the message says why. */
export class Refused extends Error {}

/** No answer. */
export class Away extends Error {
  constructor() {
    super("The server does not respond.");
  }
}

/** @returns {Promise<any>} */
export const get = async (path, signal) => (await request(path, { signal })).json();

/** @returns {Promise<any>} */
export const post = async (path, body, signal) => (await sent(path, body, signal)).json();

const sent = (path, body, signal) =>
  request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });

/** A file, as it is. @returns {Promise<any>} */
export const upload = async (path, file, signal) =>
  (await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
    signal,
  })).json();

/**
 * Server-sent events (HTML standard, 9.2), each a line of JSON; of a GET where there is no body.
 * `EventSource` cannot send the token.
 * @returns {AsyncGenerator<any>}
 */
export async function* stream(path, body, signal) {
  const response = await (body ? sent(path, body, signal) : request(path, { signal }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (signal?.aborted) throw error;
      away();
      throw new Away();
    });
    if (done) return;
    const events = (held + value).split(/\r?\n\r?\n/);
    held = events.pop() ?? "";
    for (const event of events) {
      const data = event.replace(/^data: ?/, "");
      if (data === event) continue; // a comment that keeps the line open
      const found = JSON.parse(data);
      if (found.error) throw new ApiError(200, found.error);
      yield found;
    }
  }
}

/** What a header can hold; `fetch` fails with anything else. */
const SENDABLE = /^[\t\x20-\x7e\x80-\xff]*$/;

let token = keep.tab.get("token", "");
if (!SENDABLE.test(token)) token = "";

async function request(path, options) {
  for (;;) {
    const used = token;
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      away();
      throw new Away();
    }
    if (response.status === 401) {
      await askForToken(used);
      continue;
    }
    if (!response.ok) throw await errorOf(response);
    return response;
  }
}

async function errorOf(response) {
  try {
    return new ApiError(response.status, (await response.json()).error);
  } catch {
    return new ApiError(response.status, { message: `the server returned status ${response.status}` });
  }
}

const WRONG = "The token is wrong.";

let asking = null;

/** Until the user has given a token other than the one that was startError. */
async function askForToken(startError) {
  if (token !== startError) return; // meanwhile another request has asked
  asking ??= new Promise((resolve) => {
    const [dialog, input, error] = [byId("token"), byId("token-field"), byId("token-error")];
    error.textContent = startError ? WRONG : "";
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const given = input.value.trim();
      error.textContent = SENDABLE.test(given) ? "" : WRONG;
      if (error.textContent) return input.select();
      token = given;
      keep.tab.set("token", token);
      asking = null;
      dialog.close();
      resolve(undefined);
    };
    // Without it nothing works: Escape would leave an empty page behind. A second one closes all the same.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => asking && !dialog.open && dialog.showModal();
    input.value = "";
    dialog.showModal();
  });
  await asking;
}

let isAway = false;

/** Says that the server is away, and looks for it until it is back. */
async function away() {
  if (isAway) return;
  isAway = true;
  const line = byId("away");
  line.textContent = "The server does not respond. Retrying …";
  line.hidden = false;
  for (let wait = 1000; ; wait = Math.min(2 * wait, 8000)) {
    await new Promise((resolve) => setTimeout(resolve, wait));
    const there = await fetch("/healthz", { cache: "no-store" }).then((r) => r.ok, () => false);
    if (there) break;
  }
  isAway = false;
  line.hidden = true;
  say("The server is back.");
  tell("back");
}

/** A signal for a request that replaces the one before. */
export function latest() {
  let controller = new AbortController();
  return () => {
    controller.abort();
    controller = new AbortController();
    return controller.signal;
  };
}

/**
 * Does the work and says in the line what went wrong; what was aborted is no error.
 * @template T
 * @param {HTMLElement} line
 * @param {() => Promise<T>} work
 * @param {(text: string) => string} [words] what makes a message fit this place
 * @returns {Promise<T | undefined>}
 */
export async function attempt(line, work, words = (text) => text) {
  try {
    const found = await work();
    line.textContent = "";
    return found;
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    if (![ApiError, Away, Refused].some((kind) => error instanceof kind)) console.error(error);
    line.textContent = sentence(words(shown(asNamed(error))));
    return undefined;
  }
}

/** What the page calls the parts of a request. */
const NAMES = { prompt: "The text", text: "The text", max_tokens: "Max tokens", seed: "Seed", temperature: "Temperature",
  top_k: "Top-k", top_p: "Top-p", starts: "Starts with", ends: "Ends with", contains: "Contains", length: "Length",
  regex: "Matches (regex)", minutes: "Minutes", name: "Run name", kind: "Read as" };

/** The message of an error, with the page's name for what it is about. */
const asNamed = ({ message, param }) =>
  Object.hasOwn(NAMES, param ?? "") ? message.replace(new RegExp(`^${param}\\b`), NAMES[param]) : message;

/** With a capital, unless it begins with the name of a file. */
const sentence = (text) => {
  const isWord = /^\p{L}+(?=[\s,:;]|$)/u.test(text);
  return (isWord ? text.charAt(0).toUpperCase() + text.slice(1) : text) + (/[.!?…]$/.test(text) ? "" : ".");
};
