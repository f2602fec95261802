// How models were trained: losses and samples on the way, several side by side.

import { attempt, get } from "./api.js";
import { makeLines, thinned } from "./charts.js";
import { errorLine } from "./controls.js";
import { h } from "./dom.js";
import { server } from "./state.js";
import { large, shown, whole } from "./text.js";

/** Number of distinguishable colors; at most this many runs are compared. */
const COLORS = 6;

const MOST_POINTS = 400;

/** Runs of which one is so many times as long as another share an axis that multiplies. */
const FAR = 10;

/** Whether a loss per token means the same for two models. */
const sameTokens = (a, b) => a.tokenizer === b.tokenizer && (["char", "byte"].includes(a.tokenizer) || a.vocabulary === b.vocabulary);

export function makeHistory(panel) {
  let of = "";
  /** What each run logged. @type {Map<string, any>} */
  const logs = new Map();
  /** Those that are shown; each keeps its color. @type {(string | null)[]} */
  let chosen = [];
  let settingsShown = false;
  const error = errorLine();
  const others = h("div", { class: "runs", role: "group", "aria-label": "Runs to compare" });
  const unit = h("select", {}, h("option", { value: "tokens" }, "tokens"), h("option", { value: "steps" }, "steps"));
  const chart = makeLines({ label: "Loss over the training", x: "tokens", y: "nats per token",
    looked: (x) => sampleAt(x) });
  const when = h("input", { type: "range", min: 0, step: 1, "aria-label": "Sample" });
  const step = h("p", { class: "where" });
  const sample = h("pre", { class: "sample", dir: "auto", tabindex: 0, "aria-label": "Sample" });
  const samples = h("section", { class: "samples" }, h("h2", {}, "Samples during training"), when, step, sample);
  const open = h("button", { type: "button", class: "quiet", "aria-expanded": "false", onclick: () => {
    settingsShown = !settingsShown;
    open.setAttribute("aria-expanded", String(settingsShown));
    drawTable();
  } });
  const table = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Runs and their settings" });
  const lead = h("p", { class: "lead" });
  panel.append(lead,
    h("div", { class: "row" }, others, h("span", { class: "gap" }), h("label", { class: "tick" }, "x-axis", unit)),
    error, chart.element, samples, h("h2", {}, "Comparison"), table, h("div", {}, open));
  unit.addEventListener("change", draw);
  when.addEventListener("input", () => showSample(when.valueAsNumber));

  const perStep = (name) => (unit.value === "tokens" ? logs.get(name).tokens_per_step : 1);
  const there = () => chosen.filter((name) => name !== null && logs.has(name));

  const cardOf = (name) => server.models.find((card) => card.name === name);

  /** Whether to plot bits per byte: the tokenizers differ and every run reports bits per byte. */
  function measure() {
    const names = there();
    const differ = names.some((name) => !sameTokens(cardOf(name), cardOf(names[0])));
    const known = names.every((name) => logs.get(name).bits_per_byte !== null);
    return { differ, bits: differ && known };
  }

  function draw() {
    const { differ, bits } = measure();
    const series = there().flatMap((name) => {
      const { steps, evaluations } = logs.get(name);
      const [color, by, times] = [chosen.indexOf(name), perStep(name), bits ? logs.get(name).bits_per_byte : 1];
      const losses = steps.filter(({ loss }) => loss !== null).map(({ step, loss }) => [step * by, loss * times]);
      const curve = (key) => evaluations.filter((one) => one[key] !== null).map((one) => [one.step * by, one[key] * times]);
      const [train, val] = [curve("train"), curve("val")];
      return [
        { name: `${shown(name)}, training`, points: thinned(train.length ? train : losses, MOST_POINTS), color, faint: true },
        { name: `${shown(name)}, validation`, points: val, color, marks: true },
      ].filter(({ points }) => points.length);
    });
    const lengths = there().map((name) => logs.get(name).steps.at(-1)?.step * perStep(name)).filter((length) => length > 0);
    const unlike = differ && !bits ? " (different tokenizers: not comparable)" : "";
    chart.set(series, { x: unit.value, y: bits ? "bits per byte" : `nats per token${unlike}`,
      log: Math.max(...lengths) > FAR * Math.min(...lengths) });
    lead.textContent = `The loss is the cross-entropy in ${bits
      ? "bits per byte of text, because the tokenizers differ" : "nats per token"}; lower is better. Thin lines: ${
      ""}training batches. Thick lines: the validation split, which is not trained on.`;
    drawTable();
  }

  function drawOthers() {
    const names = server.models.filter((card) => card.has.history).map((card) => card.name);
    others.replaceChildren(...names.map((name) => {
      const at = chosen.indexOf(name);
      const box = h("input", { type: "checkbox", checked: at >= 0, disabled: name === of, onchange: () => {
        if (box.checked) add(name);
        else chosen[chosen.indexOf(name)] = null;
        drawOthers();
        draw();
        [...others.querySelectorAll("input")].find((input) => input.value === name)?.focus();
      }, value: name });
      const full = at < 0 && there().length >= COLORS;
      box.disabled ||= full;
      return h("label", { class: "tick" }, box, h("span", { class: at >= 0 ? `swatch c${at}` : "swatch" }),
        h("bdi", {}, shown(name)));
    }));
    others.hidden = names.length < 2;
  }

  function add(name) {
    const free = chosen.indexOf(null);
    if (free >= 0) chosen[free] = name;
    else chosen.push(name);
    fetchLog(name);
  }

  async function fetchLog(name) {
    if (!logs.has(name)) {
      const found = await attempt(error, () => get(`/api/history?model=${encodeURIComponent(name)}`));
      if (!found) return;
      logs.set(name, found);
    }
    draw();
    if (name === of) openSamples();
  }

  function openSamples() {
    const found = logs.get(of).samples;
    samples.hidden = !found.length;
    when.hidden = found.length < 2;
    when.max = String(Math.max(0, found.length - 1));
    when.value = when.max;
    showSample(found.length - 1);
  }

  function showSample(at) {
    const found = logs.get(of)?.samples[at];
    if (!found) return;
    step.textContent = `After ${whole(found.step)} steps`;
    when.setAttribute("aria-valuetext", step.textContent);
    sample.textContent = shown(found.text);
  }

  /** The last sample before a place in the chart. */
  function sampleAt(x) {
    const found = logs.get(of)?.samples ?? [];
    const at = found.findLastIndex(({ step }) => step * perStep(of) <= x);
    if (at < 0 || String(at) === when.value) return;
    when.value = String(at);
    showSample(at);
  }

  function drawTable() {
    const names = there();
    const cards = names.map(cardOf);
    const number = (value) => (value === null || value === undefined ? "–" : value.toFixed(4));
    const facts = [
      ["trained on", cards.map((card) => shown(card.data))],
      ["architecture", cards.map((card) => card.architecture)],
      ["parameters", cards.map((card) => large(card.parameters))],
      ["tokens", cards.map((card) => `${whole(card.vocabulary)}, ${card.tokenizer}`)],
      ["training loss, nats per token", cards.map((card) => number(card.losses.train))],
      ["validation loss, nats per token", cards.map((card) => number(card.losses.val))],
      ["validation, bits per byte", cards.map((card) => number(card.bits_per_byte))],
    ];
    const rows = (all) => h("tbody", {}, all.map(([name, values]) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, shown(name))),
      values.map((value) => h("td", {}, h("bdi", {}, value))))));
    const more = rows(settings(names));
    more.hidden = !settingsShown;
    open.textContent = names.length > 1 ? "Settings that differ" : "All settings";
    table.replaceChildren(h("table", {},
      h("thead", {}, h("tr", {}, h("td", {}), names.map((name) => h("th", { scope: "col" },
        h("span", { class: `swatch c${chosen.indexOf(name)}` }), h("bdi", {}, shown(name)))))),
      rows(facts), more));
  }

  /** Of one run all settings, of several those in which they differ. */
  function settings(names) {
    const all = names.map((name) => {
      const { model, train } = logs.get(name).settings;
      return Object.fromEntries([["model", model], ["train", train]].flatMap(([group, values]) =>
        Object.entries(values).map(([key, value]) => [`${group}.${key}`, asText(value)])));
    });
    const keys = [...new Set(all.flatMap(Object.keys))];
    const differ = (key) => names.length < 2 || all.some((one) => one[key] !== all[0][key]);
    return keys.filter(differ).map((key) => [key, all.map((one) => shown(one[key] ?? "–"))]);
  }

  return {
    show(card) {
      if (of !== card.name) {
        of = card.name;
        chosen = [of];
        samples.hidden = true;
        fetchLog(of);
      }
      drawOthers();
    },
  };
}

const asText = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
