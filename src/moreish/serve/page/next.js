// The likely next tokens at a place in a text: model probabilities, the effect of the sampling settings, and a choice.

import { attempt, makeLatestSignal, post } from "./api.js";
import { errorLine } from "./controls.js";
import { button, debounce, h, setVar } from "./dom.js";
import { isUnchanged, route, samplingParams } from "./state.js";
import { labeled, percent, whole } from "./text.js";

/** Stands for the token that ends a text, whose id the page does not know. */
export const END = "end";

const FEW = 10;
const MANY = 40;

/** The token that ends an item has no text. */
export const isEnd = ({ text }) => text === "";

export const nameOf = (token) => (isEnd(token) ? "end" : labeled(token.text ?? token.label));

/** Returns a pair of bars: one for the model's probability, and one that is compared with it. */
export const makeBars = () => h("span", { class: "bar" }, h("span", { class: "model" }), h("span", { class: "sampled" }));

/** Sets the lengths of a pair of bars, from 0 to 1. */
export const setBars = (bars, ...shares) => shares.forEach((share, i) => {
  setVar(bars.children[i], "share", share);
  bars.children[i].classList.toggle("zero", !share);
});

/** Returns the key of such bars. */
export const barKey = (model, sampled) => h("p", { class: "key", "aria-hidden": "true" },
  h("span", { class: "model" }, model), h("span", { class: "sampled" }, sampled));

/**
 * Returns the list of the next tokens. A place in a text is { prompt, chosen, p, words, before }: the text before it as a
 * prompt, the id of its token (or END, or null) and its probability, its description, and the tokens before it.
 * `getRemembered` returns the fields of a request that the model's memory needs.
 */
export function makeNext(onChoose, getRemembered) {
  const where = h("p", { class: "where", tabindex: -1 });
  const error = errorLine();
  const list = h("ol", { class: "bars" });
  const rest = h("p", { class: "hint" });
  const bytes = h("p", { class: "hint", hidden: true }, "‹e2› is a byte that is part of a character.");
  const more = button("", () => {
    limit = limit === FEW ? MANY : FEW;
    draw();
  }, { class: "quiet", hidden: true });
  const element = h("div", { class: "next" }, where, error, barKey("model probability", "after sampling settings"),
    list, bytes, rest, more);

  const newSignal = makeLatestSignal();
  let limit = FEW;
  /** The tokens that are shown, and their place. */
  let shownAnswer = null;
  /** The place that is requested. */
  let place = null;
  /** The rows by token id; they are reused so that their bars move. */
  let rows = new Map();

  const refresh = debounce(120, async () => {
    if (!place) return;
    const requested = place;
    const body = { model: route.model, prompt: place.prompt.length ? place.prompt : "", ...getRemembered(), ...samplingParams(), top: MANY };
    const signal = newSignal();
    const answer = await attempt(error, () => post("/api/next", body, signal));
    if (signal.aborted) return;
    element.setAttribute("aria-busy", "false");
    // Two computations differ in the last digits: what is in the text already keeps its value.
    const chosen = requested.p !== null && answer?.tokens.find(({ id }) => id === requested.chosen);
    if (chosen) [chosen.p, chosen.q] = [requested.p, isUnchanged() ? requested.p : chosen.q];
    // The rows and the description of their place change together.
    shownAnswer = { tokens: [], vocabulary: 0, ...answer, place: requested };
    where.replaceChildren(...requested.words);
    draw();
  });

  function draw() {
    if (!shownAnswer) return;
    const { tokens: all, vocabulary } = shownAnswer;
    const tokens = all.slice(0, limit);
    // A second bar would only repeat the first.
    const isSingle = isUnchanged();
    element.classList.toggle("single", isSingle);
    const largest = Math.max(...tokens.flatMap(({ p, q }) => [p, q]), 1e-9);
    rows = new Map(tokens.map((token) => [token.id, rows.get(token.id) ?? row(token)]));
    for (const token of tokens) update(rows.get(token.id), token, largest, isSingle);
    const items = [...rows.values()];
    // Items that are moved lose the focus and their transition, so they are only replaced if the order changes.
    if (items.some((item, i) => list.children[i] !== item) || list.children.length !== items.length) {
      const focused = [...list.children].findIndex((item) => item.contains(document.activeElement));
      list.replaceChildren(...items);
      if (focused >= 0) (items[Math.min(focused, items.length - 1)]?.querySelector("button") ?? where).focus();
    }
    const left = vocabulary - tokens.length;
    const [p, q] = ["p", "q"].map((name) => Math.max(0, 1 - tokens.reduce((sum, token) => sum + token[name], 0)));
    rest.textContent = left > 0 ? `${whole(left)} other tokens: ${percent(p)}${isSingle ? "" : `, after sampling settings ${percent(q)}`}` : "";
    bytes.hidden = tokens.every((token) => token.text !== null);
    more.hidden = all.length <= FEW;
    more.textContent = `Show ${limit === FEW ? Math.min(MANY, all.length) : FEW}`;
  }

  function row({ id, ...token }) {
    const choose = button(h("bdi", { class: isEnd(token) ? "token end" : "token" }, nameOf(token)),
      () => onChoose(shownAnswer.tokens.find((one) => one.id === id), shownAnswer.place));
    choose.append(makeBars(), h("span", { class: "figure" }), h("span", { class: "visually-hidden" }));
    return h("li", {}, choose);
  }

  function update({ firstChild: choose }, token, largest, isSingle) {
    const [, bars, figure, words] = choose.children;
    const [p, q] = [percent(token.p), percent(token.q)];
    setBars(bars, token.p / largest, token.q / largest);
    figure.textContent = q;
    words.textContent = isSingle ? ": choose this token" : ` after sampling settings, model probability ${p}: choose this token`;
    choose.title = `Model probability ${p}${isSingle ? "" : `, after sampling settings ${q}`}. Choose this token.`;
    const { chosen } = shownAnswer.place;
    choose.ariaCurrent = (chosen === END ? isEnd(token) : chosen === token.id) ? "true" : null;
  }

  return {
    element,
    /** Requests the next tokens again, after the sampling settings have changed. */
    refresh,
    /** Shows the next tokens at a place. */
    show(newPlace) {
      place = newPlace;
      element.setAttribute("aria-busy", "true");
      refresh();
    },
    /** Removes everything, before another model is shown. */
    clear() {
      newSignal();
      [place, shownAnswer, rows] = [null, null, new Map()];
      list.replaceChildren();
      where.textContent = rest.textContent = error.textContent = "";
      more.hidden = bytes.hidden = true;
    },
  };
}
