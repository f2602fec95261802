// Items that the user likes, kept by this browser for each model.

import { copyButton, h, save, say } from "./dom.js";
import { keep } from "./state.js";
import { counted, shown } from "./text.js";

const MOST = 1000;

export function makeFavourites() {
  let of = "";
  /** @type {string[]} */
  let texts = [];
  /** The stars on the page, which have to agree. @type {Map<HTMLElement, string>} */
  const stars = new Map();

  const title = h("h2", {}, "Favourites");
  const hint = h("p", { class: "hint" }, "The star beside an item keeps it here, in this browser.");
  const list = h("ul", { class: "favourites", "aria-label": "Favourites" });
  const whole = () => texts.map((text) => `${text}\n`).join("");
  const tools = h("div", { class: "row" }, copyButton(whole),
    h("button", { type: "button", onclick: () => save(`${of}-favourites.txt`, whole()) }, "Save as a file"));
  const element = h("section", { "aria-label": "Favourites" }, title, hint, list, tools);

  function set(wanted) {
    texts = wanted.slice(0, MOST);
    draw();
    if (!keep.long.set(`favourites.${of}`, texts)) say("This browser does not keep them.");
  }

  function draw() {
    title.textContent = texts.length ? counted(texts.length, "favourite") : "Favourites";
    hint.hidden = texts.length > 0;
    tools.hidden = !texts.length;
    list.replaceChildren(...texts.map(row));
    for (const [star, text] of stars) {
      if (star.isConnected) light(star, texts.includes(text));
      else stars.delete(star);
    }
  }

  function row(text, at) {
    const remove = () => {
      set(texts.filter((other) => other !== text));
      list.children[Math.min(at, texts.length - 1)]?.querySelector("button").focus();
    };
    return h("li", {}, h("bdi", { class: "text" }, shown(text)),
      h("button", { type: "button", class: "quiet", "aria-label": `Remove ${shown(text)}`, onclick: remove }, "×"));
  }

  return {
    element,
    /** Those of another model. */
    open(name) {
      of = name;
      const found = keep.long.get(`favourites.${of}`, []);
      texts = Array.isArray(found) ? found.filter((text) => typeof text === "string").slice(0, MOST) : [];
      draw();
    },
    /** A button that keeps a text, or gives it up. */
    star(text) {
      const star = h("button", { type: "button", class: "star", "aria-label": `Keep ${shown(text)}`,
        onclick: () => set(texts.includes(text) ? texts.filter((other) => other !== text) : [text, ...texts]) });
      light(star, texts.includes(text));
      stars.set(star, text);
      return star;
    },
  };
}

function light(star, is) {
  star.setAttribute("aria-pressed", String(is));
  star.textContent = is ? "★" : "☆";
}
