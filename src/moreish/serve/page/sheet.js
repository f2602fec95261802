// A section beside the text that is a sheet at the bottom of a small screen, where it opens on demand.

import { button, h } from "./dom.js";

/** Returns a section with a heading and tools beside it. */
export function makeSheet(name, tools, ...content) {
  const title = h("h2", { tabindex: -1 }, name);
  const close = button("×", () => hide(), { class: "quiet close", "aria-label": `Close: ${name}` });
  const element = h("section", { class: "sheet", "aria-label": name }, h("div", { class: "head" }, title, tools, close), content);
  /** The element that had the focus when the sheet was opened. */
  let opener = null;

  // The style sheet decides where the section is a sheet.
  const isSheet = () => getComputedStyle(element).position === "fixed";

  function show() {
    opener = document.activeElement;
    element.classList.add("open");
    if (isSheet()) title.focus({ preventScroll: true });
  }

  function hide(returnsFocus = true) {
    const hasFocus = returnsFocus && isSheet() && element.contains(document.activeElement);
    element.classList.remove("open");
    if (hasFocus) opener?.focus({ preventScroll: true });
  }

  element.addEventListener("keydown", ({ key }) => key === "Escape" && isSheet() && hide());
  // Another token replaces the content of the sheet.
  addEventListener("pointerdown", ({ target }) => element.contains(target) || target.closest("[role=option]") || hide(false));

  return { element, show, hide };
}
