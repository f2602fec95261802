// Pairs of tokens: their counts in the training data beside the probabilities of the model.

import { makeShow } from "./api.js";
import { errorLine } from "./controls.js";
import { h } from "./dom.js";
import { makeMatrix } from "./matrix.js";
import { barKey, makeBars, setBars } from "./next.js";
import { labeled, percent, quoted, whole } from "./text.js";

export function makePairs(panel) {
  let data = null;
  const error = errorLine();
  const readout = h("p", { class: "readout" });
  const rows = h("ol", { class: "bars pairs" });
  const title = h("h2");
  const [counts, model] = ["Counts", "Model"].map((name) => makeMatrix({ describe, onInspect: inspect,
    label: `${name}: one row per token, one column per following token` }));
  panel.append(
    h("p", { class: "lead" }, "One row per token, one column per following token: how often the pair occurs in the training ",
      "data, and the probability the model assigns when that token is its only context."),
    error, readout,
    h("div", { class: "maps-and-bars" },
      h("figure", {}, h("figcaption", {}, "Counts"), counts.element),
      h("figure", {}, h("figcaption", {}, "Model"), model.element),
      h("section", { class: "followers" }, title, barKey("counts", "model"), rows)));

  const share = (row, column) => data.counts[row][column] / (data.totals[row] || 1);

  function describe(row, column) {
    const [first, second] = [row, column].map((at) => labeled(data.labels[at]));
    return `${quoted(first + second)}: ${whole(data.counts[row][column])} times, ${percent(share(row, column))} of the tokens after ${
      quoted(first)}; model probability ${percent(data.expected[row][column])}`;
  }

  function inspect(row, column) {
    counts.mark(row, column);
    model.mark(row, column);
    readout.replaceChildren(h("bdi", {}, describe(row, column)));
    title.replaceChildren("After ", h("bdi", { class: "token" }, labeled(data.labels[row])));
    const followers = data.labels.map((label, at) => ({ label, counted: share(row, at), p: data.expected[row][at] }));
    followers.sort((a, b) => b.counted - a.counted);
    const largest = Math.max(1e-9, ...followers.flatMap(({ counted, p }) => [counted, p]));
    rows.replaceChildren(...followers.slice(0, 12).map(({ label, counted, p }) => {
      const bars = makeBars();
      setBars(bars, counted / largest, p / largest);
      return h("li", {}, h("div", {}, h("bdi", { class: "token" }, labeled(label)), bars,
        h("span", { class: "figure" }, percent(counted), " ", h("span", { class: "second" }, percent(p)))));
    }));
  }

  return {
    show: makeShow(error, "/api/pairs", (answer) => {
      data = answer;
      const labels = data.labels.map(labeled);
      counts.set({ labels, strength: (row, column) => Math.sqrt(share(row, column)) });
      model.set({ labels, strength: (row, column) => Math.sqrt(data.expected[row][column]) });
      // Begin with the most frequent pair.
      const largest = data.counts.map((row) => Math.max(...row));
      const row = largest.indexOf(Math.max(...largest));
      inspect(row, data.counts[row].indexOf(largest[row]));
    }),
  };
}
