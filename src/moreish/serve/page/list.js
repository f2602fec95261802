// The List view, which generates items twenty at a time and stores favorites.

import { attempt, post } from "./api.js";
import { checkbox, errorLine, field, samplingControls } from "./controls.js";
import { announce, button, h, keepFocus } from "./dom.js";
import { makeFavorites } from "./favorites.js";
import { route, samplingParams } from "./state.js";
import { counted, shown } from "./text.js";

const BATCH = 20;

/** The most characters of an item that fit into a narrow column. */
const SHORT = 14;

/** The most items on the page. */
const MAX_ITEMS = 400;

/** The most requests for a batch without duplicates. */
const MAX_REQUESTS = 8;

export function makeList(panel) {
  let model = "";
  /** Aborts the current generation. */
  let running = null;
  let items = [];
  /** All texts since the list was empty, which may be longer than the list. */
  const generated = new Set();

  const filters = Object.fromEntries(["starts", "ends", "contains", "length", "regex"].map((name) => [name,
    h("input", { type: "text", spellcheck: "false", autocapitalize: "off", autocomplete: "off", dir: "auto",
      onkeydown: (event) => event.key === "Enter" && generate() })]));
  filters.length.placeholder = "5, 3..7, 3..";
  filters.regex.placeholder = "[aeiou].*";
  const newOnly = h("input", { type: "checkbox" });
  const unique = h("input", { type: "checkbox", checked: true });
  const error = errorLine();
  const status = h("p", { class: "hint" });
  const start = button("", generate, { class: "main" });
  const stop = button("Stop", () => running?.abort(), { class: "main", hidden: true });
  const clearButton = button("Clear", () => keepFocus(clear, start), { class: "quiet" });
  const list = h("ol", { class: "items", "aria-label": "Items" });
  const constraints = h("details", { class: "constraints" }, h("summary", {}, "Constraints"),
    h("div", { class: "filters", role: "group", "aria-label": "Constraints on the items" },
      field("Starts with", filters.starts), field("Ends with", filters.ends), field("Contains", filters.contains),
      field("Length", filters.length), field("Matches (regex)", filters.regex)));
  // On a phone, the items are more important.
  constraints.open = matchMedia("(min-width: 40rem)").matches;
  const favorites = makeFavorites();
  const sampling = samplingControls();

  panel.append(h("div", { class: "columns" },
    h("div", { class: "main-column" },
      h("div", { class: "row" }, start, stop, checkbox("New items only", newOnly), checkbox("No duplicates", unique),
        h("span", { class: "gap" }), clearButton),
      constraints,
      error, status, list),
    h("aside", { "aria-label": "Favorites and sampling settings" }, favorites.element, sampling.element)));

  async function generate() {
    running?.abort();
    const mine = (running = new AbortController());
    setBusy(true);
    const body = { model: route.model, n: BATCH, new_only: newOnly.checked, unique: unique.checked, ...samplingParams() };
    for (const [name, input] of Object.entries(filters)) {
      const value = name === "length" ? input.value.trim() : input.value;
      if (value) body[name] = value;
    }
    const [made, seeds] = [[], []];
    await attempt(error, () => requestItems(body, made, seeds, mine.signal));
    if (running !== mine) return;
    running = null;
    setBusy(false);
    status.textContent = "";
    if (!seeds.length) return;
    show([...made, ...items].slice(0, MAX_ITEMS), made.length);
    const newCount = made.filter((item) => item.known === false).length;
    status.textContent = counted(made.length, "item")
      + (made.some((item) => item.known !== null) ? `, ${newCount} of them new` : "")
      + (made.length < BATCH && body.unique ? "; the others were duplicates" : "")
      + `. Seed${seeds.length > 1 ? "s" : ""} ${seeds.join(", ")}.`;
    announce(status.textContent);
  }

  /** Requests items until there are enough or the server finds no more, without those generated earlier. */
  async function requestItems(body, made, seeds, signal) {
    for (let count = 0; count < (body.unique ? MAX_REQUESTS : 1) && made.length < BATCH; count++) {
      const answer = await post("/api/list", body, signal);
      const kept = body.unique
        ? answer.items.filter(({ text }) => !generated.has(text)).slice(0, BATCH - made.length)
        : answer.items;
      seeds.push(answer.seed);
      made.push(...kept);
      kept.forEach(({ text }) => generated.add(text));
      if (answer.items.length < BATCH) break;
    }
  }

  function setBusy(isBusy) {
    keepFocus(() => ([start.hidden, stop.hidden] = [isBusy, !isBusy]), isBusy ? stop : start);
    if (isBusy) status.textContent = "Generating …";
    list.setAttribute("aria-busy", String(isBusy));
  }

  function clear() {
    generated.clear();
    status.textContent = "";
    show([]);
  }

  function show(newItems, latest = 0) {
    items = newItems;
    list.classList.toggle("long", items.some(({ text }) => [...text].length > SHORT));
    list.replaceChildren(...items.map((item, at) => row(item, at < latest)));
    clearButton.hidden = !items.length;
    start.textContent = items.length ? `Generate ${BATCH} more` : `Generate ${BATCH}`;
  }

  function row({ text, known, nearest, distance }, isLatest) {
    const isCopy = known && (nearest === null || distance === 0);
    return h("li", { class: isLatest ? "item arrives" : "item" },
      favorites.star(text),
      h("bdi", { class: "text" }, shown(text)),
      known !== null && h("span", { class: known ? "badge known" : "badge" }, known ? "known" : "new"),
      h("span", { class: "nearest" }, isCopy ? "in the training data"
        : nearest !== null && [`${counted(distance, "edit")} from `, h("bdi", {}, shown(nearest))]));
  }

  return {
    show(card) {
      sampling.refresh();
      if (model === card.name) return;
      model = card.name;
      running?.abort();
      running = null; // its items belong to the previous model
      setBusy(false);
      error.textContent = "";
      favorites.open(model);
      clear();
      generate();
    },
  };
}
