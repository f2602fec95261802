// A text whose tokens can be inspected one by one: tinted by surprisal, with a pointer or the arrow keys.

import { h, setVar } from "./dom.js";

/** The number of tints; a token of level n had a probability of about 1 in 2ⁿ. */
export const LEVELS = 8;

const WHITE = new Map([["", "part of a character"], [" ", "space"], ["\n", "line end"], ["\t", "tab"]]);

/** Returns the tint of a probability. */
export const levelOf = (p) => Math.min(LEVELS - 1, Math.max(0, Math.floor(-Math.log2(p))));

/**
 * `onChoose` is called for a click, Enter or Space, `onInspect` for the token that is pointed at or focused, and
 * `describe` returns a description of a token. All get the index of the token.
 */
export function makeStrip({ label, onChoose, onInspect, describe }) {
  const element = h("div", { class: "strip", role: "listbox", "aria-label": label,
    "aria-orientation": "horizontal", hidden: true });
  const spans = [];
  let [current, selected] = [0, -1];

  /** Listens to events of the tokens. */
  const on = (type, listener) => element.addEventListener(type, (event) => {
    const at = spans.indexOf(event.target.closest("[role=option]"));
    if (at >= 0) listener(at);
  });

  /** Makes a token the one that Tab reaches. */
  function setCurrent(at) {
    if (!spans.length) return;
    if (spans[current]) spans[current].tabIndex = -1;
    current = Math.max(0, Math.min(spans.length - 1, at));
    spans[current].tabIndex = 0;
  }

  on("click", (at) => {
    setCurrent(at);
    onChoose?.(at);
  });
  on("pointerover", (at) => {
    spans[at].title = describe(at); // only on demand: a long text has thousands of tokens
    onInspect?.(at);
  });
  on("focusin", (at) => {
    setCurrent(at);
    spans[at].setAttribute("aria-label", describe(at));
    onInspect?.(at);
  });
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return onChoose?.(current);
    }
    const to = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: spans.length - 1,
      ArrowUp: inNextLine(-1), ArrowDown: inNextLine(1) }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    setCurrent(to);
    spans[current].focus();
  });

  /** Returns the nearest token of the line above (-1) or below (1). */
  function inNextLine(direction) {
    const from = spans[current].getBoundingClientRect();
    let best = current, bestDistance = Infinity, line = null;
    for (let at = current + direction; spans[at]; at += direction) {
      const box = spans[at].getBoundingClientRect();
      if (Math.abs(box.top - from.top) < from.height / 2) continue;
      line ??= box.top;
      if (Math.abs(box.top - line) > box.height / 2) break;
      const distance = Math.abs(box.left - from.left);
      if (distance < bestDistance) [best, bestDistance] = [at, distance];
    }
    return best;
  }

  return {
    element,
    get selected() {
      return selected;
    },
    /** Adds a token; the text of a part of a character is empty. */
    push(text, { p, kind } = {}) {
      const span = h("span", { role: "option", tabindex: spans.length ? -1 : 0, "aria-selected": "false",
        class: kind, "data-level": p === undefined ? null : levelOf(p), "data-part": text === "",
        "aria-label": text.trim() ? null : WHITE.get(text) ?? "white space" }, text);
      spans.push(span);
      element.append(span);
      element.hidden = false;
    },
    /** Removes the tokens after the first `length`. */
    truncate(length) {
      for (const span of spans.splice(length)) span.remove();
      element.hidden = !spans.length;
      if (selected >= length) selected = -1;
      setCurrent(Math.min(current, length - 1));
    },
    /** Selects a token, or none with -1. */
    select(at) {
      spans[selected]?.setAttribute("aria-selected", "false");
      selected = at;
      spans[at]?.setAttribute("aria-selected", "true");
      if (at >= 0) setCurrent(at);
    },
    scrollTo: (at) => spans[at]?.scrollIntoView({ block: "nearest" }),
    /** Tints the tokens of some strengths from 0 to 1; the others get no tint. */
    paint(strengths) {
      spans.forEach((span, at) => {
        span.classList.toggle("painted", at in strengths);
        if (at in strengths) setVar(span, "strength", strengths[at]);
      });
    },
  };
}

/** Explains the tints in words and colors. */
export function legend() {
  const levels = Array.from({ length: LEVELS }, (_, level) => h("span", { "data-level": level,
    title: `probability of about 1 in ${2 ** level}${level === LEVELS - 1 ? " or less" : ""}` }));
  return h("p", { class: "legend" }, "Likely",
    h("span", { class: "scale", role: "img", "aria-label": "Eight tints from likely to unlikely tokens." }, levels), "Unlikely");
}
