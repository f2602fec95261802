// The embeddings of the tokens: the nearest neighbors of one of them, and a map of all.

import { makeShow } from "./api.js";
import { makeScatter } from "./charts.js";
import { errorLine, field } from "./controls.js";
import { button, h, setVar } from "./dom.js";
import { counted, labeled, percent, whole } from "./text.js";

export function makeEmbedding(panel) {
  let tokens = [];
  const error = errorLine();
  const readout = h("p", { class: "hint", role: "status" });
  const choice = h("select", { onchange: () => inspect(Number(choice.value)) });
  const list = h("ol", { class: "bars single", "aria-label": "Nearest neighbors" });
  const about = h("p", { class: "hint" });
  const scatter = makeScatter({ label: "Map of the token embeddings; the list has the neighbors of each token.",
    onInspect: (at) => at !== null && inspect(at) });
  panel.append(h("p", { class: "lead" }, "Each token has an embedding vector. Tokens that the model treats alike have similar vectors."), error,
    h("div", { class: "list-and-map" },
      h("section", { class: "neighbors" }, field("Token", choice), h("h2", {}, "Nearest neighbors"), list, readout),
      h("section", { class: "map" }, h("h2", {}, "Map"), scatter.element, about)));

  function inspect(at) {
    scatter.mark(at);
    choice.value = at;
    const { count, neighbors } = tokens[at];
    const largest = Math.max(1e-9, ...neighbors.map(({ similarity }) => similarity));
    const hadFocus = list.contains(document.activeElement);
    list.replaceChildren(...neighbors.map(({ index, similarity }) => {
      const bar = h("span", { class: "sampled" });
      setVar(bar, "share", Math.max(0, similarity / largest));
      const choose = button(h("bdi", { class: "token" }, labeled(tokens[index].label)), () => inspect(index));
      choose.append(h("span", { class: "bar" }, bar), h("span", { class: "figure" }, similarity.toFixed(2)));
      return h("li", {}, choose);
    }));
    if (hadFocus) list.querySelector("button")?.focus();
    readout.textContent = `Cosine similarity, at most 1.${count === null ? "" : ` The token occurs ${counted(count, "time")} in the training data.`}`;
  }

  return {
    show: makeShow(error, "/api/embedding", (answer, { vocabulary }) => {
      tokens = answer.tokens;
      const count = whole(tokens.length);
      const which = tokens.length < vocabulary ? `The ${count} most frequent tokens` : `All ${count} tokens`;
      const explained = percent(answer.explained_variance_ratio.reduce((sum, share) => sum + share, 0));
      about.textContent = `${which} along the first two principal components, which explain ${explained} of the variance: `
        + "neighbors on the map may be far apart in other directions.";
      choice.replaceChildren(...tokens.map(({ label }, at) => h("option", { value: at }, labeled(label))));
      const largest = Math.sqrt(Math.max(1, ...tokens.map((token) => token.count ?? 1)));
      scatter.set(tokens.map(({ x, y, label, count }) =>
        ({ x, y, name: labeled(label), size: Math.sqrt(count ?? 1) / largest })));
      inspect(Math.max(0, tokens.findIndex(({ label }) => /\p{L}/u.test(label))));
    }),
  };
}
