// Form controls that several views share.

import { UserError } from "./api.js";
import { h, uniqueId } from "./dom.js";
import { currentModel, sampling } from "./state.js";
import { whole } from "./text.js";

/** Puts a label above a control, and optionally a hint below it. */
export function field(title, input, hint = "") {
  input.id ||= uniqueId("field");
  const small = hint && h("small", { id: uniqueId("hint") }, hint);
  if (small) input.setAttribute("aria-describedby", small.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, title), input, small);
}

export const checkbox = (title, input) => h("label", { class: "checkbox" }, input, title);

export const errorLine = () => h("p", { class: "error", role: "alert" });

/** Returns a slider over a list of values, which sets one of the sampling settings. */
function slider(title, setting, values, format, hint) {
  const input = h("input", { type: "range", min: 0, step: 1 });
  const output = h("output");
  const element = field(title, input, hint);
  element.classList.add("slider");
  element.querySelector("label").append(output);
  const showValue = (value) => {
    output.textContent = format(value);
    input.setAttribute("aria-valuetext", format(value));
  };
  const refresh = () => {
    const all = values();
    // The current value may not be among those of another model, so the closest one is shown.
    const distances = all.map((value) => Math.abs(Math.log((value || 1e9) / (sampling[setting] || 1e9))));
    input.max = all.length - 1;
    input.value = distances.indexOf(Math.min(...distances));
    showValue(all[input.valueAsNumber]);
  };
  input.addEventListener("input", () => {
    sampling[setting] = values()[input.valueAsNumber];
    showValue(sampling[setting]);
  });
  refresh();
  return { element, refresh };
}

const TEMPERATURES = [0, ...Array.from({ length: 40 }, (_, i) => (i + 1) / 20)];
const TOP_PS = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);
const TOP_KS = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 200, 500, 1000];

/** Returns the controls of the sampling settings; `refresh` shows settings that another view has changed. */
export function samplingControls(onChange = () => {}) {
  const sliders = [
    slider("Temperature", "temperature", () => TEMPERATURES, (t) => (t ? t.toFixed(2) : "0"),
      "Below 1: more predictable. Above 1: more varied. 1 leaves the model unchanged."),
    slider("Top-k", "top_k", () => [...TOP_KS.filter((k) => k < (currentModel()?.vocabulary ?? Infinity)), 0],
      (k) => (k ? `top ${k}` : "all"), "Sample only from the k most likely tokens."),
    slider("Top-p", "top_p", () => TOP_PS, (p) => (p < 1 ? `top ${Math.round(100 * p)} %` : "all"),
      "Sample only from the most likely tokens whose probabilities add up to p."),
  ];
  const element = h("fieldset", { class: "sampling", oninput: onChange }, h("legend", {}, "Sampling settings"),
    sliders.map((one) => one.element));
  return { element, refresh: () => sliders.forEach((one) => one.refresh()) };
}

/** Returns the whole number in a field, or null if the field is empty. */
export function wholeNumber(input, title, low) {
  if (!input.value && !input.validity.badInput) return null;
  const [value, high] = [input.valueAsNumber, Number.MAX_SAFE_INTEGER];
  if (Number.isInteger(value) && value >= low && value <= high) return value;
  throw new UserError(`${title} must be a whole number ${value > high ? `of at most ${whole(high)}` : `of at least ${whole(low)}`}`);
}

/** Returns a random seed that is short enough to read aloud. */
export const newSeed = () => Math.floor(Math.random() * 1e6);
