// A plot of the token embeddings, in which similar tokens lie close together.

import { makeShow } from "./api.js";
import { makeScatter } from "./charts.js";
import { errorLine, field } from "./controls.js";
import { h } from "./dom.js";
import { counted, labeled, percent, whole } from "./text.js";

const NEIGHBORS = 6;

export function makeEmbedding(panel) {
  let tokens = [];
  const error = errorLine();
  const lead = h("p", { class: "lead" });
  const readout = h("p", { class: "readout", role: "status" });
  const choice = h("select", { onchange: () => inspect(choice.value === "" ? null : Number(choice.value)) });
  const scatter = makeScatter({ label: "Token embeddings; the field above lists the neighbors of each token.",
    onInspect: inspect });
  panel.append(lead, h("div", { class: "row" }, field("Token", choice), readout), error, scatter.element);

  function inspect(at) {
    scatter.mark(at);
    choice.value = at ?? "";
    readout.replaceChildren();
    if (at === null) return;
    const { label, count, x, y } = tokens[at];
    const distance = (other) => Math.hypot(other.x - x, other.y - y);
    const neighbors = tokens.toSpliced(at, 1).sort((a, b) => distance(a) - distance(b)).slice(0, NEIGHBORS);
    readout.append(h("bdi", { class: "token" }, labeled(label)),
      count === null ? "" : ` occurs ${counted(count, "time")} in the training data;`, " nearest in this plot:",
      ...neighbors.flatMap((other) => [" ", h("bdi", { class: "token" }, labeled(other.label))]));
  }

  return {
    show: makeShow(error, "/api/embedding", (answer, { vocabulary }) => {
      tokens = answer.tokens;
      const count = whole(tokens.length);
      const which = tokens.length < vocabulary ? `the ${count} most frequent tokens` : `all ${count} tokens`;
      const explained = percent(answer.explained_variance_ratio.reduce((sum, share) => sum + share, 0));
      lead.textContent = "Each token has an embedding vector; tokens with similar embeddings lie close together. "
        + `This plot shows ${which} along the first two principal components, which explain ${explained} of the variance.`;
      choice.replaceChildren(h("option", { value: "" }, "none"),
        ...tokens.map(({ label }, at) => h("option", { value: at }, labeled(label))));
      const largest = Math.sqrt(Math.max(1, ...tokens.map((token) => token.count ?? 1)));
      scatter.set(tokens.map(({ x, y, label, count }) =>
        ({ x, y, name: labeled(label), size: Math.sqrt(count ?? 1) / largest })));
      inspect(null);
    }),
  };
}
