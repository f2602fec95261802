// The view in which a model writes on from a beginning, and each of its choices can be looked at.

import { attempt, post, stream } from "./api.js";
import { errorLine, field, newSeed, samplingControls, tick } from "./controls.js";
import { copyButton, debounce, eachFrame, h, say } from "./dom.js";
import { END, isEnd, makeNext, nameOf } from "./next.js";
import { asAsked, here, keep, written } from "./state.js";
import { legend, makeStrip } from "./strip.js";
import { counted, decoding, ending, percent, shown } from "./text.js";

/**
 * @typedef {{id: number, text: string | null, label: string, p: number | null,
 *   kind: "given" | "drawn" | "taken"}} Token
 */

const KINDS = { given: "given in the beginning", drawn: "drawn", taken: "taken by you" };

/** Characters that tell where in the text a place is. */
const AROUND = 24;

export function makeWrite(panel) {
  /** @type {Token[]} */
  let tokens = [];
  let decode = decoding();
  /** @type {"stop" | "length" | null} */
  let finish = null;
  let of = "";
  /** @type {AbortController | null} */
  let writing = null;
  /** Tokens that are not shown yet. @type {Token[]} */
  let arrived = [];
  const soon = eachFrame(flush);

  const prompt = h("textarea", { rows: 3, spellcheck: "false", autocapitalize: "off", dir: "auto",
    placeholder: "Leave it empty, and the model begins by itself." });
  const seed = h("input", { type: "number", min: 0, step: 1, value: newSeed() });
  const renew = h("input", { type: "checkbox", checked: true });
  const most = h("input", { type: "number", min: 1, step: 1, value: 200 });
  const error = errorLine();
  const start = h("button", { type: "button", class: "main", onclick: () => begin() }, "Write");
  const stop = h("button", { type: "button", class: "main", hidden: true, onclick: () => halt() }, "Stop");
  const on = h("button", { type: "button", hidden: true, onclick: () => goOn(tokens) }, "Go on");
  const status = h("p", { class: "hint status" });
  const plain = h("p", {});
  const strip = makeStrip({ label: "The text, token by token", chosen: look, describe });
  const end = h("p", { class: "ended", hidden: true }, "The model ended it here.");
  const empty = h("p", { class: "hint" }, "What the model writes appears here, each token tinted by how ",
    "little it was expected. Choose one to see what else could have come, and take that instead.");
  const page = h("div", { class: "page", tabindex: -1 }, empty, strip.element, end);
  const next = makeNext(take);
  const before = h("button", { type: "button", "aria-label": "The token before", onclick: () => step(-1) }, "←");
  const after = h("button", { type: "button", "aria-label": "The token after", onclick: () => step(1) }, "→");
  const last = h("button", { type: "button", onclick: () => look(-1) }, "End");
  const sampling = samplingControls(() => next.refresh());
  const copy = copyButton(text);

  const typed = debounce(250, () => {
    keep.tab.set(`prompt.${of}`, prompt.value);
    if (!tokens.length) look(-1);
  });
  prompt.addEventListener("input", typed);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin();
  });
  seed.addEventListener("input", () => (renew.checked = false));

  panel.append(h("div", { class: "desk" },
    h("div", { class: "paper" },
      field("Begin with", prompt),
      h("div", { class: "row" }, start, stop, on, h("span", { class: "hint keys" }, "Ctrl + Enter"),
        h("span", { class: "gap" }), copy),
      error, page,
      h("div", { class: "row under" }, legend(), status),
      h("section", { class: "unseen", "aria-label": "The text, at a stretch" }, plain)),
    h("aside", { "aria-label": "What comes next, and how it is drawn" },
      h("div", { class: "head" }, h("h2", {}, "What comes next"), h("div", { class: "steps" }, before, after, last)),
      next.element,
      sampling.element,
      h("div", { class: "pair" }, field("Most tokens", most), field("Seed", seed)),
      h("div", { class: "head" }, tick("New seed each time", renew),
        h("button", { type: "button", class: "quiet", onclick: () => (seed.value = newSeed()) }, "New seed")))));

  /** The text as it was written. */
  function text() {
    return tokens.map(decoding()).join("");
  }

  /** The tokens of a text, and how little each was expected. */
  async function read(words, signal) {
    if (!words) return [];
    const found = await post("/api/surprisal", { model: here.model, text: words }, signal);
    const whole = isEnd(found.tokens.at(-1)) ? found.tokens.slice(0, -1) : found.tokens;
    return whole.map(({ nats, ...token }) => ({ ...token, p: nats === null ? 0 : Math.exp(-nats), kind: "given" }));
  }

  function begin() {
    if (renew.checked) seed.value = newSeed();
    run(async (signal) => {
      set(await read(prompt.value, signal));
      await writeOn(signal);
    });
  }

  function goOn(start) {
    run((signal) => {
      set(start);
      return writeOn(signal);
    });
  }

  /** Take another token where we look, and go on from there. */
  function take(token) {
    const at = strip.selected < 0 ? tokens.length : strip.selected;
    run(async (signal) => {
      const kept = tokens.length ? tokens.slice(0, at) : await read(prompt.value, signal);
      if (isEnd(token)) {
        set(kept);
        finish = "stop";
      } else {
        set([...kept, { ...token, kind: "taken" }]);
        await writeOn(signal);
      }
    });
  }

  /** One writing at a time: a new one puts an end to the one before. */
  async function run(work) {
    writing?.abort();
    const mine = (writing = new AbortController());
    busy(true);
    await attempt(error, () => work(mine.signal));
    if (writing !== mine) return;
    flush();
    writing = null;
    busy(false);
    const words = mine.signal.aborted ? "Stopped after" : "Written:";
    const drawn = tokens.filter((token) => token.kind === "drawn").length;
    status.textContent = error.textContent ? "" : `${words} ${counted(drawn, "token")}, ${counted([...text()].length, "character")}`;
    say(status.textContent);
    plain.textContent = shown(text());
    Object.assign(written, { of, tokens });
    end.hidden = finish !== "stop";
    look(strip.selected);
  }

  function halt() {
    writing?.abort();
  }

  function busy(is) {
    // One button in two shapes: the keyboard's focus stays on it.
    const focused = [start, stop].includes(document.activeElement);
    [start.hidden, stop.hidden] = [is, !is];
    if (focused) (is ? stop : start).focus();
    on.hidden = is || !tokens.length || finish === "stop";
    page.setAttribute("aria-busy", String(is));
    if (is) status.textContent = "Writing …";
  }

  async function writeOn(signal) {
    const ids = tokens.map((token) => token.id);
    const body = { model: here.model, prompt: ids.length ? ids : "", max_tokens: most.valueAsNumber || 200,
      seed: Number.isSafeInteger(seed.valueAsNumber) ? seed.valueAsNumber : null, logprobs: 0, ...asAsked() };
    let whole = false;
    for await (const event of stream("/api/write", body, signal)) {
      if (event.done) whole = true;
      else {
        arrived.push(...event.tokens.map((token) => ({ ...token, kind: "drawn" })));
        finish = event.finish ?? finish;
        soon();
      }
    }
    if (!whole) throw new Error("the answer broke off");
  }

  /** Show what has arrived: once a frame, since to lay out a long text takes a while. */
  function flush() {
    if (!arrived.length) return;
    const down = page.scrollHeight - page.scrollTop - page.clientHeight < 40;
    arrived.splice(0).forEach(push);
    if (down) page.scrollTop = page.scrollHeight;
  }

  function push(token) {
    tokens.push(token);
    strip.push(shown(decode(token)), { p: token.p ?? undefined, kind: token.kind });
  }

  /** Other tokens; those that stay are not drawn again. */
  function set(wanted) {
    arrived = [];
    let same = 0;
    while (same < wanted.length && wanted[same] === tokens[same]) same++;
    tokens = tokens.slice(0, same);
    strip.cut(same);
    strip.select(-1);
    decode = decoding();
    tokens.forEach(decode);
    wanted.slice(same).forEach(push);
    finish = null;
    empty.hidden = end.hidden = true;
    error.textContent = "";
  }

  function describe(at) {
    const { p, kind, ...token } = tokens[at];
    const chance = p === null ? "" : `: ${percent(p)}, ${p > 0 ? (-Math.log2(p)).toFixed(1) : "∞"} bits`;
    return `${nameOf(token)}${chance}, ${KINDS[kind]}`;
  }

  /** Look at the choice of a token, or with -1 at what comes after the text. */
  function look(at) {
    strip.select(at);
    const place = at < 0 ? tokens.length : at;
    const ids = tokens.slice(0, place).map((token) => token.id);
    const lead = tokens.length ? tokens.slice(0, place).map(decoding()).join("") : prompt.value;
    const words = lead
      ? [at < 0 ? "After the text: " : "After ", h("bdi", {}, ending(lead, AROUND))]
      : ["At the very beginning"];
    if (at >= 0) words.push(h("span", { class: "here" }, describe(at)));
    next.look(tokens.length ? ids : prompt.value, at >= 0 ? tokens[at].id : finish === "stop" ? END : null, words);
    before.disabled = !tokens.length || place === 0;
    after.disabled = last.disabled = at < 0;
  }

  function step(way) {
    const at = (strip.selected < 0 ? tokens.length : strip.selected) + way;
    look(at >= tokens.length ? -1 : at);
    if (at < tokens.length) strip.reveal(at);
  }

  return {
    show(card) {
      if (of === card.name) return next.refresh();
      of = card.name;
      writing?.abort();
      set([]);
      next.clear();
      empty.hidden = false;
      status.textContent = plain.textContent = "";
      prompt.value = keep.tab.get(`prompt.${of}`, "");
      sampling.refresh();
      look(-1);
      busy(false);
    },
  };
}
