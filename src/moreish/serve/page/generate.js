// The view in which a model writes on from a beginning, and each of its choices can be looked at.

import { attempt } from "./api.js";
import { errorLine, field, newSeed, samplingControls, tick, wholeIn } from "./controls.js";
import { copyButton, debounce, eachFrame, h, keepFocus, say } from "./dom.js";
import { END, isEnd, makeNext, nameOf } from "./next.js";
import { keep, currentText } from "./state.js";
import { legend, makeStrip } from "./strip.js";
import { counted, decoding, ending, percent, shown } from "./text.js";
import { generateAfter, read } from "./generation.js";

/** @typedef {import("./generation.js").Token} Token */

const KINDS = { given: "prompt", drawn: "sampled", taken: "chosen by you" };

/** Tokens that are currentText where the field does not say. */
const MOST = 200;

/** Characters that tell where in the text a place is. */
const AROUND = 24;

export function makeGenerate(panel) {
  /** @type {Token[]} */
  let tokens = [];
  let decode = decoding();
  /** @type {"stop" | "length" | null} */
  let finish = null;
  let of = "";
  /** @type {AbortController | null} */
  let writing = null;
  /** What had the focus when it began. @type {Element | null} */
  let from = null;
  /** Tokens that are not shown yet. @type {Token[]} */
  let arrived = [];
  const soon = eachFrame(flush);

  const prompt = h("textarea", { rows: 3, spellcheck: "false", autocapitalize: "off", dir: "auto",
    placeholder: "Optional. Without a prompt, the model starts from scratch." });
  const seed = h("input", { type: "number", min: 0, step: 1, value: newSeed() });
  const renew = h("input", { type: "checkbox", checked: true });
  const most = h("input", { type: "number", min: 1, step: 1, value: MOST });
  const error = errorLine();
  const start = h("button", { type: "button", class: "main", onclick: () => begin() }, "Generate");
  const stop = h("button", { type: "button", class: "main", hidden: true, onclick: () => writing?.abort() }, "Stop");
  const on = h("button", { type: "button", hidden: true, onclick: () => writeAfter(() => tokens) }, "Continue");
  const status = h("p", { class: "hint status" });
  const plain = h("p", {});
  const strip = makeStrip({ label: "The text, token by token", chosen: look, describe });
  const end = h("p", { class: "ended", hidden: true }, "End of the text (the model generated its end token).");
  const empty = h("p", { class: "hint" }, "The generated text appears here. Darker tokens were less likely. ",
    "Select a token to see the alternatives and continue from one of them.");
  const page = h("div", { class: "page", tabindex: -1 }, empty, strip.element, end);
  const next = makeNext(take);
  const before = h("button", { type: "button", "aria-label": "Previous token", onclick: () => step(-1) }, "←");
  const after = h("button", { type: "button", "aria-label": "Next token", onclick: () => step(1) }, "→");
  const last = h("button", { type: "button", onclick: () => look(-1) }, "End of text");
  const sampling = samplingControls(() => next.refresh());
  const copy = copyButton(text);

  const typed = debounce(250, () => {
    keep.tab.set(`prompt.${of}`, prompt.value);
    if (tokens.length) return;
    changed();
    look(-1);
  });
  prompt.addEventListener("input", typed);
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) begin();
  });
  seed.addEventListener("input", () => (renew.checked = false));

  panel.append(h("div", { class: "desk" },
    h("div", { class: "paper" },
      field("Prompt", prompt),
      h("div", { class: "row" }, start, stop, on, h("span", { class: "hint keys" }, "Ctrl + Enter"),
        h("span", { class: "gap" }), copy),
      error, page,
      h("div", { class: "row under" }, legend(), status),
      h("section", { class: "unseen", "aria-label": "The text as a whole" }, plain)),
    h("aside", { "aria-label": "Next token and sampling settings" },
      h("div", { class: "head" }, h("h2", {}, "Next token"), h("div", { class: "steps" }, before, after, last)),
      next.element,
      sampling.element,
      h("div", { class: "pair" }, field("Max tokens", most), field("Seed", seed)),
      h("div", { class: "head" }, tick("New seed for each run", renew),
        h("button", { type: "button", class: "quiet", onclick: () => (seed.value = newSeed()) }, "New seed")))));

  /** The text as it was currentText. */
  function text() {
    return tokens.map(decoding()).join("");
  }

  /** How much, and from which seed; fields that were empty show what is taken. */
  function requestSettings() {
    const max_tokens = wholeIn(most, "Max tokens", 1) ?? MOST;
    const drawnFrom = wholeIn(seed, "Seed", 0) ?? newSeed();
    [most.value, seed.value] = [max_tokens, drawnFrom];
    return { max_tokens, seed: drawnFrom };
  }

  function begin() {
    if (renew.checked) seed.value = newSeed();
    writeAfter((signal) => read(prompt.value, signal));
  }

  const writeAfter = (lead) => run(async (signal, asked) => {
    set(await lead(signal));
    await writeOn(signal, asked);
  });

  /** Take another token at a place, and go on from there. */
  function take(token, place) {
    run(async (signal, asked) => {
      const kept = place.kept ?? (await read(place.prompt, signal));
      if (isEnd(token)) {
        set(kept);
        finish = "stop";
      } else {
        set([...kept, { ...token, kind: "taken" }]);
        await writeOn(signal, asked);
      }
    });
  }

  /** One writing at a time: a new one puts an end to the one before. */
  async function run(work) {
    writing?.abort();
    const mine = (writing = new AbortController());
    busy(true);
    await attempt(error, async () => work(mine.signal, requestSettings()));
    if (writing !== mine) return;
    flush();
    writing = null;
    busy(false);
    const words = mine.signal.aborted ? "Stopped after" : "Generated";
    const drawn = tokens.filter((token) => token.kind === "drawn").length;
    status.textContent = error.textContent ? "" : `${words} ${counted(drawn, "token")}, ${counted([...text()].length, "character")}`;
    say(status.textContent);
    plain.textContent = shown(text());
    end.hidden = finish !== "stop";
    look(strip.selected);
  }

  function busy(is) {
    const focused = document.activeElement;
    if (is) from = focused;
    // What was pressed comes back when it is done.
    keepFocus(() => {
      [start.hidden, stop.hidden] = [is, !is];
      on.hidden = is || !tokens.length || finish === "stop";
    }, ...(is ? [stop] : [from, start]));
    page.setAttribute("aria-busy", String(is));
    if (is) status.textContent = "Generating …";
  }

  async function writeOn(signal, asked) {
    look(-1);
    for await (const event of generateAfter(tokens, asked, signal)) {
      arrived.push(...event.tokens);
      finish = event.finish ?? finish;
      soon();
    }
  }

  /** Show what has arrived: once a frame, since to lay out a long text takes a while. */
  function flush() {
    if (!arrived.length) return;
    const down = page.scrollHeight - page.scrollTop - page.clientHeight < 40;
    arrived.splice(0).forEach(push);
    if (down) page.scrollTop = page.scrollHeight;
    changed();
  }

  /** For those who look into the text. */
  function changed(count = 1) {
    Object.assign(currentText, { of, tokens, beginning: prompt.value, changes: currentText.changes + count });
  }

  function push(token) {
    tokens.push(token);
    strip.push(shown(decode(token)), { p: token.p ?? undefined, kind: token.kind });
  }

  /** Other tokens; those that stay are not drawn again. */
  function set(wanted) {
    arrived = [];
    const before = tokens.length;
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
    changed(Number(same < before || same < wanted.length));
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
    const kept = tokens.length ? tokens.slice(0, place) : null;
    const lead = kept ? kept.map(decoding()).join("") : prompt.value;
    const words = lead
      ? [at < 0 && !writing ? "After the text: " : "After ", h("bdi", {}, ending(lead, AROUND))]
      : ["At the start of the text"];
    if (at >= 0) words.push(h("span", { class: "here" }, describe(at)));
    next.look({ kept, prompt: kept ? kept.map((token) => token.id) : prompt.value, words,
      taken: at >= 0 ? tokens[at].id : finish === "stop" ? END : null });
    keepFocus(() => {
      before.disabled = !tokens.length || place === 0;
      after.disabled = last.disabled = at < 0;
    }, before, after);
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
      writing = null; // what it wrote is no text of this model
      prompt.value = keep.tab.get(`prompt.${of}`, "");
      set([]);
      next.clear();
      empty.hidden = false;
      status.textContent = plain.textContent = "";
      sampling.refresh();
      look(-1);
      busy(false);
    },
  };
}
