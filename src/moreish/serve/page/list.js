// The view that makes items for a list, twenty at a time, and keeps those that are liked.

import { attempt, post } from "./api.js";
import { errorLine, field, samplingControls, tick } from "./controls.js";
import { h, keepFocus, say } from "./dom.js";
import { makeFavorites } from "./favorites.js";
import { samplingParams, here } from "./state.js";
import { counted, shown } from "./text.js";

const AT_A_TIME = 20;

/** Items that are on the page at the most. */
const MOST = 400;

/** How often the server is asked for what is still missing. */
const ROUNDS = 8;

export function makeList(panel) {
  let of = "";
  /** @type {AbortController | null} */
  let making = null;
  let items = [];
  /** Texts of all that were made since the list was empty. @type {Set<string>} */
  const all = new Set();

  const filters = Object.fromEntries(["starts", "ends", "contains", "length", "regex"].map((name) => [name,
    h("input", { type: "text", spellcheck: "false", autocapitalize: "off", autocomplete: "off", dir: "auto" })]));
  filters.length.placeholder = "5, 3..7, 3..";
  filters.regex.placeholder = "[aeiou].*";
  const newOnly = h("input", { type: "checkbox" });
  const unique = h("input", { type: "checkbox", checked: true });
  const error = errorLine();
  const status = h("p", { class: "hint" });
  const start = h("button", { type: "button", class: "main", onclick: make }, `Generate ${AT_A_TIME}`);
  const stop = h("button", { type: "button", class: "main", hidden: true, onclick: () => making?.abort() }, "Stop");
  const clear = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => keepFocus(empty, start) }, "Clear");
  const list = h("ol", { class: "items", "aria-label": "Items" });
  const hint = h("p", { class: "hint" }, "Generates twenty items like those in the training data. Each one shows whether it is new ",
    "and which training item is nearest. Star the ones you like.");
  const favorites = makeFavorites();
  const sampling = samplingControls(() => {});

  for (const input of Object.values(filters)) {
    input.addEventListener("keydown", (event) => event.key === "Enter" && make());
  }

  panel.append(h("div", { class: "desk" },
    h("div", { class: "paper" },
      h("div", { class: "filters", role: "group", "aria-label": "Constraints on the items" },
        field("Starts with", filters.starts), field("Ends with", filters.ends), field("Contains", filters.contains),
        field("Length", filters.length), field("Matches (regex)", filters.regex)),
      h("div", { class: "row" }, start, stop, tick("New items only", newOnly), tick("No duplicates", unique),
        h("span", { class: "gap" }), clear),
      error, status, hint, list),
    h("aside", { "aria-label": "Favorites and sampling settings" }, favorites.element, sampling.element)));

  async function make() {
    making?.abort();
    const mine = (making = new AbortController());
    busy(true);
    const body = { model: here.model, new_only: newOnly.checked, unique: unique.checked, ...samplingParams() };
    for (const [name, input] of Object.entries(filters)) {
      const value = name === "length" ? input.value.trim() : input.value;
      if (value) body[name] = value;
    }
    const [made, seeds] = [[], []];
    await attempt(error, () => gather(body, made, seeds, mine.signal));
    if (making !== mine) return;
    making = null;
    busy(false);
    status.textContent = "";
    if (!seeds.length) return;
    set([...made, ...items].slice(0, MOST), made.length);
    const fresh = made.filter((item) => item.known === false).length;
    status.textContent = `${counted(made.length, "item")}${
      made.some((item) => item.known !== null) ? `, ${fresh} of them new` : ""}${
      made.length < AT_A_TIME && body.unique ? "; the others were duplicates" : ""}. Seed${seeds.length > 1 ? "s" : ""} ${seeds.join(", ")}.`;
    say(status.textContent);
  }

  /**
   * Items until there are enough, or the server itself finds no more. It knows nothing of those that
   * were made before: they are left out here.
   */
  async function gather(body, made, seeds, signal) {
    for (let round = 0; round < (body.unique ? ROUNDS : 1) && made.length < AT_A_TIME; round++) {
      const found = await post("/api/list", { ...body, n: AT_A_TIME }, signal);
      const wanted = !body.unique ? found.items
        : found.items.filter(({ text }) => !all.has(text)).slice(0, AT_A_TIME - made.length);
      seeds.push(found.seed);
      made.push(...wanted);
      for (const { text } of wanted) all.add(text);
      if (found.items.length < AT_A_TIME) break;
    }
  }

  function busy(is) {
    keepFocus(() => ([start.hidden, stop.hidden] = [is, !is]), is ? stop : start);
    if (is) status.textContent = "Generating …";
    list.setAttribute("aria-busy", String(is));
  }

  function empty() {
    all.clear();
    status.textContent = "";
    set([]);
  }

  function set(wanted, latest = 0) {
    items = wanted;
    list.replaceChildren(...items.map((item, at) => row(item, at < latest)));
    hint.hidden = items.length > 0;
    clear.hidden = !items.length;
    start.textContent = items.length ? `Generate ${AT_A_TIME} more` : `Generate ${AT_A_TIME}`;
  }

  function row({ text, known, nearest, distance }, arrives) {
    return h("li", { class: arrives ? "item arrives" : "item" },
      favorites.star(text),
      h("bdi", { class: "text" }, shown(text)),
      known === null ? null : h("span", { class: known ? "badge known" : "badge" }, known ? "known" : "new"),
      h("span", { class: "near" }, nearness(known, nearest, distance)));
  }

  return {
    show(card) {
      if (of === card.name) return;
      of = card.name;
      making?.abort();
      making = null; // what it makes is nothing of this model
      busy(false);
      error.textContent = "";
      favorites.open(of);
      sampling.refresh();
      empty();
    },
  };
}

/** How far the nearest training item is. */
function nearness(known, nearest, distance) {
  if (nearest === null || (known && distance === 0)) return known ? "in the training data" : "";
  return [`edit distance ${distance} from `, h("bdi", {}, shown(nearest))];
}
