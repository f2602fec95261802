// A text whose tokens can be looked at one by one: tinted, and reached with a pointer or arrows.

import { h, setVars } from "./dom.js";

/** Levels of tint; a token of level n had a chance of about 1 in 2ⁿ. */
const LEVELS = 8;

const WHITE = new Map([["", "part of a character"], [" ", "space"], ["\n", "line end"], ["\t", "tab"]]);

/** Bits of surprise, as a level. */
const levelOf = (p) => Math.min(LEVELS - 1, Math.max(0, Math.floor(-Math.log2(p))));

/**
 * @param {object} options
 * @param {string} options.label for those who listen
 * @param {(at: number) => void} [options.chosen] by a click, Enter or Space
 * @param {(at: number | null) => void} [options.looked] under the pointer, or focused
 * @param {(at: number) => string} options.describe a token in words
 */
export function makeStrip({ label, chosen, looked, describe }) {
  const element = h("div", { class: "strip", role: "listbox", "aria-label": label,
    "aria-orientation": "horizontal", hidden: true });
  /** @type {HTMLElement[]} */
  let spans = [];
  let current = 0;
  let selected = -1;

  const indexOf = (target) => {
    const span = target instanceof Element ? target.closest("[role=option]") : null;
    return span ? spans.indexOf(/** @type {HTMLElement} */ (span)) : -1;
  };

  function reach(at) {
    if (!spans.length) return;
    const to = Math.max(0, Math.min(spans.length - 1, at));
    if (spans[current]) spans[current].tabIndex = -1;
    current = to;
    spans[current].tabIndex = 0;
  }

  element.addEventListener("click", (event) => {
    const at = indexOf(event.target);
    if (at < 0) return;
    reach(at);
    chosen?.(at);
  });
  element.addEventListener("pointerover", (event) => {
    const at = indexOf(event.target);
    if (at < 0) return;
    // In words only where somebody asks: thousands of titles would be heavy.
    if (!spans[at].title) spans[at].title = describe(at);
    looked?.(at);
  });
  element.addEventListener("pointerleave", () => looked?.(null));
  element.addEventListener("focusin", (event) => {
    const at = indexOf(event.target);
    if (at < 0) return;
    reach(at);
    spans[at].setAttribute("aria-label", describe(at));
    looked?.(at);
  });
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return chosen?.(current);
    }
    const to = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: spans.length - 1,
      ArrowUp: lineUp(-1), ArrowDown: lineUp(1) }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    reach(to);
    spans[current].focus();
  });

  /** The token above or below: the nearest of the next line. */
  function lineUp(way) {
    const from = spans[current]?.getBoundingClientRect();
    if (!from) return current;
    let best = current, distance = Infinity, line = null;
    for (let at = current + way; spans[at]; at += way) {
      const box = spans[at].getBoundingClientRect();
      if (Math.abs(box.top - from.top) < from.height / 2) continue;
      line ??= box.top;
      if (Math.abs(box.top - line) > box.height / 2) break;
      const far = Math.abs(box.left - from.left);
      if (far < distance) [best, distance] = [at, far];
    }
    return best;
  }

  return {
    element,
    /** How many tokens there are. */
    get length() {
      return spans.length;
    },
    /**
     * @param {string} text as shown; empty for a part of a character
     * @param {{p?: number, kind?: string}} [look]
     */
    push(text, { p, kind } = {}) {
      const span = h("span", { role: "option", tabindex: spans.length ? -1 : 0, "aria-selected": "false",
        class: kind, "data-level": p === undefined ? null : levelOf(p),
        "data-part": text === "", "aria-label": text.trim() ? null : WHITE.get(text) ?? "white space" }, text);
      spans.push(span);
      element.append(span);
      element.hidden = false;
    },
    /** Leave out what comes after so many tokens. */
    cut(length) {
      for (const span of spans.splice(length)) span.remove();
      element.hidden = !spans.length;
      if (selected >= length) selected = -1;
      reach(Math.min(current, length - 1));
    },
    /** Mark one of them; -1: none. */
    select(at) {
      spans[selected]?.setAttribute("aria-selected", "false");
      selected = at;
      spans[at]?.setAttribute("aria-selected", "true");
      if (at >= 0) reach(at);
    },
    get selected() {
      return selected;
    },
    focus: () => spans[current]?.focus(),
    /** Bring a token into view within what scrolls. */
    reveal: (at) => spans[at]?.scrollIntoView({ block: "nearest" }),
    /** Tint each with a strength from 0 to 1; null: no tint. */
    paint(strength) {
      for (const [at, span] of spans.entries()) {
        const value = strength?.(at) ?? null;
        span.classList.toggle("painted", value !== null);
        if (value !== null) setVars(span, { strength: value.toFixed(3) });
      }
    },
    /** What was said of tokens is no longer true. */
    stale() {
      for (const span of spans) span.removeAttribute("title");
    },
  };
}

/** What the tints mean, in words and colours. */
export function legend() {
  const steps = ["1 in 1", "1 in 2", "1 in 4", "1 in 8", "1 in 16", "1 in 32", "1 in 64", "1 in 128 or less"];
  return h("p", { class: "legend" }, "Likely",
    h("span", { class: "scale", role: "img", "aria-label": "Eight tints from likely to unlikely tokens." },
      steps.map((step, level) => h("span", { "data-level": level, title: `probability of about ${step}` }))),
    "Unlikely");
}
