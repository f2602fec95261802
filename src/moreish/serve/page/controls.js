// Fields that several views have.

import { Refused } from "./api.js";
import { fresh, h } from "./dom.js";
import { model, sampling } from "./state.js";
import { whole } from "./text.js";

/** A label above a field. */
export function field(title, input, hint) {
  input.id ||= fresh("field");
  const about = hint ? h("small", { id: fresh("hint") }, hint) : null;
  if (about) input.setAttribute("aria-describedby", about.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, title), input, about);
}

/** A box to tick, with its label. */
export const tick = (title, input) => h("label", { class: "tick" }, input, title);

/** A line for what went wrong here. */
export const errorLine = () => h("p", { class: "error", role: "alert" });

/**
 * A slider that shows its value in words.
 * @param {string} title
 * @param {{values: () => number[], name: (value: number) => string, get: () => number,
 *   set: (value: number) => void, hint: string}} options
 */
function slider(title, { values, name, get, set, hint }) {
  const input = h("input", { type: "range", min: 0, step: 1 });
  const output = h("output", {});
  const wrapped = field(title, input, hint);
  wrapped.classList.add("slider");
  wrapped.querySelector("label").append(output);
  const tell = (value) => {
    output.textContent = name(value);
    input.setAttribute("aria-valuetext", name(value));
  };
  const refresh = () => {
    const all = values();
    input.max = all.length - 1;
    // The value that comes closest: another model may have fewer.
    const at = all.reduce((best, value, i) => (far(value, get()) < far(all[best], get()) ? i : best), 0);
    input.value = at;
    tell(all[at]);
  };
  input.addEventListener("input", () => {
    const value = values()[input.valueAsNumber];
    set(value);
    tell(value);
  });
  refresh();
  return { element: wrapped, refresh };
}

const far = (a, b) => Math.abs(Math.log((a || 1e9) / (b || 1e9)));

const TEMPERATURES = [0.01, ...Array.from({ length: 40 }, (_, i) => (i + 1) / 20)];
const TOP_PS = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);
const TOP_KS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 200, 500, 1000];

/** All makers of sampling sliders on the page, so that they agree. */
const copies = [];

/**
 * Temperature, top-k and top-p.
 * @param {() => void} changed
 */
export function samplingControls(changed) {
  const setter = (name, of = (value) => value) => (value) => {
    sampling[name] = of(value);
    for (const other of copies) if (other !== refresh) other();
    changed();
  };
  const sliders = [
    slider("Temperature", {
      values: () => TEMPERATURES,
      name: (value) => (value <= 0.01 ? "0" : value.toFixed(2)),
      get: () => sampling.temperature || 0.01,
      set: setter("temperature", (value) => (value <= 0.01 ? 0 : value)),
      hint: "Below 1: more predictable. Above 1: more varied. 1 leaves the model unchanged.",
    }),
    slider("Top-k", {
      values: () => [...TOP_KS.filter((k) => k < (model()?.vocabulary ?? Infinity)), 0],
      name: (value) => (value ? `top ${value}` : "all"),
      get: () => sampling.top_k,
      set: setter("top_k"),
      hint: "Sample only from the k most likely tokens.",
    }),
    slider("Top-p", {
      values: () => TOP_PS,
      name: (value) => (value < 1 ? `top ${Math.round(100 * value)} %` : "all"),
      get: () => sampling.top_p,
      set: setter("top_p"),
      hint: "Sample only from the most likely tokens whose probabilities add up to p.",
    }),
  ];
  const refresh = () => sliders.forEach((one) => one.refresh());
  copies.push(refresh);
  const element = h("fieldset", { class: "sampling" }, h("legend", {}, "Sampling settings"),
    sliders.map((one) => one.element));
  return { element, refresh };
}

/** The whole number in a field; null where there is nothing in it. Anything else is startError. */
export function wholeIn(input, title, low, high = Number.MAX_SAFE_INTEGER) {
  if (!input.value && !input.validity.badInput) return null;
  const value = input.valueAsNumber;
  if (Number.isInteger(value) && value >= low && value <= high) return value;
  throw new Refused(`${title} must be a whole number ${value > high ? `of at most ${whole(high)}` : `of at least ${whole(low)}`}`);
}

/** A whole number that the random draws start from; small enough to read out. */
export const newSeed = () => Math.floor(Math.random() * 1e6);
