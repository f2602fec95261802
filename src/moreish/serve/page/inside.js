// The Inspect view: attention, embedding, pairs, and the training log of a model.

import { makeAttention } from "./attention.js";
import { h } from "./dom.js";
import { makeEmbedding } from "./embedding.js";
import { makeHistory } from "./history.js";
import { makePairs } from "./pairs.js";
import { route, writeRoute } from "./state.js";
import { makeTabs } from "./tabs.js";

const PARTS = [
  { key: "attention", title: "Attention", make: makeAttention },
  { key: "embedding", title: "Embedding", make: makeEmbedding },
  { key: "pairs", title: "Pairs", make: makePairs },
  { key: "history", title: "Training", make: makeHistory },
];

/** Tokenizers whose tokens are never part of a character. */
const WHOLE_CHARACTERS = ["char", "word"];

export function makeInside(panel) {
  const list = h("div", { class: "tabs parts", role: "tablist", "aria-label": "Parts of the model" });
  const none = h("p", { class: "hint" }, "This model has nothing to inspect: no attention, no embedding, ",
    "and its training data and log are not available.");
  const panels = h("div");
  const key = h("p", { class: "hint" });
  panel.append(list, none, panels, key);
  let card = null;
  const tabs = makeTabs(list, panels, PARTS, (part) => choose(part, true));

  function choose(part, addsEntry = false) {
    const available = PARTS.map(({ key }) => key).filter((key) => card.has[key]);
    route.part = available.includes(part) ? part : (available[0] ?? "");
    tabs.show(route.part, available);
    list.hidden = !route.part;
    none.hidden = !list.hidden;
    const marks = ["␣ is a space", "↵ a line break", card.kind === "lines" && "· the start or end of an item",
      !WHOLE_CHARACTERS.includes(card.tokenizer) && "‹e2› a byte that is part of a character"];
    key.textContent = `${marks.filter(Boolean).join(", ")}.`;
    key.hidden = !["attention", "embedding", "pairs"].includes(route.part);
    writeRoute(addsEntry);
    tabs.views[route.part]?.show(card);
  }

  return {
    show(newCard) {
      card = newCard;
      choose(route.part);
    },
  };
}
