// The view that makes a model of a text: look at the text, plan, train, and play with what comes out.

import { attempt, get, latest, post, Refused, upload } from "./api.js";
import { errorLine, field, tick } from "./controls.js";
import { debounce, h, say } from "./dom.js";
import { makeLive } from "./live.js";
import { keep } from "./state.js";
import { ENCODINGS, inPageTerms, KINDS, CLEANING, MODELS, plainName } from "./terms.js";
import { large, shown } from "./text.js";

const options = (all) => all.map(([value, title]) => h("option", { value }, title));
/** A line that says what is being done. */
const workLine = () => h("p", { class: "working" });
function works(line, text) {
  line.textContent = text;
  if (text) say(text);
}
const tried = (line, work) => attempt(line, work, inPageTerms);

export function makeTrain(panel) {
  const kept = keep.tab.get("train", {});
  let text = kept.text ?? "";
  /** Whether the user has named the result. */
  let named = Boolean(kept.name);
  /** What is to be mended, whether or not there is a box for it now. */
  const ticked = new Set(kept.ticked ?? []);
  // A newer one ends the one before, here and on the server.
  const [uploading, reading, naming] = [latest(), latest(), latest()];

  const file = h("input", { type: "file", id: "file", accept: "text/*,.txt,.md,.csv,.json,.py", class: "unseen" });
  const dropped = h("strong", {}, "Drop a text file here");
  const drop = h("label", { class: "drop", for: "file" }, dropped,
    h("span", {}, "or choose one. A list (one item per line) yields new items; running text is continued."));
  const renamed = h("p", { class: "hint" });
  const [uploadError, readError, planError, startError] = [errorLine(), errorLine(), errorLine(), errorLine()];
  const [uploadStatus, reads, plans] = [workLine(), workLine(), workLine()];
  const there = h("select", {}, h("option", { value: "" }, "–"));
  const kind = h("select", {}, options(KINDS));
  const encoding = h("select", {}, options(ENCODINGS));
  const encoded = field("Encoding", encoding);
  encoded.hidden = true;
  const about = h("div", { class: "hint" });
  const findings = h("ul", { class: "findings" });
  const cleaning = h("div", { class: "row", role: "group", "aria-label": "Cleaning options" });
  const doctor = h("section", { hidden: true }, h("h2", {}, "Problems found in the text"), about, findings, cleaning);
  const minutes = h("input", { type: "number", min: 0.1, max: 1440, step: "any", value: kept.minutes ?? 2 });
  const model = h("select", {}, options(MODELS));
  const name = h("input", { type: "text", maxlength: 60, spellcheck: "false", autocomplete: "off", value: kept.name ?? "" });
  const lines = h("div", { class: "plan" });
  const start = h("button", { type: "button", class: "main", onclick: begin }, "Train");
  const plan = h("section", { hidden: true }, h("h2", {}, "The plan"),
    h("div", { class: "trio" }, field("Minutes", minutes), field("Model", model), field("Run name", name)),
    plans, planError, lines, h("div", { class: "row" }, start, startError));
  const live = makeLive((busy) => {
    if (start.disabled && !busy) startError.textContent = "";
    start.disabled = busy;
  });

  panel.append(live.element,
    h("section", { class: "source" }, h("h2", {}, "Training text"), file, drop, uploadStatus, renamed, uploadError,
      h("div", { class: "pair" }, field("Or a text on the server", there), field("Read as", kind), encoded),
      reads, readError),
    doctor, plan);
  choose(model, kept.model);
  choose(kind, kept.kind);
  choose(encoding, kept.encoding);

  file.addEventListener("change", () => {
    const [chosen] = file.files;
    file.value = ""; // the same one may be chosen again
    if (chosen) take(chosen);
  });
  // A file that is dropped beside it is not to take the place of this page.
  for (const event of ["dragover", "drop"]) panel.addEventListener(event, (dragged) => dragged.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  there.addEventListener("change", () => there.value && look(there.value));
  for (const one of [kind, encoding]) one.addEventListener("change", () => look(text));
  minutes.addEventListener("input", remember);
  minutes.addEventListener("input", debounce(500, makePlan));
  model.addEventListener("change", makePlan);
  name.addEventListener("input", () => {
    named = Boolean(name.value);
    remember();
  });

  /** Chooses an option, which may be none of those that there are. */
  function choose(select, value) {
    if (value && ![...select.options].some((one) => one.value === value)) select.append(h("option", { value }, value));
    select.value = value ?? "";
  }

  /** For after a reload. */
  function remember() {
    keep.tab.set("train", { text, kind: kind.value, encoding: encoding.value, ticked: [...ticked],
      minutes: minutes.value, model: model.value, name: named ? name.value : "" });
  }

  async function take(chosen) {
    const [signal, plain] = [uploading(), plainName(chosen.name)];
    [renamed.textContent, uploadError.textContent] = ["", ""];
    works(uploadStatus, `Uploading ${shown(chosen.name)} …`);
    const found = await tried(uploadError, async () => {
      await chosen.slice(0, 1).arrayBuffer().catch(() => {
        throw new Refused(`“${chosen.name}” cannot be read. Is it a folder?`);
      });
      return upload(`/api/texts?name=${encodeURIComponent(plain)}`, chosen, signal);
    });
    if (signal.aborted) return;
    works(uploadStatus, "");
    if (!found) return;
    if (found.name !== chosen.name.normalize("NFC")) {
      renamed.replaceChildren("Stored as ", h("bdi", {}, shown(found.name)), ": file names may contain letters, digits, . _ - ( ) +");
    }
    forget();
    look(found.name);
    listTexts();
  }

  async function listTexts() {
    const found = await tried(uploadError, () => get("/api/texts"));
    if (!found) return [];
    there.replaceChildren(h("option", { value: "" }, "–"), ...found.texts.map((one) =>
      h("option", { value: one.name }, `${shown(one.name)} (${large(one.bytes)} bytes)`)));
    there.value = text;
    return found.texts.map((one) => one.name);
  }

  /** What belongs to a text. */
  function forget() {
    [kind.value, encoding.value, encoded.hidden, named] = ["", "", true, false];
    ticked.clear();
  }

  /** What the doctor says of a text; then the plan for it. */
  async function look(wanted) {
    if (!wanted) return;
    if (wanted !== text) forget();
    there.value = text = wanted;
    remember();
    offerName();
    const signal = reading();
    [doctor.hidden, plan.hidden] = [true, true];
    works(reads, `Reading ${shown(text)} …`);
    const found = await tried(readError, () => post("/api/doctor", { text, ...how() }, signal).catch((error) => {
      if (error.param === "encoding") encoded.hidden = false;
      throw error;
    }));
    if (signal.aborted) return;
    works(reads, "");
    if (found) draw(found);
  }

  function draw({ lines: summary, findings: all }) {
    const end = summary.indexOf("");
    about.replaceChildren(...summary.slice(0, end < 0 ? summary.length : end).map((line) => h("p", {}, inPageTerms(shown(line)))));
    findings.replaceChildren(...(all.length ? all.map(finding) : [h("li", {}, "No problems found.")]));
    const advised = all.map(({ fix }) => /^--encoding ([\w-]+)$/.exec(fix)?.[1]).find(Boolean);
    if (!encoding.value) choose(encoding, advised);
    encoded.hidden = !encoding.value;
    const offered = new Map(all.filter(({ fix }) => CLEANING[fix]).map(({ fix }) => CLEANING[fix]));
    cleaning.replaceChildren(...[...offered].map(([option, title]) => tick(title, box(option))));
    [doctor.hidden, plan.hidden] = [false, false];
    makePlan();
  }

  function box(option) {
    const input = h("input", { type: "checkbox", checked: ticked.has(option), onchange: () => {
      ticked[input.checked ? "add" : "delete"](option);
      makePlan();
    } });
    return input;
  }

  function finding({ summary, location, example, severity }) {
    const at = [location, example].filter(Boolean).map(shown).join(": ");
    return h("li", { "data-severity": severity }, h("span", { class: "badge" }, severity),
      h("bdi", {}, inPageTerms(shown(summary))), at && h("bdi", { class: "where" }, at));
  }

  /** How the text is to be read, and mended on the way. */
  const how = () => ({ ...(kind.value && { kind: kind.value }), ...(encoding.value && { encoding: encoding.value }),
    ...Object.fromEntries([...ticked].map((option) => [option, true])) });

  const requestSettings = () => ({ text, minutes: minutes.valueAsNumber || 2, model: model.value || null, ...how() });

  async function makePlan() {
    remember();
    if (plan.hidden) return; // it comes when the text has been read
    const signal = reading();
    lines.classList.add("waiting");
    works(plans, "Planning …");
    const found = await tried(planError, () => post("/api/plan", requestSettings(), signal));
    if (signal.aborted) return;
    works(plans, "");
    lines.classList.remove("waiting");
    drawPlan(found?.lines ?? []);
  }

  function drawPlan(planLines) {
    const table = planLines.some((line) => line.includes("  "));
    lines.replaceChildren(table ? h("pre", { tabindex: 0, "aria-label": "The plan" }, inPageTerms(shown(planLines.join("\n"))))
      : h("ul", {}, planLines.map((line) => h("li", {}, h("bdi", {}, inPageTerms(shown(line)))))));
  }

  /** A name that is free, unless the user has given one. */
  async function offerName() {
    const signal = naming();
    if (named) return;
    const wanted = plainName(text.replace(/\.[^.]*$/, ""));
    const found = await tried(startError, () => get(`/api/training/name?wanted=${encodeURIComponent(wanted)}`, signal));
    if (!signal.aborted && !named) name.value = found?.name ?? wanted;
  }

  async function begin() {
    let elsewhere = false;
    start.disabled = true;
    const found = await tried(startError, () => post("/api/training", { ...requestSettings(), name: name.value.trim() }).catch((error) => {
      elsewhere = error.code === "busy";
      throw error;
    }));
    start.disabled = false;
    start.focus();
    if (elsewhere) live.look();
    if (!found) return;
    live.follow(found);
    live.element.scrollIntoView({ block: "nearest" });
    live.focus();
    named = false;
    offerName();
    remember();
  }

  return {
    async show() {
      live.look();
      const names = await listTexts();
      // Again, where it could not be read.
      if (names.includes(text) && plan.hidden && !reads.textContent) look(text);
    },
  };
}
