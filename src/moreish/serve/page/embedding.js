// What a model takes tokens for: those that it treats alike lie together.

import { attempt, get, latest } from "./api.js";
import { makeScatter } from "./charts.js";
import { errorLine, field } from "./controls.js";
import { h } from "./dom.js";
import { counted, labelled, percent, whole } from "./text.js";

/** Neighbours that are named. */
const NEAR = 6;

export function makeEmbedding(panel) {
  let of = "";
  let tokens = [];
  const replaced = latest();
  const error = errorLine();
  const lead = h("p", { class: "lead" });
  const readout = h("p", { class: "readout", role: "status" });
  const choice = h("select", {});
  const scatter = makeScatter({ label: "Token embeddings; the field above lists the neighbors of each token.",
    looked: (at) => look(at) });
  panel.append(lead, h("div", { class: "row" }, field("Token", choice), readout), error, scatter.element);
  choice.addEventListener("change", () => look(choice.value === "" ? null : Number(choice.value)));

  function look(at) {
    scatter.mark(at);
    choice.value = at === null ? "" : String(at);
    readout.replaceChildren();
    if (at === null) return;
    const { label, count, x, y } = tokens[at];
    const far = (other) => Math.hypot(other.x - x, other.y - y);
    const near = tokens.filter((other) => other !== tokens[at]).sort((a, b) => far(a) - far(b)).slice(0, NEAR);
    readout.append(h("bdi", { class: "token" }, labelled(label)),
      count === null ? "" : ` occurs ${counted(count, "time")} in the training data;`, " nearest in this plot: ",
      ...near.flatMap((other, i) => [i ? " " : "", h("bdi", { class: "token" }, labelled(other.label))]));
  }

  return {
    async show(card) {
      if (of === card.name) return;
      of = card.name;
      const signal = replaced();
      const found = await attempt(error, () => get(`/api/embedding?model=${encodeURIComponent(of)}`, signal));
      if (!found) return void (of = of === card.name ? "" : of);
      tokens = found.tokens;
      const seen = found.explained.reduce((sum, share) => sum + share, 0);
      const some = tokens.length < card.vocabulary ? `the ${whole(tokens.length)} most frequent tokens` : `all ${whole(tokens.length)} tokens`;
      lead.textContent = `Each token has an embedding vector; tokens with similar embeddings lie close together. This plot shows ${some} ${
        ""}along the first two principal components, which explain ${percent(seen)} of the variance.`;
      choice.replaceChildren(h("option", { value: "" }, "none"),
        ...tokens.map(({ label }, at) => h("option", { value: at }, labelled(label))));
      const most = Math.sqrt(Math.max(1, ...tokens.map(({ count }) => count ?? 1)));
      scatter.set(tokens.map(({ x, y, label, count }) =>
        ({ x, y, name: labelled(label), size: Math.sqrt(count ?? 1) / most })));
      look(null);
    },
  };
}
