// The view into a model: attention, embedding, pairs, and how it was trained.

import { makeAttention } from "./attention.js";
import { h } from "./dom.js";
import { makeEmbedding } from "./embedding.js";
import { makeHistory } from "./history.js";
import { makePairs } from "./pairs.js";
import { here, writeAddress } from "./state.js";
import { makeTabs } from "./tabs.js";

const PARTS = [
  { key: "attention", title: "Attention", make: makeAttention },
  { key: "embedding", title: "Embedding", make: makeEmbedding },
  { key: "pairs", title: "Pairs", make: makePairs },
  { key: "history", title: "Training", make: makeHistory },
];

/** Tokenizers that never cut a character. */
const WHOLE = ["char", "word"];

export function makeInside(panel) {
  const list = h("div", { class: "tabs parts", role: "tablist", "aria-label": "Parts of the model" });
  const none = h("p", { class: "hint", hidden: true }, "This model has nothing to inspect: no attention, no embedding, ",
    "and its training data and log are not available.");
  const panels = h("div", {});
  const key = h("p", { class: "hint" });
  panel.append(list, none, panels, key);
  let card = null;
  const tabs = makeTabs(list, panels, PARTS, (key) => choose(key, true));
  const parts = Object.fromEntries(PARTS.map(({ key, make }) => [key, make(tabs.panel(key))]));

  function choose(wanted, another = false) {
    const offered = PARTS.map(({ key }) => key).filter((key) => card.has[key]);
    here.part = offered.includes(wanted) ? wanted : (offered[0] ?? "");
    tabs.offer(offered);
    tabs.choose(here.part);
    list.hidden = !offered.length;
    none.hidden = offered.length > 0;
    const marks = ["␣ is a space", "↵ a line break", card.kind === "lines" && "· the start or end of an item",
      !WHOLE.includes(card.tokenizer) && "‹e2› a byte that is part of a character"];
    key.textContent = `${marks.filter(Boolean).join(", ")}.`;
    key.hidden = !["attention", "embedding", "pairs"].includes(here.part);
    writeAddress(another);
    if (here.part) parts[here.part].show(card);
  }

  return {
    show(wanted) {
      card = wanted;
      choose(here.part);
    },
  };
}
