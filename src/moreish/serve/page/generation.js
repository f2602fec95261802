// The requests of the Generate view, and the tokens of their answers.

import { post, stream, UserError } from "./api.js";
import { isEnd, nameOf } from "./next.js";
import { route, samplingParams } from "./state.js";
import { counted, makeDecoder, percent, quoted } from "./text.js";

/** Returns the text of tokens. */
export const decode = (tokens) => tokens.map(makeDecoder()).join("");

const KINDS = { prompt: "prompt", sampled: "sampled", chosen: "chosen by you" };

/** Says which token it is, how likely it was, and where it comes from. */
export function describeToken({ p, kind, ...token }) {
  const bits = p > 0 ? (-Math.log2(p)).toFixed(1) : "∞";
  return `${quoted(nameOf(token))}${p === null ? "" : `: ${percent(p)}, ${bits} bits`}, ${KINDS[kind]}`;
}

/** Says how much of a text the model has generated. */
export function sampledSize(tokens) {
  const pieces = tokens.map(makeDecoder());
  const sampled = pieces.filter((_, at) => tokens[at].kind === "sampled");
  return `${counted(sampled.length, "token")}, ${counted([...sampled.join("")].length, "character")}`;
}

/** Returns the tokens of a prompt after a text to remember: { id, text, label, p, kind }. */
export async function tokenizePrompt(text, remembered, signal) {
  if (!text) return [];
  const { tokens } = await post("/api/surprisal", { model: route.model, text, ...remembered }, signal);
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
