// Suggestions for a prompt: how lines of the training data begin.

import { makeShow } from "./api.js";
import { errorLine } from "./controls.js";
import { button, h } from "./dom.js";
import { shown } from "./text.js";

/** Returns buttons that call `onChoose` with a beginning. */
export function makeBeginnings(onChoose) {
  const element = h("div", { class: "chips-row", role: "group", "aria-label": "Begin with", hidden: true });
  // Without suggestions nothing is missing, so an error is not shown.
  const request = makeShow(errorLine(), "/api/beginnings", ({ texts }) => {
    element.replaceChildren(h("span", { class: "label", "aria-hidden": "true" }, "Begin with"),
      ...texts.map((text) => button(h("bdi", {}, shown(text.trim())), () => onChoose(text), { class: "chip" })));
    element.hidden = !texts.length;
  });
  return {
    element,
    show(card) {
      element.hidden = true;
      if (card.kind === "text") request(card);
    },
  };
}
