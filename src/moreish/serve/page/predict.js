// The Predict view of models of examples: targets of inputs, what they attend to, and the worst mistakes.

import { attempt, makeLatestSignal, makeShow, post } from "./api.js";
import { errorLine, field } from "./controls.js";
import { announce, button, h, setVar } from "./dom.js";
import { route, tabStorage } from "./state.js";
import { makeStrip } from "./strip.js";
import { counted, labeled, percent, quoted, shown, whole } from "./text.js";

/** The most inputs of one request. */
const MAX_INPUTS = 256;

const BEAMS = [[1, "Most likely token"], [4, "Beam search, 4"], [10, "Beam search, 10"]];

export function makePredict(panel) {
  let card = null;
  /** An input of several lines that was chosen, which stays one input while it is not changed. */
  let chosen = "";
  let answers = [];
  const newSignal = makeLatestSignal();

  const input = h("textarea", { rows: 3, spellcheck: "false", autocapitalize: "off", dir: "auto",
    onkeydown: (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && predict() });
  const beams = h("select", {}, BEAMS.map(([value, title]) => h("option", { value }, title)));
  const beamsField = field("Search", beams);
  const start = button("Predict", predict, { class: "main" });
  const suggestions = h("div", { class: "suggestions", role: "group", "aria-label": "Inputs to try" });
  const error = errorLine();
  const results = h("ol", { class: "predictions", "aria-label": "Predictions" });
  const summary = h("p", { class: "lead" });
  const mistakesError = errorLine();
  const table = h("div", { class: "scrolled" });
  const mistakes = h("ol", { class: "mistakes", "aria-label": "Worst mistakes" });

  panel.append(h("div", { class: "columns" },
    h("div", { class: "main-column" },
      field("Inputs, one on each line", input),
      h("div", { class: "row" }, start, beamsField),
      suggestions, error, results),
    h("aside", { "aria-label": "Mistakes on the validation split" },
      h("h2", {}, "Mistakes"), mistakesError, summary, table, mistakes)));

  async function predict() {
    const lines = input.value === chosen ? [chosen] : input.value.split("\n");
    const inputs = lines.filter((line) => line.trim()).slice(0, MAX_INPUTS);
    if (!inputs.length) {
      error.textContent = "Write an input first.";
      return;
    }
    tabStorage.set(`predict.${card.name}`, input.value);
    start.disabled = true;
    results.setAttribute("aria-busy", "true");
    const body = { model: route.model, inputs, beams: Number(beams.value), attention: true };
    const answer = await attempt(error, () => post("/api/predict", body, newSignal()));
    start.disabled = false;
    results.setAttribute("aria-busy", "false");
    if (!answer) return;
    answers = answer.predictions;
    results.replaceChildren(...answers.map(row));
    announce(answers.length === 1 ? `Prediction: ${shown(answers[0].target)}` : counted(answers.length, "prediction"));
  }

  function row(prediction) {
    const { input: source, target, probability, alternatives, attention } = prediction;
    const largest = Math.max(probability, ...alternatives.map((other) => other.probability), 1e-9);
    const bars = [{ target, probability }, ...alternatives].map((other) => h("li", {}, h("span", {},
      h("bdi", { class: "token" }, shown(other.target) || "(empty)"), makeBar(other.probability / largest),
      h("span", { class: "figure" }, percent(other.probability)))));
    return h("li", {},
      h("p", { class: "mapping" }, h("bdi", { class: "source" }, shown(source)), h("span", { "aria-hidden": "true" }, " → "),
        h("bdi", { class: "target" }, shown(target) || "(empty)")),
      h("ol", { class: "bars single", "aria-label": "Probabilities" }, bars),
      attention && attention.target.length > 0 && readings(attention));
  }

  function makeBar(share) {
    const bar = h("span", { class: "sampled" });
    setVar(bar, "share", share);
    return h("span", { class: "bar" }, bar);
  }

  /** Shows which tokens of the input a token of the target attends to. */
  function readings({ input: source, target, weights }) {
    const from = makeStrip({ label: "Tokens of the input", describe: (at) => quoted(labeled(source[at])) });
    const to = makeStrip({ label: "Tokens of the target; each shows what it attends to", onInspect: inspect,
      describe: (at) => `${quoted(labeled(target[at]))} attends to ${largest(at)}` });
    const readout = h("p", { class: "readout" });
    source.forEach((token) => from.push(labeled(token)));
    target.forEach((token) => to.push(labeled(token)));

    const largest = (at) => weights[at].map((weight, column) => ({ weight, column }))
      .sort((a, b) => b.weight - a.weight).slice(0, 3).filter(({ weight }) => weight >= 0.05)
      .map(({ weight, column }) => `${quoted(labeled(source[column]))} ${percent(weight)}`).join(", ");

    function inspect(at) {
      to.select(at);
      from.paint(weights[at].map(Math.sqrt));
      readout.textContent = `${quoted(labeled(target[at]))} attends to ${largest(at)}`;
    }
    for (const { element } of [from, to]) element.classList.add("chips");
    const details = h("details", { class: "readings" }, h("summary", {}, "Attention to the input"),
      from.element, to.element, readout);
    inspect(0);
    return details;
  }

  const showMistakes = makeShow(mistakesError, "/api/mistakes", (answer) => {
    const right = answer.examples - answer.wrong;
    summary.textContent = `${whole(right)} of ${counted(answer.examples, "example")} of the validation split are right`
      + ` (${percent(right / Math.max(1, answer.examples))}).${answer.mistakes.length ? " The most confident mistakes:" : ""}`;
    table.replaceChildren(...(answer.confusion ? [confusionTable(answer.confusion)] : []));
    mistakes.replaceChildren(...answer.mistakes.map(mistake));
    suggestions.replaceChildren(...answer.inputs.filter((text) => text.length <= 60 && !text.includes("\n")).slice(0, 5)
      .map((text) => button(h("bdi", {}, shown(text)), () => use(text), { class: "quiet" })));
    if (!input.value) use(answer.inputs[0] ?? "");
  });

  function use(text) {
    input.value = chosen = text;
    if (text) predict();
  }

  function mistake({ input: source, target, predicted, probability }) {
    return h("li", {}, button(h("bdi", {}, shown(source)), () => use(source), { class: "quiet" }),
      h("p", {}, "predicted ", h("bdi", {}, shown(predicted) || "(empty)"), ` (${percent(probability)}), in the data `,
        h("bdi", {}, shown(target))));
  }

  function confusionTable({ labels, counts }) {
    const cell = (number, at, total) => {
      const element = h("td", { class: "heat" }, number ? whole(number) : "");
      setVar(element, "strength", total ? number / total : 0);
      return element;
    };
    return h("table", { class: "confusion" },
      h("caption", {}, "Rows: labels in the data. Columns: predicted labels."),
      h("thead", {}, h("tr", {}, h("td"), labels.map((label) => h("th", { scope: "col" }, h("bdi", {}, shown(label)))))),
      h("tbody", {}, counts.map((row, at) => h("tr", {}, h("th", { scope: "row" }, h("bdi", {}, shown(labels[at]))),
        row.map((number) => cell(number, at, row.reduce((sum, one) => sum + one, 0)))))));
  }

  return {
    show(newCard) {
      const isOther = card?.name !== newCard.name;
      card = newCard;
      beamsField.hidden = card.targets === "label";
      if (isOther) {
        results.replaceChildren();
        suggestions.replaceChildren();
        mistakes.replaceChildren();
        table.replaceChildren();
        summary.textContent = error.textContent = "";
        input.value = tabStorage.get(`predict.${card.name}`, "");
        if (input.value) predict();
      }
      showMistakes(card);
    },
  };
}
