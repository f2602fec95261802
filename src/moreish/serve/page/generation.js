// What Write asks of the server: the tokens of a beginning, and those that come after it.

import { post, stream } from "./api.js";
import { isEnd } from "./next.js";
import { samplingParams, here } from "./state.js";

/**
 * @typedef {{id: number, text: string | null, label: string, p: number | null,
 *   kind: "given" | "drawn" | "taken"}} Token
 */

/** The tokens of a text, and how little each was expected. @returns {Promise<Token[]>} */
export async function read(words, signal) {
  if (!words) return [];
  const found = await post("/api/surprisal", { model: here.model, text: words }, signal);
  const whole = isEnd(found.tokens.at(-1)) ? found.tokens.slice(0, -1) : found.tokens;
  return whole.map(({ nats, ...token }) => ({ ...token, p: nats === null ? 0 : Math.exp(-nats), kind: "given" }));
}

/**
 * What is drawn after some tokens, as it comes.
 * @param {Token[]} tokens
 * @param {{max_tokens: number, seed: number}} requestSettings
 * @returns {AsyncGenerator<{tokens: Token[], finish: "stop" | "length" | null}>}
 */
export async function* generateAfter(tokens, requestSettings, signal) {
  const ids = tokens.map((token) => token.id);
  const body = { model: here.model, prompt: ids.length ? ids : "", logprobs: 0, ...requestSettings, ...samplingParams() };
  let whole = false;
  for await (const { done, tokens, finish } of stream("/api/write", body, signal)) {
    if (done) whole = true;
    else yield { tokens: tokens.map((token) => ({ ...token, kind: "drawn" })), finish };
  }
  if (!whole) throw new Error("The response ended early.");
}
