// The requests of the Generate view.

import { post, stream, UserError } from "./api.js";
import { isEnd } from "./next.js";
import { route, samplingParams } from "./state.js";
import { counted, makeDecoder } from "./text.js";

/** Returns the text of tokens. */
export const decode = (tokens) => tokens.map(makeDecoder()).join("");

/** Says how much of a text the model has generated. */
export function sampledSize(tokens) {
  const pieces = tokens.map(makeDecoder());
  const sampled = pieces.filter((_, at) => tokens[at].kind === "sampled");
  return `${counted(sampled.length, "token")}, ${counted([...sampled.join("")].length, "character")}`;
}

/** Returns the tokens of a prompt: { id, text, label, p, kind }. */
export async function tokenizePrompt(text, signal) {
  if (!text) return [];
  const { tokens } = await post("/api/surprisal", { model: route.model, text }, signal);
  if (isEnd(tokens.at(-1))) tokens.pop();
  return tokens.map(({ nats, ...token }) => ({ ...token, p: nats === null ? 0 : Math.exp(-nats), kind: "prompt" }));
}

/** Yields the tokens that the model generates after others, as they arrive. */
export async function* generateAfter(before, settings, signal) {
  const prompt = before.length ? before.map(({ id }) => id) : "";
  const body = { model: route.model, prompt, logprobs: 0, ...settings, ...samplingParams() };
  let isComplete = false;
  for await (const { done, tokens, finish } of stream("/api/write", body, signal)) {
    if (done) isComplete = true;
    else yield { tokens: tokens.map((token) => ({ ...token, kind: "sampled" })), finish };
  }
  if (!isComplete) throw new UserError("The response ended early.");
}
