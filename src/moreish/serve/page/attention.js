// Where each token of a text looks, layer by layer and head by head.

import { attempt, latest, post, stream } from "./api.js";
import { errorLine, field } from "./controls.js";
import { debounce, h } from "./dom.js";
import { makeMatrix, pixels } from "./matrix.js";
import { events, keep, currentText } from "./state.js";
import { makeStrip } from "./strip.js";
import { counted, decoding, labelled, percent, whole } from "./text.js";

const MEAN = -1;

/** Tokens that the model writes where there is no text to look into. */
const FEW = 48;

export function makeAttention(panel) {
  let of = "";
  /** @type {{tokens: string[], total: number, layers: number, heads: number, maps: number[][][]} | null} */
  let found = null;
  let [layer, head, at] = [0, MEAN, 0];
  /** The tokens of the text, where it is the model's own. @type {number[] | null} */
  let ids = null;
  /** How often Write's text had changed when it was looked at last. */
  let seen = 0;
  const replaced = latest();

  const text = h("textarea", { rows: 2, spellcheck: "false", autocapitalize: "off", dir: "auto" });
  const part = h("p", { class: "hint part" });
  const layers = h("div", { class: "choices", role: "group", "aria-label": "Layer" });
  const heads = h("div", { class: "heads", role: "group", "aria-label": "Head" });
  const error = errorLine();
  const strip = makeStrip({ label: "Tokens; each shows what it attends to", looked: (to) => to !== null && look(to),
    describe: (to) => `${labelled(found.tokens[to])}: ${inWords(to)}` });
  strip.element.classList.add("chips");
  const readout = h("p", { class: "readout" });
  const matrix = makeMatrix({ label: "Attention: one row per token (query), one column per earlier token (key)",
    describe: (row, column) => `${name(row)} attends to ${name(column)}: ${percent(weight(row, column))}`,
    looked: (row, column) => look(row, column) });

  panel.append(h("p", { class: "lead" }, "Each position attends to itself and the positions before it. Point at a token, or reach it with Tab ",
      "and the arrow keys: the stronger the tint, the larger the attention weight."),
    h("div", { class: "row" }, field("Text", text),
      h("button", { type: "button", onclick: () => invent() }, "Generate a text")),
    error, part,
    h("div", { class: "row" }, h("span", { class: "label", "aria-hidden": "true" }, "Layer"), layers),
    h("div", { class: "looking" }, h("div", { class: "paper" }, heads, strip.element, readout), matrix.element));

  const soon = debounce(250, () => {
    keep.tab.set(`attention.${of}`, text.value);
    ask();
  });
  text.addEventListener("input", () => {
    ids = null;
    replaced(); // what is on its way must not come over what is typed
    soon();
  });
  events.addEventListener("theme", () => found && drawHeads());

  async function ask() {
    const signal = replaced();
    const answer = await attempt(error, () =>
      post("/api/attention", { model: of, text: ids ?? text.value, layer }, signal));
    if (!answer) return;
    found = answer;
    at = found.tokens.length - 1;
    const { total, tokens: { length } } = found;
    part.textContent = total > length ? `Showing the last ${whole(length)} of ${counted(total, "token")}.` : "";
    strip.cut(0);
    for (const token of found.tokens) strip.push(labelled(token));
    drawLayers();
    drawHeads();
    draw();
  }

  /** Have the model write a text: it knows all of its tokens. */
  async function invent() {
    const signal = replaced();
    const tokens = await attempt(error, async () => {
      const all = [];
      for await (const event of stream("/api/write", { model: of, max_tokens: FEW }, signal)) {
        all.push(...(event.tokens ?? []));
      }
      return all;
    });
    if (tokens) take(tokens);
  }

  /** Look into the text of Write, or into how it is to begin; whether there is any. */
  function takeCurrentText() {
    if (currentText.of !== of || !(currentText.tokens.length || currentText.beginning)) return false;
    keep.tab.set(`attention.${of}`, "");
    if (currentText.tokens.length) take(currentText.tokens);
    else [ids, text.value] = [null, currentText.beginning], ask();
    return true;
  }

  function take(tokens) {
    ids = tokens.map((token) => token.id);
    text.value = tokens.map(decoding()).join("");
    ask();
  }

  /** How much one token takes from another, by the head that is looked at. */
  const weight = (row, column, of = head) =>
    of === MEAN ? found.maps.reduce((sum, map) => sum + map[row][column], 0) / found.heads : found.maps[of][row][column];

  const name = (to) => `“${labelled(found.tokens[to])}” (${to + 1})`;

  function inWords(row) {
    const looks = found.tokens.slice(0, row + 1).map((token, column) => ({ token, column, share: weight(row, column) }));
    looks.sort((a, b) => b.share - a.share);
    const most = looks.slice(0, 4).filter(({ share }) => share >= 0.01);
    return `attends to ${most.map(({ column, share }) => `${name(column)} ${percent(share)}`).join(", ")}`;
  }

  function look(row, column = row) {
    at = row;
    strip.select(row);
    strip.paint((to) => (to <= row ? Math.sqrt(weight(row, to)) : null));
    readout.replaceChildren(h("bdi", {}, `${name(row)} ${inWords(row)}`));
    matrix.mark(row, column);
  }

  function draw() {
    matrix.set({ rows: found.tokens.map(labelled), columns: found.tokens.map(labelled),
      strength: (row, column) => (column <= row ? Math.sqrt(weight(row, column)) : 0) });
    strip.stale();
    look(at);
  }

  function drawLayers() {
    if (layers.children.length === found.layers) return;
    layers.replaceChildren(...Array.from({ length: found.layers }, (_, number) =>
      h("button", { type: "button", "aria-pressed": String(number === layer), onclick: () => {
        layer = number;
        [...layers.children].forEach((button, other) => button.setAttribute("aria-pressed", String(other === layer)));
        ask();
      } }, `${number + 1}`)));
  }

  function drawHeads() {
    const size = found.tokens.length;
    if (head >= found.heads) head = MEAN;
    const all = found.heads > 1 ? [MEAN, ...found.maps.keys()] : [0];
    const focused = [...heads.children].indexOf(document.activeElement);
    heads.replaceChildren(...all.map((number) =>
      h("button", { type: "button", "aria-pressed": String(number === head || all.length === 1), onclick: (event) => {
        head = number;
        for (const button of heads.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
        draw();
      } }, pixels(size, size, (row, column) => (column <= row ? Math.sqrt(weight(row, column, number)) : 0)),
      number === MEAN ? "All heads" : `Head ${number + 1}`)));
    heads.children[focused]?.focus();
  }

  return {
    show(card) {
      const changed = currentText.of === card.name && currentText.changes !== seen;
      seen = currentText.changes;
      if (of !== card.name) {
        of = card.name;
        [found, layer, head] = [null, 0, MEAN];
        layers.replaceChildren();
        heads.replaceChildren();
        [ids, text.value] = [null, keep.tab.get(`attention.${of}`, "")];
      } else if (found && !changed) return;
      // What was typed here stays until the text of Write is another.
      if ((changed || !text.value) && takeCurrentText()) return;
      if (text.value) ask();
      else invent();
    },
  };
}
