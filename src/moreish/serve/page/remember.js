// A text that a model with a memory of recent text reads before the prompt.

import { attempt, UserError } from "./api.js";
import { button, debounce, h, keepFocus } from "./dom.js";
import { tabStorage } from "./state.js";
import { counted, quoted, whole } from "./text.js";

/** Returns the last characters of a text, at most `limit` UTF-16 units, without half a character. */
const lastOf = (text, limit) => text.slice(-limit).replace(/^[\udc00-\udfff]/, "");

/** Reads the end of a file, at most `limit` characters. */
async function readEnd(file, limit) {
  const start = Math.max(0, file.size - 4 * limit); // a character has at most four bytes
  const bytes = new Uint8Array(await file.slice(start).arrayBuffer());
  const isContinuation = (byte) => (byte & 0xc0) === 0x80;
  const first = start ? bytes.findIndex((byte) => !isContinuation(byte)) : 0;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(Math.max(0, first)));
    return lastOf(text.replace(/\r\n?/g, "\n"), limit);
  } catch {
    throw new UserError(`${quoted(file.name)} is not text in UTF-8`);
  }
}

/**
 * Returns the control, which shows its errors in a line. `onInput` is called at each change of the text, and `onChange`
 * shortly after the last one.
 */
export function makeRemember(error, onInput, onChange) {
  let model = "";
  /** The number of characters that the model can use; 0 for models without a memory. */
  let limit = 0;

  const hint = h("p", { class: "hint", id: "remember-hint" });
  const area = h("textarea", { rows: 4, spellcheck: "false", autocapitalize: "off", dir: "auto",
    "aria-label": "Text to remember", "aria-describedby": hint.id });
  const size = h("span");
  const file = h("input", { type: "file", id: "remember-file", accept: "text/*,.txt,.md", class: "visually-hidden" });
  const chooser = h("label", { class: "button", for: "remember-file" }, "Choose a file");
  const clear = button("Clear", () => set(""), { class: "quiet" });
  const element = h("details", { class: "remember", hidden: true }, h("summary", {}, "Text to remember", size),
    h("div", { class: "main-column" }, hint, area, h("div", { class: "row" }, file, chooser, clear)));

  const changed = debounce(250, onChange);
  area.addEventListener("input", update);
  file.addEventListener("change", () => {
    const [chosen] = file.files;
    file.value = ""; // so that the same file can be chosen again
    if (chosen) load(chosen);
  });
  // The browser would replace the page by a file that is dropped.
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    const [dropped] = event.dataTransfer.files;
    if (!dropped) return;
    event.preventDefault();
    load(dropped);
  });

  async function load(chosen) {
    const before = model;
    const text = await attempt(error, () => readEnd(chosen, limit));
    if (text !== undefined && model === before) set(text);
  }

  function set(text) {
    area.value = text;
    update();
  }

  function update() {
    tabStorage.set(`remember.${model}`, read());
    draw();
    onInput();
    changed();
  }

  function draw() {
    const { length } = read();
    size.textContent = length ? `: ${counted(length, "character")}` : "";
    keepFocus(() => (clear.hidden = !length), area);
  }

  const read = () => (limit ? lastOf(area.value, limit) : "");

  return {
    element,
    /** Returns the text as a field of a request; the server leaves out what is not in the vocabulary. */
    params() {
      const remember = read();
      return remember ? { remember, remember_unknown: "drop" } : {};
    },
    /** Shows the text of a model. */
    show(card) {
      model = card.name;
      limit = card.remember_characters;
      element.hidden = !limit;
      area.value = limit ? tabStorage.get(`remember.${model}`, "") : "";
      hint.textContent = `The model reads the last ${whole(limit)} characters of this text before the prompt, so its names and phrases are likely to recur. `
        + "Characters that are not in the vocabulary are left out.";
      element.open = false;
      draw();
    },
  };
}
