// What may come next: what the model says, what the sampling makes of it, and a way to take it.

import { attempt, latest, post } from "./api.js";
import { errorLine } from "./controls.js";
import { debounce, h, setVars } from "./dom.js";
import { samplingParams, here } from "./state.js";
import { labelled, percent } from "./text.js";

/** What was taken where a text has ended. */
export const END = "end";

const FEW = 12;
const MANY = 40;

/** A token by itself, as it is read. */
export const nameOf = ({ text, label }) => (isEnd({ text }) ? "end" : labelled(text ?? label));

/** The boundary of an item: it has no text. */
export const isEnd = ({ text }) => text === "";

/**
 * @typedef {{prompt: string | number[], taken: number | string | null, words: any[], kept: any}} Place
 *   a place in a text: what stands before it, what was taken there, in words where it is, and
 *   whatever `take` wants back.
 * @param {(token: {id: number, text: string | null, label: string, p: number}, place: Place) => void} take
 */
export function makeNext(take) {
  const where = h("p", { class: "where", tabindex: -1 });
  const error = errorLine();
  const list = h("ol", { class: "bars" });
  const rest = h("p", { class: "hint rest" });
  const bytes = h("p", { class: "hint", hidden: true }, "‹e2› is a byte that is part of a character.");
  const more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => {
    most = most === FEW ? MANY : FEW;
    draw();
  } });
  const key = h("p", { class: "key", "aria-hidden": "true" }, h("span", { class: "said" }, "model probability"),
    h("span", { class: "drawn" }, "after sampling settings"));
  const element = h("div", { class: "next" }, where, error, key, list, bytes, rest, more);

  const replaced = latest();
  let most = FEW;
  /** What is shown: the rows, and the place that they belong to. */
  let found = null;
  /** The place that is asked for. @type {Place | null} */
  let place = null;
  /** The rows by token, kept so that their bars move. */
  let rows = new Map();

  const ask = async () => {
    if (!place) return;
    const asked = place;
    const body = { model: here.model, prompt: asked.prompt.length ? asked.prompt : "", ...samplingParams(), top: MANY };
    const signal = replaced();
    const answer = await attempt(error, () => post("/api/next", body, signal));
    if (signal.aborted) return;
    element.setAttribute("aria-busy", "false");
    // Rows never stand under the words of another place.
    found = { tokens: [], vocabulary: 0, ...answer, place: asked };
    where.replaceChildren(...asked.words);
    draw();
  };
  const soon = debounce(120, ask);

  function draw() {
    if (!found) return;
    const tokens = found.tokens.slice(0, most);
    const longest = Math.max(...tokens.map(({ p, q }) => Math.max(p, q)), 1e-9);
    const before = rows;
    rows = new Map(tokens.map((token) => [token.id, before.get(token.id) ?? row(token)]));
    for (const token of tokens) update(rows.get(token.id), token, longest);
    const wanted = [...rows.values()];
    // Only where the order is another: what is moved loses the focus, and its bars jump.
    if (wanted.some(({ item }, i) => list.children[i] !== item) || list.children.length !== wanted.length) {
      const rank = [...list.children].findIndex((item) => item.contains(document.activeElement));
      list.replaceChildren(...wanted.map(({ item }) => item));
      if (rank >= 0) (wanted[Math.min(rank, wanted.length - 1)]?.button ?? where).focus();
    }
    const left = found.vocabulary - tokens.length;
    const [p, q] = ["p", "q"].map((name) => 1 - tokens.reduce((sum, token) => sum + token[name], 0));
    rest.textContent = left > 0
      ? `${left.toLocaleString("en")} other tokens: ${percent(Math.max(0, p))}, after sampling settings ${percent(Math.max(0, q))}`
      : "";
    bytes.hidden = tokens.every((token) => token.text !== null);
    more.hidden = found.tokens.length <= FEW;
    more.textContent = most === FEW ? `Show ${Math.min(MANY, found.tokens.length)}` : `Show ${FEW}`;
  }

  function row(token) {
    const said = h("span", { class: "said" });
    const drawn = h("span", { class: "drawn" });
    const figure = h("span", { class: "figure" });
    const words = h("span", { class: "unseen" });
    const button = h("button", { type: "button", onclick: () => take(of.token, found.place) },
      h("bdi", { class: isEnd(token) ? "token end" : "token" }, nameOf(token)), h("span", { class: "bar" }, said, drawn), figure, words);
    const of = { item: h("li", {}, button), button, said, drawn, figure, words, token };
    return of;
  }

  function update(of, token, longest) {
    of.token = token;
    setVars(of.said, { share: (token.p / longest).toFixed(4) });
    setVars(of.drawn, { share: (token.q / longest).toFixed(4) });
    of.figure.textContent = percent(token.q);
    of.words.textContent = ` after sampling settings, model probability ${percent(token.p)}: choose this token`;
    of.button.title = `Model probability ${percent(token.p)}, after sampling settings ${percent(token.q)}. Choose this token.`;
    const taken = found.place.taken === END ? isEnd(token) : found.place.taken === token.id;
    if (taken) of.button.setAttribute("aria-current", "true");
    else of.button.removeAttribute("aria-current");
  }

  return {
    element,
    /** Look at a place. @param {Place} wanted */
    look(wanted) {
      place = wanted;
      element.setAttribute("aria-busy", "true");
      soon();
    },
    /** The sampling has changed. */
    refresh: soon,
    /** Another model: nothing is known. */
    clear() {
      replaced();
      [place, found, rows] = [null, null, new Map()];
      list.replaceChildren();
      where.textContent = rest.textContent = error.textContent = "";
      more.hidden = bytes.hidden = true;
    },
  };
}
