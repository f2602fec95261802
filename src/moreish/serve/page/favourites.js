// Items that the user likes, kept by this browser for each model.

import { copyButton, h, save, say } from "./dom.js";
import { keep } from "./state.js";
import { counted, shown } from "./text.js";

const MOST = 1000;

export function makeFavourites() {
  let of = "";
  /** @type {string[]} */
  let texts = [];
  /** Whether the browser keeps them: it may be full, or told not to. */
  let isKept = true;
  /** The stars on the page, which have to agree. @type {Map<HTMLElement, string>} */
  const stars = new Map();

  const title = h("h2", { tabindex: -1 }, "Favourites");
  const hint = h("p", { class: "hint" }, "The star beside an item keeps it here, in this browser.");
  const list = h("ul", { class: "favourites", "aria-label": "Favourites" });
  const whole = () => texts.map((text) => `${text}\n`).join("");
  const tools = h("div", { class: "row" }, copyButton(whole),
    h("button", { type: "button", onclick: () => save(`${of}-favourites.txt`, whole()) }, "Save as a file"));
  const element = h("section", { "aria-label": "Favourites" }, title, hint, list, tools);

  const place = () => `favourites.${of}`;

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
    if (!isKept) say("This browser does not keep them.");
  }

  keep.long.changed((name) => {
    if (name !== place()) return;
    texts = read();
    draw();
  });

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
