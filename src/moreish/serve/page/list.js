// The view that makes items for a list, twenty at a time, and keeps those that are liked.

import { attempt, post } from "./api.js";
import { errorLine, field, samplingControls, tick } from "./controls.js";
import { h, say } from "./dom.js";
import { makeFavourites } from "./favourites.js";
import { asAsked, here } from "./state.js";
import { counted, shown } from "./text.js";

const AT_A_TIME = 20;

/** Items that are on the page at the most. */
const MOST = 400;

export function makeList(panel) {
  let of = "";
  /** @type {AbortController | null} */
  let making = null;
  let items = [];

  const filters = Object.fromEntries(["starts", "ends", "contains", "length", "regex"].map((name) => [name,
    h("input", { type: "text", spellcheck: "false", autocapitalize: "off", autocomplete: "off", dir: "auto" })]));
  filters.length.placeholder = "5, 3..7, 3..";
  filters.regex.placeholder = "[aeiou].*";
  const newOnly = h("input", { type: "checkbox" });
  const unique = h("input", { type: "checkbox", checked: true });
  const error = errorLine();
  const status = h("p", { class: "hint" });
  const start = h("button", { type: "button", class: "main", onclick: make }, `Make ${AT_A_TIME}`);
  const stop = h("button", { type: "button", class: "main", hidden: true, onclick: () => making?.abort() }, "Stop");
  const clear = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => set([]) }, "Clear");
  const list = h("ol", { class: "items", "aria-label": "Items" });
  const empty = h("p", { class: "hint" }, "Twenty items like those that the model learned from, each marked: ",
    "does it stand in the training data, and which one there comes closest? Star those you like.");
  const favourites = makeFavourites();
  const sampling = samplingControls(() => {});

  for (const input of Object.values(filters)) {
    input.addEventListener("keydown", (event) => event.key === "Enter" && make());
  }

  panel.append(h("div", { class: "desk" },
    h("div", { class: "paper" },
      h("div", { class: "filters", role: "group", "aria-label": "What the items are to be like" },
        field("Starts with", filters.starts), field("Ends with", filters.ends), field("Contains", filters.contains),
        field("Length", filters.length), field("Matches (regex)", filters.regex)),
      h("div", { class: "row" }, start, stop, tick("Only new ones", newOnly), tick("No repeats", unique),
        h("span", { class: "gap" }), clear),
      error, status, empty, list),
    h("aside", { "aria-label": "Favourites, and how items are drawn" }, favourites.element, sampling.element)));

  async function make() {
    making?.abort();
    const mine = (making = new AbortController());
    busy(true);
    const body = { model: here.model, n: AT_A_TIME, new_only: newOnly.checked, unique: unique.checked, ...asAsked() };
    for (const [name, input] of Object.entries(filters)) {
      const value = name === "length" ? input.value.trim() : input.value;
      if (value) body[name] = value;
    }
    const found = await attempt(error, () => post("/api/list", body, mine.signal));
    if (making !== mine) return;
    making = null;
    busy(false);
    status.textContent = "";
    if (!found) return;
    set([...found.items, ...items].slice(0, MOST), found.items.length);
    const fresh = found.items.filter((item) => item.known === false).length;
    status.textContent = found.items.some((item) => item.known !== null)
      ? `${counted(found.items.length, "item")}, ${fresh} of them new. Seed ${found.seed}.`
      : `${counted(found.items.length, "item")}. Seed ${found.seed}.`;
    say(status.textContent);
  }

  function busy(is) {
    const focused = [start, stop].includes(document.activeElement);
    [start.hidden, stop.hidden] = [is, !is];
    if (focused) (is ? stop : start).focus();
    if (is) status.textContent = "Making …";
    list.setAttribute("aria-busy", String(is));
  }

  function set(wanted, latest = 0) {
    items = wanted;
    draw(latest);
  }

  function draw(latest = 0) {
    list.replaceChildren(...items.map((item, at) => row(item, at < latest)));
    empty.hidden = items.length > 0;
    clear.hidden = !items.length;
    start.textContent = items.length ? `Make ${AT_A_TIME} more` : `Make ${AT_A_TIME}`;
  }

  function row({ text, known, nearest, distance }, arrives) {
    return h("li", { class: arrives ? "item arrives" : "item" },
      favourites.star(text),
      h("bdi", { class: "text" }, shown(text)),
      known === null ? null : h("span", { class: known ? "badge known" : "badge" }, known ? "known" : "new"),
      h("span", { class: "near" }, nearness(known, nearest, distance)));
  }

  return {
    show(card) {
      if (of === card.name) return;
      of = card.name;
      making?.abort();
      [error.textContent, status.textContent] = ["", ""];
      favourites.open(of);
      sampling.refresh();
      set([]);
    },
  };
}

/** How far the nearest training item is. */
function nearness(known, nearest, distance) {
  if (nearest === null || (known && distance === 0)) return known ? "stands in the training data" : "";
  return [`${counted(distance, "letter")} from `, h("bdi", {}, shown(nearest))];
}
