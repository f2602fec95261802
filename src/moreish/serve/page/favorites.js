// Items that the user has starred, stored in this browser for each model.

import { announce, button, copyButton, downloadText, h } from "./dom.js";
import { browserStorage } from "./state.js";
import { counted, shown } from "./text.js";

const MAX_FAVORITES = 1000;

export function makeFavorites() {
  let model = "";
  let texts = [];
  /** False if the storage is full or disabled. */
  let isStored = true;

  const title = h("h2", { tabindex: -1 }, "Favorites");
  const hint = h("p", { class: "hint" }, "Star an item to keep it here, in this browser.");
  const list = h("ul", { class: "favorites scrolling", "aria-label": "Favorites" });
  const asLines = () => texts.map((text) => `${text}\n`).join("");
  const tools = h("div", { class: "row" }, copyButton(asLines),
    button("Save as file", () => downloadText(`${model}-favorites.txt`, asLines())));
  const element = h("section", { "aria-label": "Favorites" }, title, hint, list, tools);

  function read() {
    const stored = browserStorage.get(`favorites.${model}`, []);
    return Array.isArray(stored) ? stored.filter((text) => typeof text === "string").slice(0, MAX_FAVORITES) : [];
  }

  /** Adds or removes a favorite, after reading those that another tab has stored. */
  function toggle(text) {
    const others = (isStored ? read() : texts).filter((other) => other !== text);
    texts = (texts.includes(text) ? others : [text, ...others]).slice(0, MAX_FAVORITES);
    isStored = browserStorage.set(`favorites.${model}`, texts);
    draw();
    if (!isStored) announce("This browser cannot store favorites.");
  }

  // Another tab has changed the favorites.
  addEventListener("storage", ({ key }) => {
    if (key !== `moreish.favorites.${model}`) return;
    texts = read();
    draw();
  });

  function draw() {
    title.textContent = texts.length ? counted(texts.length, "favorite") : "Favorites";
    hint.hidden = texts.length > 0;
    tools.hidden = !texts.length;
    list.replaceChildren(...texts.map(row));
    document.querySelectorAll(".star").forEach(drawStar);
  }

  function row(text, at) {
    const remove = () => {
      toggle(text);
      (list.children[Math.min(at, texts.length - 1)]?.querySelector("button") ?? title).focus();
    };
    return h("li", {}, h("bdi", { class: "text" }, shown(text)),
      button("×", remove, { class: "quiet", "aria-label": `Remove ${shown(text)}` }));
  }

  function drawStar(star) {
    const isFavorite = texts.includes(star.dataset.text);
    star.ariaPressed = String(isFavorite);
    star.textContent = isFavorite ? "★" : "☆";
  }

  return {
    element,
    /** Shows the favorites of a model. */
    open(name) {
      model = name;
      [texts, isStored] = [read(), true];
      draw();
    },
    /** Returns a button that adds or removes a favorite. */
    star(text) {
      const star = button("", () => toggle(text), { class: "star", "data-text": text, "aria-label": `Keep ${shown(text)}` });
      drawStar(star);
      return star;
    },
  };
}
