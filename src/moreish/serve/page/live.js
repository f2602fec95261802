// The training that is on, or was the last: its losses and samples as they come, and what can be done with it.

import { attempt, get, post, stream } from "./api.js";
import { makeLines, thinned } from "./charts.js";
import { errorLine } from "./controls.js";
import { h, say, setVars } from "./dom.js";
import { here, server, tell } from "./state.js";
import { duration, large, shown, whole } from "./text.js";

const IN_WORDS = { starting: "Starting", training: "Training", stopping: "Stopping", stopped: "Stopped",
  finished: "Finished", failed: "It did not work" };

const BUSY = ["starting", "training", "stopping"];

const MOST_POINTS = 1000;

/** @param {(busy: boolean) => void} changed */
export function makeLive(changed) {
  let now = { status: "none" };
  /** Whether the server tells of each change. */
  let listening = false;
  /** Losses of this training: what was logged before this page began to listen, and what came since. */
  let curve = { name: "", loss: [], val: [] };

  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0,
    "aria-valuemax": 100 }, h("span", {}));
  const title = h("h2", {});
  const status = h("p", { class: "told" });
  const about = h("p", { class: "hint" });
  const error = errorLine();
  const stop = h("button", { type: "button", onclick: () =>
    attempt(error, async () => draw(await post("/api/training/stop", {}))) }, "Stop");
  const play = h("button", { type: "button", class: "main", onclick: () => {
    location.hash = `#/write/${encodeURIComponent(now.name)}`;
  } }, "Play with it");
  const chart = makeLines({ label: "Loss of this training", x: "steps", y: "nats per token", height: 240 });
  const samples = h("ol", { class: "live", "aria-label": "Samples, the latest first", tabindex: 0 });
  const writes = h("section", { "aria-label": "What it writes" }, h("h3", {}, "What it writes"), samples);
  const one = h("section", { class: "training", hidden: true }, title, bar, status, about, error,
    h("div", { class: "row" }, play, stop), chart.element, writes);
  const stopped = h("ul", { class: "stopped" });
  const others = h("section", { hidden: true }, h("h2", {}, "Stopped on the way"), stopped);
  const element = h("div", { class: "trainings" }, one, others);

  /** Show a training, and what becomes of it. */
  async function follow(first) {
    draw(first);
    if (listening || !BUSY.includes(now.status)) return;
    listening = true;
    await attempt(error, async () => {
      for await (const event of stream("/api/training/events", null)) draw(event);
    });
    listening = false;
    // Where it was cut by something else than the end of the training, it is asked for again.
    if (BUSY.includes(now.status)) setTimeout(look, 2000);
    else tell("models");
  }

  function draw(found) {
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
    about.textContent = now.status === "failed" ? "" : shown(now.message ?? "");
    error.textContent = now.status === "failed" ? shown(now.message ?? "") : error.textContent;
    stop.hidden = !["starting", "training"].includes(now.status);
    play.hidden = busy || !server.models.some((card) => card.name === now.name);
    addPoint();
    writes.hidden = !now.samples.length;
    samples.replaceChildren(...[...now.samples].reverse().map(({ step, text }) =>
      h("li", {}, h("span", { class: "hint" }, `after ${whole(step)} steps`), h("bdi", { class: "sample" }, shown(text)))));
  }

  function inWords() {
    const parts = [IN_WORDS[now.status]];
    if (now.model) parts.push(`${shown(now.model)}, ${large(now.parameters)} parameters`);
    if (now.step) parts.push(`step ${whole(now.step)} of ${whole(now.steps)}`);
    if (now.loss !== null) parts.push(`loss ${now.loss.toFixed(3)}`);
    if (now.val !== null) parts.push(`validation ${now.val.toFixed(3)}`);
    if (now.status === "training" && now.seconds_left !== null) parts.push(`${duration(now.seconds_left)} left`);
    return parts.join(" · ");
  }

  function drawOthers() {
    stopped.replaceChildren(...now.resumable.map((name) => h("li", {}, h("bdi", {}, shown(name)),
      h("button", { type: "button", "aria-label": `Go on with ${shown(name)}`, onclick: () =>
        attempt(error, async () => follow(await post("/api/training/resume", { name }))) }, "Go on"))));
    others.hidden = !now.resumable.length;
  }

  /** What was logged before this page began to listen. */
  async function recall() {
    curve = { name: now.name, loss: [], val: [] };
    const found = await attempt(error, () => get("/api/training/history"));
    if (!found || curve.name !== now.name) return;
    const before = (entries, key) => entries.filter((one) => one[key] !== null).map((one) => [one.step, one[key]]);
    const joined = (old, since) => [...old, ...since.filter(([step]) => step > (old.at(-1)?.[0] ?? 0))];
    curve.loss = joined(before(found.steps, "loss"), curve.loss);
    curve.val = joined(before(found.evaluations, "val"), curve.val);
    drawCurve();
  }

  function addPoint() {
    if (now.step && curve.name !== now.name) recall();
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
    chart.set([{ name: "training", points: curve.loss, colour: 0, faint: true },
      { name: "validation", points: curve.val, colour: 0, marks: true }].filter(({ points }) => points.length));
  }

  /** How it is now. */
  async function look() {
    if (listening || here.view !== "train") return;
    const found = await attempt(error, () => get("/api/training"));
    if (found) follow(found);
  }

  return { element, follow, look };
}
