// Where a text comes from: it is pasted, a file, or a built-in data set.

import { button, h, keepFocus } from "./dom.js";
import { DATASETS, pastedName } from "./terms.js";

/**
 * Returns the area that takes a text. `onFile` is called with a file, `onDataset` with the name of a data set, and
 * `getNames` returns the names that are taken.
 */
export function makeSource(panel, { onFile, onDataset, getNames }) {
  const paste = h("textarea", { rows: 5, spellcheck: "false", dir: "auto", "aria-label": "Text to train on", oninput: showUse,
    placeholder: "Paste a text here, or drop a file: a list with one item per line, or running text." });
  const use = button("Use this text", () => onFile(new File([paste.value], pastedName(paste.value, getNames()))), { class: "main", hidden: true });
  const file = h("input", { type: "file", id: "file", accept: "text/*,.txt,.md,.csv,.json,.py", class: "visually-hidden" });
  const element = h("div", { class: "drop" }, paste, h("div", { class: "row" }, use,
    file, h("label", { class: "button", for: "file" }, "Choose a file"),
    h("span", { class: "chips-row" }, h("span", { class: "label" }, "or try"),
      DATASETS.map(([name, title]) => button(title, () => onDataset(name), { class: "chip" })))));

  file.addEventListener("change", () => {
    const [chosen] = file.files;
    file.value = ""; // so that the same file can be chosen again
    if (chosen) onFile(chosen);
  });
  // A file that is dropped beside the drop area must not replace the page.
  for (const type of ["dragover", "drop"]) panel.addEventListener(type, (event) => event.preventDefault());
  for (const type of ["dragover", "dragleave", "drop"]) {
    element.addEventListener(type, () => element.classList.toggle("over", type === "dragover"));
  }
  element.addEventListener("drop", ({ dataTransfer: { files: [dropped] } }) => dropped && onFile(dropped));

  function showUse() {
    use.hidden = !paste.value.trim();
  }

  return {
    element,
    /** Removes the pasted text. */
    clear() {
      paste.value = "";
      keepFocus(showUse, paste);
    },
  };
}
