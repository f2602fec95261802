// The Train view: check a text, plan a training run, run it, and use the model.

import { attempt, get, makeLatestSignal, post, UserError } from "./api.js";
import { makeColumns } from "./columns.js";
import { checkbox, choose, errorLine, field, select } from "./controls.js";
import { announce, button, debounce, h } from "./dom.js";
import { makeLive } from "./live.js";
import { finding, planned } from "./plan.js";
import { makeSource } from "./source.js";
import { tabStorage } from "./state.js";
import { CLEANING, DATASETS, ENCODINGS, inPageTerms, KINDS, MODELS, plainName } from "./terms.js";
import { counted, large, shown } from "./text.js";

const ESTIMATE = "This is an estimate: the speed is measured again when training starts.";

const workLine = () => h("p", { class: "working" });
function showWork(line, text) {
  line.textContent = text;
  if (text) announce(text);
}

const attemptHere = (line, work) => attempt(line, work, inPageTerms);

export function makeTrain(panel) {
  const stored = tabStorage.get("train", {});
  let text = stored.text ?? "";
  let isTraining = false;
  /** Whether the user has chosen the name of the run. */
  let hasOwnName = Boolean(stored.name);
  /** The chosen cleaning options, whether or not the page offers them at the moment. */
  const ticked = new Set(stored.ticked ?? []);
  // A new request aborts the previous one.
  const [uploadSignal, readSignal, nameSignal] = [makeLatestSignal(), makeLatestSignal(), makeLatestSignal()];

  const source = makeSource(panel, { onFile: uploadFile, onDataset: readText, getNames: () => texts.map((one) => one.name) });
  const renamed = h("p", { class: "hint" });
  const [uploadError, readError, planError, startError] = [errorLine(), errorLine(), errorLine(), errorLine()];
  const [uploadStatus, readStatus, planStatus] = [workLine(), workLine(), workLine()];
  /** The texts on the server. */
  let texts = [];
  const serverText = select([["", "–"]], () => readText(serverText.value));
  const serverTextField = field("Or an earlier text", serverText);
  serverTextField.hidden = true;
  const kind = select(KINDS, () => readText(text));
  const columns = makeColumns(stored.columns ?? {}, () => readText(text));
  const encoding = select(ENCODINGS, () => readText(text));
  const encodingField = field("Encoding", encoding);
  encodingField.hidden = true;
  const about = h("div", { class: "hint" });
  const findings = h("ul", { class: "findings" });
  const cleaning = h("div", { class: "row", role: "group", "aria-label": "Cleaning options" });
  const audit = h("section", { class: "audit", hidden: true }, h("h2", {}, "The text"), about, findings, cleaning,
    h("div", { class: "pair" }, field("Read as", kind)));
  const minutes = h("input", { type: "number", min: 0.1, max: 1440, step: "any", value: stored.minutes ?? 1 });
  const model = select(MODELS, makePlan);
  const name = h("input", { type: "text", maxlength: 60, spellcheck: "false", autocomplete: "off", value: stored.name ?? "",
    oninput: () => {
      hasOwnName = Boolean(name.value);
      remember();
    } });
  const planBox = h("div", { class: "plan" });
  const start = button("Train", train, { class: "main" });
  const plan = h("section", { hidden: true }, h("h2", {}, "The plan"),
    h("div", { class: "plan-fields" }, field("Minutes", minutes), field("Model", model), field("Run name", name)),
    planStatus, planError, planBox, h("div", { class: "row" }, start, startError));
  const live = makeLive((isBusy) => {
    if (isTraining && !isBusy) startError.textContent = "";
    isTraining = isBusy;
    allowStart();
  });

  panel.append(live.element,
    h("section", { class: "source" }, h("h2", { class: "title" }, "Give it a text. In a minute it writes more of it."),
      source.element, uploadStatus, renamed, uploadError, serverTextField, readStatus, readError, columns.element, encodingField),
    h("div", { class: "audit-and-plan" }, audit, plan), live.runs.element);
  choose(model, stored.model);
  choose(kind, stored.kind);
  choose(encoding, stored.encoding);

  minutes.addEventListener("input", remember);
  minutes.addEventListener("input", debounce(500, makePlan));

  const showColumns = () => columns.show(texts.find((one) => one.name === text)?.columns ?? []);

  /** Stores the choices for a reload. */
  function remember() {
    tabStorage.set("train", { text, kind: kind.value, encoding: encoding.value, columns: columns.chosen(), ticked: [...ticked],
      minutes: minutes.value, model: model.value, name: hasOwnName ? name.value : "" });
  }

  /** A text that cannot be planned cannot be trained on. */
  function allowStart() {
    start.disabled = isTraining || Boolean(planError.textContent);
  }

  /** Hides what is about the previous text. */
  function leaveText() {
    audit.hidden = plan.hidden = true;
    readError.textContent = planError.textContent = startError.textContent = "";
    allowStart();
    live.dismissFailure();
  }

  async function uploadFile(chosen) {
    const signal = uploadSignal();
    renamed.textContent = "";
    showWork(uploadStatus, `Uploading ${shown(chosen.name)} …`);
    const answer = await attemptHere(uploadError, async () => {
      await chosen.slice(0, 1).arrayBuffer().catch(() => {
        throw new UserError(`“${chosen.name}” cannot be read. Is it a folder?`);
      });
      return post(`/api/texts?name=${encodeURIComponent(plainName(chosen.name))}`, chosen, signal);
    });
    if (signal.aborted) return;
    showWork(uploadStatus, "");
    if (!answer) return;
    if (answer.name !== chosen.name.normalize("NFC")) {
      renamed.replaceChildren("Stored as ", h("bdi", {}, shown(answer.name)), ": file names may contain letters, digits, . _ - ( ) +");
    }
    source.clear();
    text = ""; // a text of the same name may be another
    texts = [...texts.filter((one) => one.name !== answer.name), answer];
    readText(answer.name);
    listTexts();
  }

  async function listTexts() {
    const answer = await attemptHere(uploadError, () => get("/api/texts"));
    if (!answer) return [];
    texts = answer.texts;
    serverTextField.hidden = !texts.length;
    serverText.replaceChildren(h("option", { value: "" }, "–"), ...texts.map((one) =>
      h("option", { value: one.name }, `${shown(one.name)} (${counted(one.bytes, "byte", large)})`)));
    serverText.value = text;
    showColumns();
    return texts.map((one) => one.name);
  }

  /** Resets the choices that belong to a text. */
  function forgetChoices() {
    [kind.value, encoding.value, encodingField.hidden, hasOwnName] = ["", "", true, false];
    columns.forget();
    ticked.clear();
  }

  /** Shows the problems of a text, and plans a training run on it. */
  async function readText(newText) {
    if (!newText) return;
    // The problems of the same text stay until they are found again, so that the focus is kept.
    if (newText !== text) {
      leaveText();
      forgetChoices();
    }
    plan.hidden = true;
    planBox.replaceChildren();
    serverText.value = text = newText;
    if (serverText.selectedIndex < 0) serverText.value = ""; // a built-in data set
    showColumns();
    remember();
    suggestName();
    const signal = readSignal();
    showWork(readStatus, `Reading ${shown(text)} …`);
    const answer = await attemptHere(readError, () => post("/api/doctor", { text, ...textSettings() }, signal).catch((error) => {
      encodingField.hidden &&= error.param !== "encoding";
      throw error;
    }));
    if (signal.aborted) return;
    showWork(readStatus, "");
    if (answer) showAudit(answer);
  }

  function showAudit({ lines, findings: all }) {
    const end = lines.indexOf("");
    about.replaceChildren(...lines.slice(0, end < 0 ? lines.length : end).map((line) => h("p", {}, inPageTerms(shown(line)))));
    findings.replaceChildren(...(all.length ? all.map(finding) : [h("li", {}, "No problems found.")]));
    const suggested = all.map(({ fix }) => /^--encoding ([\w-]+)$/.exec(fix)?.[1]).find(Boolean);
    if (!encoding.value) choose(encoding, suggested);
    encodingField.hidden = !encoding.value;
    const fixes = new Set(all.map(({ fix }) => fix));
    cleaning.replaceChildren(...[...fixes].filter((fix) => CLEANING[fix]).map((fix) => cleaningBox(...CLEANING[fix])));
    audit.hidden = plan.hidden = false;
    makePlan();
  }

  function cleaningBox(option, title) {
    const input = h("input", { type: "checkbox", checked: ticked.has(option), onchange: () => {
      ticked[input.checked ? "add" : "delete"](option);
      makePlan();
    } });
    return checkbox(title, input);
  }

  /** Returns how the text is to be read and cleaned. */
  const textSettings = () => ({ ...(kind.value && { kind: kind.value }), ...(encoding.value && { encoding: encoding.value }),
    ...columns.chosen(), ...Object.fromEntries([...ticked].map((option) => [option, true])) });

  const requestSettings = () => ({ text, minutes: minutes.valueAsNumber || 1, model: model.value || null, ...textSettings() });

  async function makePlan() {
    remember();
    if (plan.hidden) return; // the text is still being read
    const signal = readSignal();
    planBox.classList.add("waiting");
    showWork(planStatus, "Planning …");
    startError.textContent = "";
    const answer = await attemptHere(planError, () => post("/api/plan", requestSettings(), signal));
    if (signal.aborted) return;
    showWork(planStatus, "");
    planBox.classList.remove("waiting");
    planBox.replaceChildren(...(answer ? [...planned(answer.lines), h("p", { class: "hint" }, ESTIMATE)] : []));
    allowStart();
  }

  /** Fills in a free name for the run, unless the user has chosen one. */
  async function suggestName() {
    const signal = nameSignal();
    if (hasOwnName) return;
    const preferred = plainName(text.replace(/\.[^.]*$/, ""));
    const answer = await attemptHere(startError, () => get(`/api/training/name?name=${encodeURIComponent(preferred)}`, signal));
    if (!signal.aborted && !hasOwnName) name.value = answer?.name ?? preferred;
  }

  async function train() {
    start.disabled = true;
    const body = { ...requestSettings(), name: name.value.trim() };
    const answer = await attemptHere(startError, () => post("/api/training", body).catch((error) => {
      if (error.code === "busy") live.refresh(); // another page has started a training run
      throw error;
    }));
    allowStart();
    start.focus();
    if (!answer) return;
    live.follow(answer);
    live.element.scrollIntoView({ block: "nearest" });
    live.focus();
    hasOwnName = false;
    suggestName();
    remember();
  }

  return {
    async show() {
      live.refresh();
      const names = await listTexts();
      // A text that could not be read before is read again.
      if ((names.includes(text) || DATASETS.some(([name]) => name === text)) && plan.hidden && !readStatus.textContent) readText(text);
      else if (planError.textContent) makePlan();
    },
  };
}
