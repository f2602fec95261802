// The training that is on, or was the last: its losses and samples as they come, and what can be done with it.

import { attempt, get, post, stream } from "./api.js";
import { makeLines, thinned } from "./charts.js";
import { errorLine } from "./controls.js";
import { h, say, setVars } from "./dom.js";
import { here, server, tell } from "./state.js";
import { inPageTerms } from "./terms.js";
import { duration, large, shown, whole } from "./text.js";

const IN_WORDS = { starting: "Starting", training: "Training", stopping: "Stopping", stopped: "Stopped",
  finished: "Finished", failed: "Failed" };

const BUSY = ["starting", "training", "stopping"];

const MOST_POINTS = 1000;

/** @param {(busy: boolean) => void} changed */
export function makeLive(changed) {
  let now = { status: "none" };
  /** Whether the server tells of each change. */
  let listening = false;
  /** Whether the server is being asked how it is. */
  let looking = false;
  /** Of this training: what was logged before this page began to listen, and what came since. */
  let curve = { name: "", loss: [], val: [], samples: [] };
  /** The samples that are shown, so that those who read or copy them are not disturbed. */
  let drawn = { name: "", keys: [] };
  /** Whether the focus waits at the heading for something that it can go to. */
  let parked = false;

  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0,
    "aria-valuemax": 100 }, h("span", {}));
  const title = h("h2", { tabindex: -1 });
  const status = h("p", { class: "readout" });
  const about = h("p", { class: "hint" });
  const [error, unheard] = [errorLine(), errorLine()];
  const stop = h("button", { type: "button", onclick: () => {
    if (stop.ariaDisabled !== "true") order("stop", {});
  } }, "Stop");
  const play = h("button", { type: "button", class: "main", onclick: () => {
    location.hash = `#/write/${encodeURIComponent(now.name)}`;
  } }, "Use this model");
  const chart = makeLines({ label: "Loss of this training", x: "steps", y: "nats per token", height: 240 });
  const samples = h("ol", { class: "live", "aria-label": "Samples, the latest first", tabindex: 0 });
  const writes = h("section", { "aria-label": "Samples" }, h("h3", {}, "Samples"), samples);
  const one = h("section", { class: "training", hidden: true }, title, bar, status, about, error, unheard,
    h("div", { class: "row" }, play, stop), chart.element, writes);
  /** Buttons by the runs that go on with them. @type {Map<string, HTMLElement>} */
  let goOns = new Map();
  const stopped = h("ul", { class: "stopped" });
  const others = h("section", { hidden: true }, h("h2", {}, "Interrupted trainings"), stopped);
  const element = h("div", { class: "trainings" }, one, others);

  for (const [target, event] of [[document, "visibilitychange"], [window, "focus"]]) target.addEventListener(event, look);

  /** Stop or go on; where that is not possible, something has changed elsewhere. */
  async function order(verb, body) {
    const found = await attempt(error, () => post(`/api/training/${verb}`, body), inPageTerms);
    if (found) follow(found);
    else look();
  }

  /** Show a training, and what becomes of it. */
  async function follow(first) {
    draw(first);
    if (listening || !BUSY.includes(now.status)) return;
    listening = true;
    await attempt(unheard, async () => {
      for await (const event of stream("/api/training/events", null)) draw(event);
    });
    listening = false;
    // Where it was cut by something else than the end of the training, it is asked for again.
    if (BUSY.includes(now.status)) setTimeout(look, 2000);
    else tell("models");
  }

  /** What is there now; the focus stays, or goes to what can be done next. */
  function draw(found) {
    const held = document.activeElement;
    const mine = element.contains(held);
    show(found);
    const seen = (one) => one?.getClientRects().length > 0;
    if (mine && (!seen(held) || (parked && held === title))) toNext();
    else parked &&= held === title;

    function toNext() {
      const next = [stop, goOns.get(now.name), play, ...goOns.values()].find(seen);
      (next ?? title).focus();
      parked = !next;
    }
  }

  function show(found) {
    const before = now.status;
    now = found;
    const busy = BUSY.includes(now.status);
    changed(busy);
    drawOthers();
    one.hidden = now.status === "none";
    if (one.hidden) return;
    title.replaceChildren("Training of ", h("bdi", {}, shown(now.name)));
    setVars(bar, { share: now.share.toFixed(4) });
    bar.setAttribute("aria-valuenow", String(Math.round(100 * now.share)));
    bar.hidden = !busy;
    status.textContent = inWords();
    if (before !== now.status) say(status.textContent);
    const message = inPageTerms(shown(now.message ?? ""));
    about.textContent = now.status === "failed" ? "" : ending() || message;
    if (now.status === "failed") error.textContent = message;
    else if (before === "failed") error.textContent = "";
    stop.hidden = !busy;
    stop.ariaDisabled = String(now.status === "stopping");
    play.hidden = busy || !server.models.some((card) => card.name === now.name);
    addPoint();
    drawSamples();
  }

  /** Which weights are kept, where these are not the last. */
  function ending() {
    const { best, best_step: step } = now;
    if (best === null || !step || step >= now.step) return "";
    const kept = `validation ${best.toFixed(3)}`;
    return now.early
      ? `Training stopped early because the validation loss did not improve after step ${whole(step)}. The weights of that step were saved: ${kept}.`
      : `The best weights, from step ${whole(step)}, were saved: ${kept}.`;
  }

  function inWords() {
    const parts = [now.early ? "Stopped early" : IN_WORDS[now.status]];
    if (now.model) parts.push(`${shown(now.model)}, ${large(now.parameters)} parameters`);
    if (now.step) parts.push(`step ${whole(now.step)} of ${whole(now.steps)}`);
    if (now.loss !== null) parts.push(`loss ${now.loss.toFixed(3)}`);
    if (now.val !== null) parts.push(`validation ${now.val.toFixed(3)}`);
    if (now.status === "training" && now.seconds_left !== null) parts.push(`${duration(now.seconds_left)} left`);
    return parts.join(" · ");
  }

  function drawOthers() {
    others.hidden = !now.resumable.length;
    if (now.resumable.join("/") === [...goOns.keys()].join("/")) return;
    goOns = new Map(now.resumable.map((name) => [name, h("button", { type: "button",
      "aria-label": `Resume ${shown(name)}`, onclick: () => order("resume", { name }) }, "Resume")]));
    stopped.replaceChildren(...[...goOns].map(([name, button]) => h("li", {}, h("bdi", {}, shown(name)), button)));
  }

  /** Adds those that are new, the latest first. */
  function drawSamples() {
    const all = curve.name === now.name ? curve.samples : now.samples;
    const keys = all.map(({ step, text }) => `${step} ${text}`);
    const grows = drawn.name === now.name && drawn.keys.every((key, at) => key === keys[at]);
    if (!grows) samples.replaceChildren();
    samples.prepend(...all.slice(grows ? drawn.keys.length : 0).reverse().map(({ step, text }) =>
      h("li", {}, h("span", { class: "hint" }, `after ${whole(step)} steps`), h("bdi", { class: "sample" }, shown(text)))));
    drawn = { name: now.name, keys };
    writes.hidden = !all.length;
  }

  /** What was logged before this page began to listen. */
  async function recall() {
    curve = { name: now.name, loss: [], val: [], samples: now.samples };
    const found = await attempt(unheard, () => get("/api/training/history"));
    if (!found || curve.name !== now.name) return;
    const before = (entries, key) => entries.filter((one) => one[key] !== null).map((one) => [one.step, one[key]]);
    const joined = (old, since) => [...old, ...since.filter(([step]) => step > (old.at(-1)?.[0] ?? 0))];
    curve.loss = joined(before(found.steps, "loss"), curve.loss);
    curve.val = joined(before(found.evaluations, "val"), curve.val);
    curve.samples = withNew(found.samples, curve.samples);
    drawCurve();
    drawSamples();
  }

  /** Samples of both, in the order of their steps. */
  function withNew(old, since) {
    const all = new Map([...old, ...since].map((sample) => [sample.step, sample]));
    return [...all.values()].sort((a, b) => a.step - b.step);
  }

  function addPoint() {
    if (now.step && curve.name !== now.name) recall();
    // One that goes on tells only of the samples since.
    if (curve.name === now.name) curve.samples = withNew(curve.samples, now.samples);
    for (const key of now.step ? ["loss", "val"] : []) {
      // One that goes on may have gone back some steps.
      curve[key] = curve[key].filter(([step]) => step <= now.step);
      const before = curve[key].at(-1);
      const isNew = key === "loss" ? before?.[0] !== now.step : before?.[1] !== now.val;
      if (now[key] !== null && isNew) curve[key].push([now.step, now[key]]);
      if (curve[key].length > MOST_POINTS) curve[key] = thinned(curve[key], MOST_POINTS / 2);
    }
    drawCurve();
  }

  function drawCurve() {
    chart.element.hidden = curve.name !== now.name || curve.loss.length < 2;
    chart.set([{ name: "training", points: curve.loss, color: 0, faint: true },
      { name: "validation", points: curve.val, color: 0, marks: true }].filter(({ points }) => points.length));
  }

  /** How it is now: it may have been begun by another page. */
  async function look() {
    if (listening || looking || document.hidden || here.view !== "train") return;
    looking = true;
    const found = await attempt(unheard, () => get("/api/training"));
    looking = false;
    if (found) follow(found);
  }

  return { element, follow, look, focus: () => stop.focus() };
}
