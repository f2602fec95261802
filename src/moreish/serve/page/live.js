// The current or last training run: its losses and samples as they arrive, and the buttons that control it.

import { attempt, get, post, stream } from "./api.js";
import { makeLines, thinned } from "./charts.js";
import { errorLine } from "./controls.js";
import { announce, button, h, setVar } from "./dom.js";
import { planned } from "./plan.js";
import { makeRuns, open } from "./runs.js";
import { emit, followRename, route, server } from "./state.js";
import { inPageTerms } from "./terms.js";
import { counted, duration, large, shown, whole } from "./text.js";

const STATUS = { starting: "Starting", training: "Training", stopping: "Stopping", stopped: "Stopped",
  finished: "Finished", failed: "Failed" };

const BUSY = ["starting", "training", "stopping"];

const MAX_POINTS = 1000;

/** Merges samples in the order of their steps. */
function merged(...samples) {
  const byStep = new Map(samples.flat().map((sample) => [sample.step, sample]));
  return [...byStep.values()].sort((a, b) => a.step - b.step);
}

export function makeLive(onChange) {
  let training = { status: "none" };
  let isListening = false;
  let isRequesting = false;
  /** What this run has logged, before and after the page began to listen. */
  let log = { name: "", loss: [], val: [], samples: [] };
  /** The samples on the page: those that stay are not drawn again, so that a selection is kept. */
  let drawn = { name: "", keys: [] };
  /** Whether the heading has the focus until there is something to do. */
  let isFocusWaiting = false;
  /** Whether the user has turned to another text after a failure. */
  let isDismissed = false;

  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0,
    "aria-valuemax": 100, hidden: true }, h("span"));
  const title = h("h2", { tabindex: -1 });
  const status = h("p", { class: "readout" });
  const about = h("p", { class: "hint" });
  const [error, connectionError] = [errorLine(), errorLine()];
  const stop = button("Stop", () => stop.ariaDisabled !== "true" && order("stop", {}));
  const use = button("Play with it", () => open(training.name), { class: "main" });
  const chart = makeLines({ label: "Loss of this run", x: "steps", y: "nats per token", height: 300 });
  const curves = h("div", {}, chart.element, h("p", { class: "hint" },
    "Thin line: training batches. Thick line: the validation split, which is not trained on."));
  const plan = h("div", { class: "plan" });
  const planDetails = h("details", { open: true }, h("summary", {}, "Plan of this run"), plan);
  const samples = h("ol", { class: "live scrolling", "aria-label": "Samples, the latest first", tabindex: 0 });
  const samplesSection = h("section", { "aria-label": "Samples" }, h("h3", {}, "Samples"), samples);
  const section = h("section", { class: "training", hidden: true }, title, bar, status, about, error, connectionError,
    h("div", { class: "row" }, use, stop), planDetails, h("div", { class: "chart-and-samples" }, curves, samplesSection));
  const runs = makeRuns(order);

  document.addEventListener("visibilitychange", refresh);
  window.addEventListener("focus", refresh);

  /** Changes a run and returns whether that succeeded; if not, the state on the server has probably changed. */
  async function order(action, body) {
    const answer = await attempt(action === "stop" ? error : runs.error, () => post(`/api/training/${action}`, body), inPageTerms);
    if (answer && ["rename", "delete"].includes(action)) followRename(body.name, body.new_name ?? "");
    if (answer) follow(answer);
    else refresh();
    if (answer && !BUSY.includes(answer.status)) emit("models");
    return Boolean(answer);
  }

  /** Shows a run and listens to its events. */
  async function follow(first) {
    draw(first);
    if (isListening || !BUSY.includes(training.status)) return;
    isListening = true;
    await attempt(connectionError, async () => {
      for await (const event of stream("/api/training/events", null)) draw(event);
    });
    isListening = false;
    // If the connection was cut before training ended, the server is asked again.
    if (BUSY.includes(training.status)) setTimeout(refresh, 2000);
    else emit("models");
  }

  /** Shows a run; if the focused element disappears, the focus moves to the next possible action. */
  function draw(newTraining) {
    const focused = document.activeElement;
    const isMine = [section, runs.element].some((element) => element.contains(focused));
    show(newTraining);
    const isVisible = (one) => Boolean(one) && one.getClientRects().length > 0;
    if (isMine && (!isVisible(focused) || (isFocusWaiting && focused === title))) {
      const resume = training.status !== "finished" && runs.resumeButtons.get(training.name);
      const next = [stop, resume, use].find(isVisible);
      (next ?? title).focus();
      isFocusWaiting = !next;
    } else isFocusWaiting &&= focused === title;
  }

  function show(newTraining) {
    const before = training.status;
    training = newTraining;
    const isBusy = BUSY.includes(training.status);
    onChange(isBusy);
    runs.show(training.runs);
    bar.hidden = !isBusy;
    isDismissed &&= !isBusy;
    section.hidden = training.status === "none" || isDismissed;
    if (section.hidden) return;
    title.replaceChildren("Training of ", h("bdi", {}, shown(training.name)));
    setVar(bar, "share", training.share);
    bar.setAttribute("aria-valuenow", String(Math.round(100 * training.share)));
    status.textContent = describe();
    if (before !== training.status) announce(status.textContent);
    const lines = training.plan;
    if (plan.dataset.lines !== lines.join("\n")) plan.replaceChildren(...planned(lines));
    plan.dataset.lines = lines.join("\n");
    planDetails.hidden = !lines.length;
    const message = lines.includes(training.message) ? "" : inPageTerms(shown(training.message ?? ""));
    const isFailed = training.status === "failed";
    about.textContent = isFailed ? "" : describeWeights() || message;
    if (isFailed || before === "failed") error.textContent = isFailed ? message : "";
    stop.hidden = !isBusy;
    stop.ariaDisabled = String(training.status === "stopping");
    use.hidden = isBusy || !server.models.some((card) => card.name === training.name);
    if (BUSY.includes(before) && !isBusy && log.name === training.name) loadLog(); // with what came too fast to be reported
    addToLog();
    drawSamples();
  }

  /** Says which weights were saved, if those are not the last. */
  function describeWeights() {
    const { best, best_step: step, early } = training;
    if (best === null || !step || step >= training.step) return "";
    const loss = `validation ${best.toFixed(3)}`;
    return early
      ? `Training stopped early because the validation loss did not improve after step ${whole(step)}. The weights of that step were saved: ${loss}.`
      : `The best weights, from step ${whole(step)}, were saved: ${loss}.`;
  }

  function describe() {
    const { early, status, model, parameters, step, steps, loss, best, seconds_left } = training;
    const val = best ?? training.val; // at the end, that of the saved weights
    return [
      early ? "Stopped early" : STATUS[status],
      model && `${shown(model)}, ${large(parameters)} parameters`,
      step && `step ${whole(step)} of ${whole(steps)}`,
      loss !== null && `loss ${loss.toFixed(3)}`,
      val !== null && `validation ${val.toFixed(3)}`,
      status === "training" && seconds_left !== null && step < steps && `${duration(seconds_left)} left`,
    ].filter(Boolean).join(" · ");
  }

  /** Adds the new samples, the latest first. */
  function drawSamples() {
    const all = log.name === training.name ? log.samples : training.samples;
    const keys = all.map(({ step, text }) => `${step} ${text}`);
    const grows = drawn.name === training.name && drawn.keys.every((key, at) => key === keys[at]);
    if (!grows) samples.replaceChildren();
    samples.prepend(...all.slice(grows ? drawn.keys.length : 0).reverse().map(({ step, text }) =>
      h("li", {}, h("span", { class: "hint" }, `after ${counted(step, "step")}`), h("bdi", { class: "sample" }, shown(text)))));
    drawn = { name: training.name, keys };
    samplesSection.hidden = !all.length;
  }

  /** Adds what the server has logged. */
  async function loadLog() {
    const answer = await attempt(connectionError, () => get("/api/training/history"));
    if (!answer || log.name !== training.name) return; // another run has started
    for (const [key, entries] of [["loss", answer.steps], ["val", answer.evaluations]]) {
      const old = entries.filter((entry) => entry[key] !== null).map((entry) => [entry.step, entry[key]]);
      log[key] = [...old, ...log[key].filter(([step]) => step > (old.at(-1)?.[0] ?? 0))];
    }
    log.samples = merged(answer.samples, log.samples);
    drawCurve();
    drawSamples();
  }

  function addToLog() {
    const { name, step, samples: newSamples } = training;
    if (step && log.name !== name) {
      log = { name, loss: [], val: [], samples: newSamples };
      loadLog();
    }
    // A resumed run reports only the samples since then.
    if (log.name === name) log.samples = merged(log.samples, newSamples);
    for (const key of step ? ["loss", "val"] : []) {
      // A run may resume some steps before its last one.
      log[key] = log[key].filter(([logged]) => logged <= step);
      const at = key === "loss" ? step : training.val_step;
      if (training[key] !== null && log[key].at(-1)?.[0] !== at) log[key].push([at, training[key]]);
      if (log[key].length > MAX_POINTS) log[key] = thinned(log[key], MAX_POINTS / 2);
    }
    drawCurve();
  }

  function drawCurve() {
    curves.hidden = log.name !== training.name || log.loss.length < 2;
    chart.set([{ name: "training", points: log.loss, color: 0, faint: true },
      { name: "validation", points: log.val, color: 0, dots: true }].filter(({ points }) => points.length));
  }

  /** Requests the state of training, which another page may have started. */
  async function refresh() {
    if (isListening || isRequesting || document.hidden || route.view !== "train") return;
    isRequesting = true;
    const answer = await attempt(connectionError, () => get("/api/training"));
    isRequesting = false;
    if (answer) follow(answer);
  }

  /** Hides a run that has failed, after the user has turned to another text. */
  function dismissFailure() {
    if (training.status !== "failed") return;
    section.hidden = isDismissed = true;
    error.textContent = "";
  }

  return { element: section, runs, follow, refresh, dismissFailure, focus: () => stop.focus() };
}
