// What follows what: counted in the training data, beside what the model expects.

import { attempt, get, latest } from "./api.js";
import { errorLine } from "./controls.js";
import { h, setVars } from "./dom.js";
import { makeMatrix } from "./matrix.js";
import { labelled, percent, whole } from "./text.js";

export function makePairs(panel) {
  let of = "";
  let found = null;
  const replaced = latest();
  const error = errorLine();
  const readout = h("p", { class: "readout" });
  const rows = h("ol", { class: "bars pairs" });
  const title = h("h2", {});
  const counted = makeMatrix({ label: "Counts: one row per token, one column per following token",
    describe: inWords, looked: look });
  const expected = makeMatrix({ label: "Model: one row per token, one column per following token",
    describe: inWords, looked: look });
  panel.append(
    h("p", { class: "lead" }, "One row per token, one column per following token: how often the pair occurs in the training ",
      "data, and the probability the model assigns when that token is its only context."),
    error, readout,
    h("div", { class: "both" },
      h("figure", {}, h("figcaption", {}, "Counts"), counted.element),
      h("figure", {}, h("figcaption", {}, "Model"), expected.element)),
    h("section", { class: "after" }, title,
      h("p", { class: "key", "aria-hidden": "true" }, h("span", { class: "said" }, "counts"),
        h("span", { class: "drawn" }, "model")), rows));

  const share = (row, column) => found.counts[row][column] / (found.totals[row] || 1);

  function inWords(row, column) {
    const [first, second] = [row, column].map((at) => labelled(found.labels[at]));
    return `${first}${second}: ${whole(found.counts[row][column])} times, ${percent(share(row, column))} of the tokens after ${
      first}; model probability ${percent(found.expected[row][column])}`;
  }

  function look(row, column) {
    counted.mark(row, column);
    expected.mark(row, column);
    readout.replaceChildren(h("bdi", {}, inWords(row, column)));
    title.replaceChildren("After ", h("bdi", { class: "token" }, labelled(found.labels[row])));
    const followers = found.labels.map((label, at) => ({ label, said: share(row, at), drawn: found.expected[row][at] }));
    followers.sort((a, b) => b.said - a.said);
    const longest = Math.max(1e-9, ...followers.flatMap(({ said, drawn }) => [said, drawn]));
    rows.replaceChildren(...followers.slice(0, 12).map(({ label, said, drawn }) => {
      const bars = [h("span", { class: "said" }), h("span", { class: "drawn" })];
      setVars(bars[0], { share: (said / longest).toFixed(4) });
      setVars(bars[1], { share: (drawn / longest).toFixed(4) });
      return h("li", {}, h("div", {}, h("bdi", { class: "token" }, labelled(label)), h("span", { class: "bar" }, bars),
        h("span", { class: "figure" }, percent(said), " ", h("span", { class: "second" }, percent(drawn)))));
    }));
  }

  return {
    async show(card) {
      if (of === card.name) return;
      of = card.name;
      const signal = replaced();
      const answer = await attempt(error, () => get(`/api/pairs?model=${encodeURIComponent(of)}`, signal));
      if (!answer) return void (of = of === card.name ? "" : of);
      found = answer;
      const labels = found.labels.map(labelled);
      counted.set({ rows: labels, columns: labels, strength: (row, column) => Math.sqrt(share(row, column)) });
      expected.set({ rows: labels, columns: labels, strength: (row, column) => Math.sqrt(found.expected[row][column]) });
      look(0, 0);
    },
  };
}
