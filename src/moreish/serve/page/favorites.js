// Items that the user likes, kept by this browser for each model.

import { copyButton, h, save, say } from "./dom.js";
import { keep } from "./state.js";
import { counted, shown } from "./text.js";

const MOST = 1000;

export function makeFavorites() {
  let of = "";
  /** @type {string[]} */
  let texts = [];
  /** Whether the browser can store them: storage may be full or disabled. */
  let isKept = true;
  /** The stars on the page, which have to agree. @type {Map<HTMLElement, string>} */
  const stars = new Map();

  const title = h("h2", { tabindex: -1 }, "Favorites");
  const hint = h("p", { class: "hint" }, "Star an item to keep it here, in this browser.");
  const list = h("ul", { class: "favorites", "aria-label": "Favorites" });
  const whole = () => texts.map((text) => `${text}\n`).join("");
  const tools = h("div", { class: "row" }, copyButton(whole),
    h("button", { type: "button", onclick: () => save(`${of}-favorites.txt`, whole()) }, "Save as file"));
  const element = h("section", { "aria-label": "Favorites" }, title, hint, list, tools);

  const place = () => `favorites.${of}`;

  function read() {
    const found = keep.long.get(place(), []);
    return Array.isArray(found) ? found.filter((text) => typeof text === "string").slice(0, MOST) : [];
  }

  /** Keep a text, or give it up. Another tab may have kept others meanwhile. */
  function set(text, wanted) {
    const others = (isKept ? read() : texts).filter((other) => other !== text);
    texts = (wanted ? [text, ...others] : others).slice(0, MOST);
    isKept = keep.long.set(place(), texts);
    draw();
    if (!isKept) say("This browser cannot store favorites.");
  }

  keep.long.changed((name) => {
    if (name !== place()) return;
    texts = read();
    draw();
  });

  function draw() {
    title.textContent = texts.length ? counted(texts.length, "favorite") : "Favorites";
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
      set(text, false);
      (list.children[Math.min(at, texts.length - 1)]?.querySelector("button") ?? title).focus();
    };
    return h("li", {}, h("bdi", { class: "text" }, shown(text)),
      h("button", { type: "button", class: "quiet", "aria-label": `Remove ${shown(text)}`, onclick: remove }, "×"));
  }

  return {
    element,
    /** Those of another model. */
    open(name) {
      of = name;
      [texts, isKept] = [read(), true];
      draw();
    },
    /** A button that keeps a text, or gives it up. */
    star(text) {
      const star = h("button", { type: "button", class: "star", "aria-label": `Keep ${shown(text)}`,
        onclick: () => set(text, !texts.includes(text)) });
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
