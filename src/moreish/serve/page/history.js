// The training logs of one or more models: losses, samples and settings.

import { attempt, get } from "./api.js";
import { makeLines, thinned } from "./charts.js";
import { errorLine } from "./controls.js";
import { button, h } from "./dom.js";
import { server } from "./state.js";
import { counted, large, shown, whole } from "./text.js";

/** The number of distinguishable colors, and so of runs that can be compared. */
const COLORS = 6;

const MAX_POINTS = 400;

/** The x-axis is logarithmic if the longest run is this many times as long as the shortest. */
const LOG_RATIO = 10;

/** Whether losses per token of two models can be compared. */
const sameTokens = (a, b) => a.tokenizer === b.tokenizer && (["char", "byte"].includes(a.tokenizer) || a.vocabulary === b.vocabulary);

export function makeHistory(panel) {
  let model = "";
  const logs = new Map();
  /** The compared runs by color; null is a free color. */
  let chosen = [];
  let areSettingsShown = false;
  const error = errorLine();
  const runs = h("div", { class: "runs", role: "group", "aria-label": "Runs to compare" });
  const unit = h("select", { onchange: draw }, ["tokens", "steps"].map((value) => h("option", { value }, value)));
  const chart = makeLines({ label: "Loss during training", x: "tokens", y: "nats per token", onInspect: showSampleAt });
  const slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Sample",
    oninput: () => showSample(slider.valueAsNumber) });
  const step = h("p", { class: "where" });
  const sample = h("pre", { class: "sample", dir: "auto", tabindex: 0, "aria-label": "Sample" });
  const samples = h("section", { class: "samples" }, h("h2", {}, "Samples during training"), slider, step, sample);
  const toggle = button("", () => {
    areSettingsShown = !areSettingsShown;
    toggle.ariaExpanded = String(areSettingsShown);
    drawTable();
  }, { class: "quiet", "aria-expanded": "false" });
  const table = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs and their settings" });
  const lead = h("p", { class: "lead" });
  panel.append(lead,
    h("div", { class: "row" }, runs, h("span", { class: "gap" }), h("label", { class: "checkbox" }, "x-axis", unit)),
    error, h("div", { class: "chart-and-samples" }, chart.element, samples), h("h2", {}, "Comparison"), table, h("div", {}, toggle));

  /** Returns the compared runs whose logs are loaded: color, model card and log. */
  const loaded = () => chosen.flatMap((name, color) => (logs.has(name)
    ? [{ name, color, card: server.models.find((card) => card.name === name), log: logs.get(name) }] : []));

  const perStep = (log) => (unit.value === "tokens" ? log.tokens_per_step : 1);

  function draw() {
    const all = loaded();
    const differ = all.some(({ card }) => !sameTokens(card, all[0].card));
    const inBits = differ && all.every(({ log }) => log.bits_per_byte !== null);
    const series = all.flatMap(({ name, color, log }) => {
      const points = (entries, key) => entries.filter((entry) => entry[key] !== null)
        .map((entry) => [entry.step * perStep(log), entry[key] * (inBits ? log.bits_per_byte : 1)]);
      const train = points(log.evaluations, "train");
      return [
        { name: `${shown(name)}, training`, points: thinned(train.length ? train : points(log.steps, "loss"), MAX_POINTS), color, faint: true },
        { name: `${shown(name)}, validation`, points: points(log.evaluations, "val"), color, dots: true },
      ].filter((curve) => curve.points.length);
    });
    const lengths = all.map(({ log }) => log.steps.at(-1)?.step * perStep(log)).filter((length) => length > 0);
    chart.set(series, { x: unit.value, log: Math.max(...lengths) > LOG_RATIO * Math.min(...lengths),
      y: inBits ? "bits per byte" : `nats per token${differ ? " (different tokenizers: not comparable)" : ""}` });
    const loss = inBits ? "bits per byte of text, because the tokenizers differ" : "nats per token";
    lead.textContent = `The loss is the cross-entropy in ${loss}; lower is better. `
      + "Thin lines: training batches. Thick lines: the validation split, which is not trained on.";
    drawTable();
  }

  function drawRuns() {
    const names = server.models.filter((card) => card.has.history).map((card) => card.name);
    const isFull = loaded().length >= COLORS;
    runs.replaceChildren(...names.map((name) => {
      const color = chosen.indexOf(name);
      const box = h("input", { type: "checkbox", value: name, checked: color >= 0, onchange: () => {
        if (box.checked) add(name);
        else chosen[color] = null;
        drawRuns();
        draw();
        [...runs.querySelectorAll("input")].find((input) => input.value === name)?.focus();
      }, disabled: name === model || (isFull && color < 0) });
      return h("label", { class: "checkbox" }, box, color >= 0 && h("span", { class: `swatch c${color}` }),
        h("bdi", {}, shown(name)));
    }));
    runs.hidden = names.length < 2;
  }

  async function add(name) {
    const free = chosen.indexOf(null);
    chosen[free < 0 ? chosen.length : free] = name;
    if (!logs.has(name)) {
      const log = await attempt(error, () => get(`/api/history?model=${encodeURIComponent(name)}`));
      if (!log) return;
      logs.set(name, log);
    }
    draw();
    if (name === model) openSamples(logs.get(name).samples);
  }

  function openSamples({ length }) {
    samples.hidden = !length;
    slider.hidden = length < 2;
    if (!length) return;
    slider.max = String(length - 1);
    slider.value = slider.max;
    showSample(length - 1);
  }

  function showSample(at) {
    const found = logs.get(model).samples[at];
    step.textContent = `After ${counted(found.step, "step")}`;
    slider.setAttribute("aria-valuetext", step.textContent);
    sample.textContent = shown(found.text);
  }

  /** Shows the last sample before a place on the x-axis. */
  function showSampleAt(x) {
    const log = logs.get(model);
    const at = log?.samples.findLastIndex((one) => one.step * perStep(log) <= x) ?? -1;
    if (at < 0 || at === slider.valueAsNumber) return;
    slider.value = String(at);
    showSample(at);
  }

  function drawTable() {
    const all = loaded();
    const number = (value) => value?.toFixed(4) ?? "–";
    const rows = (names, values) => h("tbody", {}, names.map((name) => h("tr", {},
      h("th", { scope: "row" }, h("bdi", {}, shown(name))),
      values.map((of) => h("td", {}, h("bdi", {}, shown(of[name] ?? "–")))))));
    const facts = all.map(({ card }) => ({
      "trained on": card.data,
      "architecture": card.architecture,
      "parameters": large(card.parameters),
      "tokens": `${whole(card.vocabulary)}, ${card.tokenizer}`,
      "training loss, nats per token": number(card.losses.train),
      "validation loss, nats per token": number(card.losses.val),
      "validation, bits per byte": number(card.bits_per_byte),
    }));
    const settings = all.map(({ log }) => Object.fromEntries(["model", "train"].flatMap((group) =>
      Object.entries(log.settings[group]).map(([key, value]) => [`${group}.${key}`, format(value)]))));
    // Of a single run, all settings are shown; of several, those that differ.
    const keys = [...new Set(settings.flatMap(Object.keys))]
      .filter((key) => all.length < 2 || settings.some((of) => of[key] !== settings[0][key]));
    const details = rows(keys, settings);
    details.hidden = !areSettingsShown;
    toggle.textContent = all.length > 1 ? "Settings that differ" : "All settings";
    table.replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, h("td"), all.map(({ name, color }) => h("th", { scope: "col" },
        h("span", { class: `swatch c${color}` }), h("bdi", {}, shown(name)))))),
      rows(Object.keys(facts[0] ?? {}), facts), details));
  }

  return {
    show(card) {
      if (model !== card.name) {
        model = card.name;
        chosen = [];
        samples.hidden = true;
        add(model);
      }
      drawRuns();
    },
  };
}

const format = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
