// The attention weights between the tokens of a text, for each layer and head.

import { attempt, makeLatestSignal, post, stream } from "./api.js";
import { errorLine, field } from "./controls.js";
import { button, debounce, h } from "./dom.js";
import { makeMatrix, pixels } from "./matrix.js";
import { currentText, events, tabStorage } from "./state.js";
import { makeStrip } from "./strip.js";
import { counted, labeled, makeDecoder, percent, quoted, whole } from "./text.js";

/** Stands for the mean of all heads. */
const MEAN = -1;

/** The number of tokens to generate if there is no text. */
const GENERATED = 48;

export function makeAttention(panel) {
  let model = "";
  let data = null;
  let [layer, head, position] = [0, MEAN, 0];
  /** The tokens of the text, if a model generated it. */
  let ids = null;
  /** The version of the Generate view's text that was shown last. */
  let version = 0;
  const newSignal = makeLatestSignal();

  const text = h("textarea", { rows: 2, spellcheck: "false", autocapitalize: "off", dir: "auto" });
  const part = h("p", { class: "hint part" });
  const layers = h("div", { class: "choices", role: "group", "aria-label": "Layer" });
  const heads = h("div", { class: "heads", role: "group", "aria-label": "Head" });
  const error = errorLine();
  const strip = makeStrip({ label: "Tokens; each shows what it attends to", onInspect: inspect,
    describe: (at) => `${quoted(labeled(data.tokens[at]))}: ${describe(at)}` });
  strip.element.classList.add("chips");
  const readout = h("p", { class: "readout" });
  const matrix = makeMatrix({ label: "Attention: one row per token (query), one column per earlier token (key)",
    describe: (row, column) => `${name(row)} attends to ${name(column)}: ${percent(weight(row, column))}`, onInspect: inspect });

  panel.append(h("p", { class: "lead" }, "Each position attends to itself and the positions before it. Point at a token, or reach it with Tab ",
      "and the arrow keys: the stronger the tint, the larger the attention weight."),
    h("div", { class: "row" }, field("Text", text), button("Generate a text", generate)),
    error, part,
    h("div", { class: "row" }, h("span", { class: "label", "aria-hidden": "true" }, "Layer"), layers),
    h("div", { class: "attention-maps" }, h("div", { class: "main-column" }, heads, strip.element, readout), matrix.element));

  const requestSoon = debounce(250, request);
  text.addEventListener("input", () => {
    tabStorage.set(`attention.${model}`, text.value);
    ids = null;
    newSignal(); // an earlier answer must not replace what is typed
    requestSoon();
  });
  events.addEventListener("theme", () => data && drawHeads());

  async function request() {
    const signal = newSignal();
    const answer = await attempt(error, () => post("/api/attention", { model, text: ids ?? text.value, layer }, signal));
    if (!answer) return;
    data = answer;
    const { total, tokens } = data;
    position = tokens.length - 1;
    part.textContent = total > tokens.length ? `Showing the last ${whole(tokens.length)} of ${counted(total, "token")}.` : "";
    strip.truncate(0);
    tokens.forEach((token) => strip.push(labeled(token)));
    drawLayers();
    drawHeads();
    draw();
  }

  async function generate() {
    const signal = newSignal();
    const tokens = await attempt(error, async () => {
      const all = [];
      for await (const event of stream("/api/write", { model, max_tokens: GENERATED }, signal)) {
        all.push(...(event.tokens ?? []));
      }
      return all;
    });
    if (tokens) showTokens(tokens);
  }

  function showTokens(tokens) {
    ids = tokens.map(({ id }) => id);
    text.value = tokens.map(makeDecoder()).join("");
    request();
  }

  /** Returns an attention weight of a head. */
  const weight = (row, column, of = head) =>
    of === MEAN ? data.maps.reduce((sum, map) => sum + map[row][column], 0) / data.heads : data.maps[of][row][column];

  const tint = (row, column, of = head) => (column <= row ? Math.sqrt(weight(row, column, of)) : 0);

  const name = (at) => `${quoted(labeled(data.tokens[at]))} (${at + 1})`;

  function describe(row) {
    const weights = Array.from({ length: row + 1 }, (_, column) => ({ column, share: weight(row, column) }));
    const largest = weights.sort((a, b) => b.share - a.share).slice(0, 4).filter(({ share }) => share >= 0.01);
    return `attends to ${largest.map(({ column, share }) => `${name(column)} ${percent(share)}`).join(", ")}`;
  }

  function inspect(row, column = row) {
    position = row;
    strip.select(row);
    strip.paint(Array.from({ length: row + 1 }, (_, at) => tint(row, at)));
    readout.replaceChildren(h("bdi", {}, `${name(row)} ${describe(row)}`));
    matrix.mark(row, column);
  }

  function draw() {
    matrix.set({ labels: data.tokens.map(labeled), strength: (row, column) => tint(row, column) });
    inspect(position);
  }

  /** Returns a button of a group in which one is pressed. */
  function choice(label, isPressed, onChoose) {
    return button(label, ({ currentTarget }) => {
      for (const other of currentTarget.parentNode.children) other.ariaPressed = String(other === currentTarget);
      onChoose();
    }, { "aria-pressed": String(isPressed) });
  }

  function drawLayers() {
    if (layers.children.length === data.layers) return;
    layers.replaceChildren(...Array.from({ length: data.layers }, (_, number) => choice(`${number + 1}`, number === layer, () => {
      layer = number;
      request();
    })));
  }

  function drawHeads() {
    const size = data.tokens.length;
    if (head >= data.heads) head = MEAN;
    const numbers = data.heads > 1 ? [MEAN, ...data.maps.keys()] : [0];
    const focused = [...heads.children].indexOf(document.activeElement);
    heads.replaceChildren(...numbers.map((number) => choice(
      [pixels(size, size, (row, column) => tint(row, column, number)), number === MEAN ? "All heads" : `Head ${number + 1}`],
      number === head || numbers.length === 1, () => {
        head = number;
        draw();
      })));
    heads.children[focused]?.focus();
  }

  return {
    show(card) {
      const isChanged = currentText.model === card.name && currentText.version !== version;
      version = currentText.version;
      const isOther = model !== card.name;
      if (!isOther && data && !isChanged) return;
      if (isOther) {
        model = card.name;
        [data, layer, head] = [null, 0, MEAN];
        layers.replaceChildren();
        heads.replaceChildren();
        [ids, text.value] = [null, tabStorage.get(`attention.${model}`, "")];
      }
      // What the user typed here stays until the text of the Generate view changes.
      const { tokens, prompt } = currentText;
      if ((isChanged || !text.value) && currentText.model === model && (tokens.length || prompt)) {
        tabStorage.set(`attention.${model}`, "");
        if (tokens.length) return showTokens(tokens);
        [ids, text.value] = [null, prompt];
      }
      if (text.value) request();
      else generate();
    },
  };
}
