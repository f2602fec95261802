// The Generate view: a model continues a prompt, and each of its choices can be inspected and changed.

import { attempt } from "./api.js";
import { makeBeginnings } from "./beginnings.js";
import { errorLine, field, lengthAndSeedControls, samplingControls } from "./controls.js";
import { announce, button, copyButton, debounce, h, keepFocus } from "./dom.js";
import { decode, describeToken, generateAfter, sampledSize, tokenizePrompt } from "./generation.js";
import { END, isEnd, makeNext } from "./next.js";
import { savePicture } from "./picture.js";
import { makeRemember } from "./remember.js";
import { makeSheet } from "./sheet.js";
import { currentText, tabStorage } from "./state.js";
import { legend, makeStrip } from "./strip.js";
import { ending, makeDecoder, shown } from "./text.js";

/** The number of characters before a place that describe it. */
const CONTEXT = 24;

export function makeGenerate(panel) {
  let model = "";
  let tokens = [];
  let decodeNext = makeDecoder();
  /** Why the generation ended: "stop" or "length". */
  let finish = null;
  /** Aborts the current generation. */
  let running = null;
  /** Whether it began by itself. */
  let isDemo = false;
  /** The element that had the focus when the generation began. */
  let focusedBefore = null;
  /** Tokens that have arrived and are not shown yet. */
  let arrived = [];
  /** The token that stays in sight while the text grows; without one, that is its end. */
  let anchor = -1;

  const prompt = h("textarea", { rows: 2, spellcheck: "false", autocapitalize: "off", dir: "auto",
    placeholder: "Optional. Without a prompt, the model starts from scratch." });
  const lengthAndSeed = lengthAndSeedControls();
  const error = errorLine();
  const start = button("Generate", generate, { class: "main" });
  const stop = button("Stop", () => running?.abort(), { class: "main", hidden: true });
  const resume = button("Continue", () => run((signal, settings) => {
    anchor = -1;
    setTokens(tokens);
    return continueText(signal, settings);
  }), { hidden: true });
  const status = h("p", { class: "hint status" });
  const plain = h("p");
  const strip = makeStrip({ label: "The text, token by token", describe: (at) => describeToken(tokens[at]), onChoose: (at) => {
    inspect(at);
    sheet.show();
    strip.scrollTo(at);
  } });
  const end = h("p", { class: "ended", hidden: true }, "End of the text (the model generated its end token).");
  const empty = h("p", { class: "hint" }, "The generated text appears here.");
  const tip = h("p", { class: "hint" }, "The stronger the tint, the less likely the token. Select one to see its alternatives and to continue from another.");
  const box = h("div", { class: "text-box", tabindex: -1 }, empty, strip.element, end);
  const abortDemo = () => isDemo && running?.abort();
  const remember = makeRemember(error, abortDemo, () => next.refresh());
  const next = makeNext(choose, remember.params);
  const previousButton = button("←", () => step(-1), { "aria-label": "Previous token" });
  const nextButton = button("→", () => step(1), { "aria-label": "Next token" });
  const endButton = button("End of text", () => inspect(-1));
  const sheet = makeSheet("Next token", h("div", { class: "steps" }, previousButton, nextButton, endButton), next.element);
  const sampling = samplingControls(next.refresh);
  const beginnings = makeBeginnings((text) => {
    prompt.value = text;
    tabStorage.set(`prompt.${model}`, text);
    generate();
  });
  const picture = button("Save as picture", () => savePicture(model, tokens), { hidden: true });

  prompt.addEventListener("input", abortDemo);
  prompt.addEventListener("input", () => tabStorage.set(`prompt.${model}`, prompt.value));
  prompt.addEventListener("input", debounce(250, () => {
    if (tokens.length) return;
    publish();
    inspect(-1);
  }));
  prompt.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && generate());

  panel.append(h("div", { class: "columns" },
    h("div", { class: "main-column" },
      field("Prompt", prompt), beginnings.element, remember.element,
      h("div", { class: "row" }, start, stop, resume, h("span", { class: "hint keys" }, "Ctrl + Enter")),
      error, box,
      h("div", { class: "row under" }, legend(), h("div", { class: "row" }, copyButton(() => decode(tokens)), picture)),
      status, tip,
      h("section", { class: "visually-hidden", "aria-label": "The text as a whole" }, plain)),
    h("aside", { "aria-label": "Next token and sampling settings" },
      sampling.element, sheet.element, lengthAndSeed.element)));

  function generate() {
    lengthAndSeed.renew();
    run(async (signal, settings) => {
      anchor = -1;
      setTokens(await tokenizePrompt(prompt.value, remember.params(), signal));
      await continueText(signal, settings);
    });
  }

  /** Replaces the token at a place and continues from there. */
  function choose(token, place) {
    sheet.hide(false);
    run(async (signal, settings) => {
      const before = place.before ?? (await tokenizePrompt(place.prompt, remember.params(), signal));
      if (isEnd(token)) {
        setTokens(before);
        finish = "stop";
      } else {
        setTokens([...before, { ...token, kind: "chosen" }]);
        anchor = before.length;
        strip.scrollTo(anchor);
        await continueText(signal, settings);
      }
    });
  }

  /** Runs a generation after aborting the previous one. */
  async function run(work) {
    running?.abort();
    const mine = (running = new AbortController());
    isDemo = false;
    setBusy(true);
    await attempt(error, async () => work(mine.signal, lengthAndSeed.read()));
    if (running !== mine) return;
    flush();
    running = null;
    setBusy(false);
    status.textContent = error.textContent ? ""
      : `${mine.signal.aborted ? "Stopped after" : "Generated"} ${sampledSize(tokens)}`;
    announce(status.textContent);
    plain.textContent = shown(decode(tokens));
    end.hidden = finish !== "stop";
    inspect(strip.selected);
  }

  function setBusy(isBusy) {
    if (isBusy) focusedBefore = document.activeElement;
    keepFocus(() => {
      [start.hidden, stop.hidden] = [isBusy, !isBusy];
      resume.hidden = isBusy || !tokens.length || finish === "stop";
    }, ...(isBusy ? [stop] : [focusedBefore, start]));
    box.setAttribute("aria-busy", String(isBusy));
    if (isBusy) status.textContent = "Generating …";
  }

  async function continueText(signal, settings) {
    inspect(-1);
    for await (const event of generateAfter(tokens, { ...settings, ...remember.params() }, signal)) {
      // Laying out a long text takes a while, so tokens are shown once per frame.
      if (!arrived.length) requestAnimationFrame(flush);
      arrived.push(...event.tokens);
      finish = event.finish ?? finish;
    }
  }

  function flush() {
    if (!arrived.length) return;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    arrived.splice(0).forEach(push);
    if (isAtEnd && anchor < 0) box.scrollTop = box.scrollHeight;
    publish();
  }

  /** Makes the text available to the Attention view. */
  function publish(isChanged = true) {
    Object.assign(currentText, { model, tokens, prompt: prompt.value, version: currentText.version + Number(isChanged) });
  }

  function push(token) {
    let text = shown(decodeNext(token));
    // Blank lines at the start would be a hole.
    if (tokens.every((other) => /^\n+$/.test(other.text ?? ""))) text = text.replace(/^\n+/, ({ length }) => "↵".repeat(length));
    tokens.push(token);
    picture.hidden = false;
    strip.push(text, { p: token.p ?? undefined, kind: token.kind });
  }

  /** Replaces the text; the common prefix is not drawn again. */
  function setTokens(newTokens) {
    arrived = [];
    const difference = tokens.findIndex((token, at) => token !== newTokens[at]);
    const common = difference < 0 ? tokens.length : difference;
    const isChanged = common < tokens.length || common < newTokens.length;
    tokens = tokens.slice(0, common);
    strip.truncate(common);
    strip.select(-1);
    decodeNext = makeDecoder();
    tokens.forEach(decodeNext);
    newTokens.slice(common).forEach(push);
    finish = null;
    empty.hidden = end.hidden = true;
    picture.hidden = !newTokens.length;
    error.textContent = "";
    publish(isChanged);
  }

  /** Shows the alternatives to a token, or with -1 those after the text. */
  function inspect(at) {
    strip.select(at);
    const place = at < 0 ? tokens.length : at;
    const before = tokens.length ? tokens.slice(0, place) : null;
    const textBefore = before ? decode(before) : prompt.value;
    const words = textBefore
      ? [at < 0 && !running ? "After the text: " : "After ", h("bdi", {}, ending(textBefore, CONTEXT))]
      : ["At the start of the text"];
    if (at >= 0) words.push(h("span", { class: "here" }, describeToken(tokens[at])));
    next.show({ before, p: tokens[at]?.p ?? null, prompt: before ? before.map(({ id }) => id) : prompt.value, words,
      chosen: at >= 0 ? tokens[at].id : finish === "stop" ? END : null });
    keepFocus(() => {
      previousButton.disabled = !tokens.length || place === 0;
      nextButton.disabled = endButton.disabled = at < 0;
    }, previousButton, nextButton);
  }

  function step(direction) {
    const at = (strip.selected < 0 ? tokens.length : strip.selected) + direction;
    inspect(at >= tokens.length ? -1 : at);
    strip.scrollTo(at);
  }

  return {
    show(card) {
      sampling.refresh();
      if (model === card.name) return next.refresh();
      model = card.name;
      running?.abort();
      running = null; // its tokens belong to the previous model
      prompt.value = tabStorage.get(`prompt.${model}`, "");
      remember.show(card);
      setTokens([]);
      next.clear();
      empty.hidden = false;
      status.textContent = plain.textContent = "";
      inspect(-1);
      setBusy(false);
      beginnings.show(card);
      // A text that grows by itself would be in the way of those who want less motion.
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      generate();
      isDemo = true;
    },
  };
}
