// Form controls that several views share.

import { UserError } from "./api.js";
import { button, h, uniqueId } from "./dom.js";
import { currentModel, sampling, tabStorage } from "./state.js";
import { whole } from "./text.js";

/** Puts a label above a control, and optionally a hint below it. */
export function field(title, input, hint = "") {
  input.id ||= uniqueId("field");
  const small = hint && h("small", { id: uniqueId("hint") }, hint);
  if (small) input.setAttribute("aria-describedby", small.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, title), input, small);
}

export const checkbox = (title, input) => h("label", { class: "checkbox" }, input, title);

/** Returns a list of options, [value, title]. */
export const select = (options, onchange) => h("select", { onchange }, options.map(([value, title]) => h("option", { value }, title)));

/** Chooses an option, which is added if there is none with this value. */
export function choose(list, value) {
  if (value && ![...list.options].some((option) => option.value === value)) list.append(h("option", { value }, value));
  list.value = value ?? "";
}

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
      "Low: predictable. High: varied."),
    slider("Top-k", "top_k", () => [...TOP_KS.filter((k) => k < (currentModel()?.vocabulary ?? Infinity)), 0],
      (k) => (k ? `top ${k}` : "all"), "Only the k most likely tokens."),
    slider("Top-p", "top_p", () => TOP_PS, (p) => (p < 1 ? `top ${Math.round(100 * p)} %` : "all"),
      "The most likely tokens that sum to p."),
  ];
  const element = h("fieldset", { class: "sampling", oninput: onChange }, h("legend", {}, "Sampling settings"),
    sliders.map((one) => one.element));
  return { element, refresh: () => sliders.forEach((one) => one.refresh()) };
}

/** Returns the whole number in a field, or null if the field is empty. */
function wholeNumber(input, title, low) {
  if (!input.value && !input.validity.badInput) return null;
  const [value, high] = [input.valueAsNumber, Number.MAX_SAFE_INTEGER];
  if (Number.isInteger(value) && value >= low && value <= high) return value;
  throw new UserError(`${title} must be a whole number ${value > high ? `of at most ${whole(high)}` : `of at least ${whole(low)}`}`);
}

/** Returns a random seed that is short enough to read aloud. */
const newSeed = () => Math.floor(Math.random() * 1e6);

const DEFAULT_MAX_TOKENS = 400;

/** Returns the controls of the length and the seed of a text. */
export function lengthAndSeedControls() {
  const maxTokens = h("input", { type: "number", min: 1, step: 1, value: DEFAULT_MAX_TOKENS });
  const isRenewed = h("input", { type: "checkbox", checked: true });
  // After a reload, the last passage comes again.
  let isRestored = tabStorage.get("seed", -1) >= 0;
  const seed = h("input", { type: "number", min: 0, step: 1, value: isRestored ? tabStorage.get("seed", 0) : newSeed(), oninput: () => (isRenewed.checked = false) });
  return {
    element: h("div", { class: "length-and-seed" },
      h("div", { class: "pair" }, field("Max tokens", maxTokens), field("Seed", seed)),
      h("div", { class: "head" }, checkbox("New seed for each run", isRenewed),
        button("New seed", () => (seed.value = newSeed()), { class: "quiet" }))),
    /** Chooses a new seed, unless the user wants to keep it. */
    renew() {
      if (isRenewed.checked && !isRestored) seed.value = newSeed();
      isRestored = false;
    },
    /** Returns the settings as fields of a request; empty fields then show their defaults. */
    read() {
      const settings = { max_tokens: wholeNumber(maxTokens, "Max tokens", 1) ?? DEFAULT_MAX_TOKENS,
        seed: wholeNumber(seed, "Seed", 0) ?? newSeed() };
      [maxTokens.value, seed.value] = [settings.max_tokens, settings.seed];
      tabStorage.set("seed", settings.seed);
      return settings;
    },
  };
}
