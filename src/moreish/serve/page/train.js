// The view that makes a model of a text: look at it, plan, train, and play with what comes out.

import { attempt, get, post, stream, upload } from "./api.js";
import { makeLines, thinned } from "./charts.js";
import { errorLine, field } from "./controls.js";
import { debounce, h, say, setVars } from "./dom.js";
import { here, keep, server, tell } from "./state.js";
import { duration, large, shown, whole } from "./text.js";

const MODELS = [["", "what suits the text"], ["kneser-ney", "Kneser–Ney counts"], ["bigram", "bigram"], ["mlp", "MLP"],
  ["rnn", "RNN"], ["gru", "GRU"], ["lstm", "LSTM"], ["wavenet", "WaveNet"], ["gpt", "GPT"],
  ["hybrid", "hybrid: a GPT over counts"]];

const MOST_POINTS = 1000;

const BUSY = ["starting", "training", "stopping"];

export function makeTrain(panel) {
  let text = "";
  let now = { status: "none" };
  /** @type {AbortController | null} */
  let listening = null;
  /** Losses of this training, which only the browser keeps. */
  let curve = { name: "", loss: [], val: [] };

  const file = h("input", { type: "file", id: "file", accept: "text/*,.txt,.md,.csv,.json,.py", class: "unseen" });
  const drop = h("label", { class: "drop", for: "file" }, h("strong", {}, "Drop a text file here"),
    h("span", {}, "or choose one. A list (an item a line) gives new items; running text is continued."));
  const there = h("select", {}, h("option", { value: "" }, "–"));
  const error = errorLine();
  const findings = h("ul", { class: "findings" });
  const doctor = h("section", { hidden: true }, h("h2", {}, "What the doctor says"), findings);
  const minutes = h("input", { type: "number", min: 0.1, max: 1440, step: "any", value: 2 });
  const model = h("select", {}, MODELS.map(([value, title]) => h("option", { value }, title)));
  const name = h("input", { type: "text", maxlength: 60, spellcheck: "false", autocomplete: "off" });
  const plan = h("ul", { class: "plan" });
  const start = h("button", { type: "button", class: "main", onclick: begin }, "Train");
  const planned = h("section", { hidden: true }, h("h2", {}, "The plan"),
    h("div", { class: "trio" }, field("Minutes", minutes), field("Model", model), field("Name of the result", name)),
    plan, h("div", { class: "row" }, start));

  const bar = h("div", { class: "progress", role: "progressbar", "aria-label": "Training", "aria-valuemin": 0,
    "aria-valuemax": 100 }, h("span", {}));
  const title = h("h2", {});
  const status = h("p", { class: "told" });
  const failure = errorLine();
  const stop = h("button", { type: "button", onclick: () => attempt(failure, () => post("/api/training/stop", {})) }, "Stop");
  const resume = h("button", { type: "button", class: "main", onclick: () =>
    attempt(failure, async () => follow(await post("/api/training/resume", { name: now.name }))) }, "Resume");
  const play = h("button", { type: "button", class: "main", onclick: playWithIt }, "Play with it");
  const chart = makeLines({ label: "Loss of this training", x: "steps", y: "nats per token", height: 240 });
  const samples = h("ol", { class: "live", "aria-label": "Samples, the latest first" });
  const live = h("section", { class: "training", hidden: true }, title, bar, status, failure,
    h("div", { class: "row" }, stop, resume, play), chart.element, h("h3", {}, "What it writes"), samples);

  panel.append(live,
    h("section", { class: "source" }, h("h2", {}, "A text to learn from"), file, drop, field("Or one that is here already", there), error),
    doctor, planned);

  file.addEventListener("change", () => file.files?.[0] && take(file.files[0]));
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  // A file that is dropped beside it is not to take the place of this page.
  for (const kind of ["dragover", "drop"]) panel.addEventListener(kind, (event) => event.preventDefault());
  there.addEventListener("change", () => there.value && look(there.value));
  minutes.addEventListener("input", debounce(500, makePlan));
  model.addEventListener("change", makePlan);

  async function take(chosen) {
    drop.querySelector("strong").textContent = `Reading ${shown(chosen.name)} …`;
    const found = await attempt(error, () => upload(`/api/texts?name=${encodeURIComponent(chosen.name)}`, chosen));
    drop.querySelector("strong").textContent = "Drop a text file here";
    file.value = "";
    if (!found) return;
    await listTexts();
    look(found.name);
  }

  async function listTexts() {
    const found = await attempt(error, () => get("/api/texts"));
    if (!found) return;
    there.replaceChildren(h("option", { value: "" }, "–"), ...found.texts.map((one) =>
      h("option", { value: one.name }, `${shown(one.name)} (${large(one.bytes)} bytes)`)));
    there.value = text;
  }

  async function look(wanted) {
    text = wanted;
    there.value = text;
    name.value = text.replace(/\.[^.]*$/, "");
    [doctor.hidden, planned.hidden] = [true, true];
    keep.tab.set("train.text", text);
    const found = await attempt(error, () => post("/api/doctor", { text }));
    if (!found || text !== wanted) return;
    findings.replaceChildren(...(found.findings.length ? found.findings.map(({ severity, text: words, mend }) =>
      h("li", { "data-severity": severity }, h("span", { class: "badge" }, shown(severity)), h("bdi", {}, shown(words)),
        mend && h("bdi", { class: "mend" }, shown(mend)))) : [h("li", {}, "Nothing to complain of.")]));
    doctor.hidden = planned.hidden = false;
    makePlan();
  }

  const wishes = () => ({ text, minutes: minutes.valueAsNumber || 2, model: model.value || null });

  async function makePlan() {
    const asked = JSON.stringify(wishes());
    plan.classList.add("waiting");
    const found = await attempt(error, () => post("/api/plan", wishes()));
    if (asked !== JSON.stringify(wishes())) return;
    plan.classList.remove("waiting");
    plan.replaceChildren(...(found?.lines ?? []).map((line) => h("li", {}, h("bdi", {}, shown(line)))));
  }

  async function begin() {
    start.disabled = true;
    const found = await attempt(error, () => post("/api/training", { ...wishes(), name: name.value.trim() || text }));
    start.disabled = false;
    if (!found) return;
    curve = { name: "", loss: [], val: [] };
    follow(found);
    live.scrollIntoView({ block: "nearest" });
  }

  /** Show the training, and what becomes of it. */
  async function follow(first) {
    draw(first);
    if (listening || !BUSY.includes(now.status)) return;
    const mine = (listening = new AbortController());
    await attempt(failure, async () => {
      for await (const event of stream("/api/training/events", null, mine.signal)) {
        draw(event);
        if (!BUSY.includes(event.status)) break;
      }
    });
    mine.abort();
    listening = null;
    if (now.status === "finished") tell("models");
    // The line was cut, and not by the end of the training.
    if (BUSY.includes(now.status)) setTimeout(show, 2000);
  }

  function draw(found) {
    const before = now.status;
    now = { ...now, ...found };
    live.hidden = now.status === "none";
    if (live.hidden) return;
    title.replaceChildren("Training of ", h("bdi", {}, shown(now.name ?? "")));
    const share = Math.round(100 * (now.share ?? 0));
    setVars(bar, { share: String((now.share ?? 0).toFixed(4)) });
    bar.setAttribute("aria-valuenow", String(share));
    bar.hidden = now.status === "failed";
    status.textContent = inWords();
    if (before !== now.status) say(status.textContent);
    failure.textContent = now.status === "failed" && now.message ? shown(now.message) : "";
    stop.hidden = !["starting", "training"].includes(now.status);
    resume.hidden = now.status !== "stopped";
    play.hidden = !["finished", "stopped"].includes(now.status) || !server.models.some((card) => card.name === now.name);
    start.disabled = BUSY.includes(now.status);
    addPoint();
    samples.replaceChildren(...[...(now.samples ?? [])].reverse().map(({ step, text: words }) =>
      h("li", {}, h("span", { class: "hint" }, `after ${whole(step)} steps`), h("bdi", { class: "sample" }, shown(words)))));
  }

  function inWords() {
    const parts = [{ starting: "Starting", training: "Training", stopping: "Stopping", stopped: "Stopped", finished: "Finished",
      failed: "It did not work" }[now.status] ?? now.status];
    if (now.step) parts.push(now.steps ? `step ${whole(now.step)} of ${whole(now.steps)}` : `step ${whole(now.step)}`);
    if (typeof now.loss === "number") parts.push(`loss ${now.loss.toFixed(3)}`);
    if (typeof now.val === "number") parts.push(`validation ${now.val.toFixed(3)}`);
    if (now.status === "training" && typeof now.seconds_left === "number") parts.push(`${duration(now.seconds_left)} left`);
    return parts.join(" · ");
  }

  function addPoint() {
    if (curve.name !== now.name) curve = { name: now.name, loss: [], val: [] };
    for (const key of ["loss", "val"]) {
      const last = curve[key].at(-1);
      const news = key === "loss" ? last?.[0] !== now.step : last?.[1] !== now.val;
      if (now.step && typeof now[key] === "number" && news) curve[key].push([now.step, now[key]]);
      if (curve[key].length > MOST_POINTS) curve[key] = thinned(curve[key], MOST_POINTS / 2);
    }
    keep.tab.set("train.curve", curve);
    chart.set([{ name: "training", points: curve.loss, colour: 0, faint: true },
      { name: "validation", points: curve.val, colour: 0, marks: true }].filter(({ points }) => points.length));
  }

  function playWithIt() {
    location.hash = `#/write/${encodeURIComponent(now.name)}`;
  }

  async function show() {
    if (listening || here.view !== "train") return;
    const found = keep.tab.get("train.curve", curve);
    if (Array.isArray(found.loss) && Array.isArray(found.val)) curve = found;
    listTexts();
    const training = await attempt(failure, () => get("/api/training"));
    if (training) follow(training);
    if (!text && keep.tab.get("train.text", "")) look(keep.tab.get("train.text", ""));
  }

  return { show };
}
