// The view that makes a model of a text: look at the text, plan, train, and play with what comes out.

import { attempt, get, post, upload } from "./api.js";
import { errorLine, field, tick } from "./controls.js";
import { debounce, h } from "./dom.js";
import { makeLive } from "./live.js";
import { keep } from "./state.js";
import { large, shown } from "./text.js";

const MODELS = [["", "what suits the text"], ["kneser-ney", "Kneser–Ney counts"], ["bigram", "bigram"], ["mlp", "MLP"],
  ["rnn", "RNN"], ["gru", "GRU"], ["lstm", "LSTM"], ["wavenet", "WaveNet"], ["gpt", "GPT"],
  ["hybrid", "hybrid: a network over counts"]];

/** What the doctor may advise, and this page can do. */
const MENDS = { "--dedup": ["dedup", "Leave out copies"], "--nfc": ["nfc", "Write accented letters as one character each"],
  "--clean": ["clean", "Leave out control and invisible characters"] };

export function makeTrain(panel) {
  let text = "";
  let [planning, planned] = [false, ""];
  /** The boxes that are offered, by what they set. @type {Map<string, HTMLInputElement>} */
  const boxes = new Map();
  let encoding = null;

  const file = h("input", { type: "file", id: "file", accept: "text/*,.txt,.md,.csv,.json,.py", class: "unseen" });
  const dropped = h("strong", {}, "Drop a text file here");
  const drop = h("label", { class: "drop", for: "file" }, dropped,
    h("span", {}, "or choose one. A list (an item a line) gives new items; running text is continued."));
  const there = h("select", {}, h("option", { value: "" }, "–"));
  const error = errorLine();
  const about = h("div", { class: "hint" });
  const findings = h("ul", { class: "findings" });
  const kind = h("select", { onchange: () => look(text) }, h("option", { value: "" }, "as it looks"),
    h("option", { value: "lines" }, "a list, an item a line"), h("option", { value: "text" }, "running text"));
  const mends = h("div", { class: "row", role: "group", "aria-label": "What to mend while it is read" });
  const doctor = h("section", { hidden: true }, h("h2", {}, "What the doctor says"), about, findings, mends);
  const minutes = h("input", { type: "number", min: 0.1, max: 1440, step: "any", value: 2 });
  const model = h("select", {}, MODELS.map(([value, title]) => h("option", { value }, title)));
  const name = h("input", { type: "text", maxlength: 80, spellcheck: "false", autocomplete: "off" });
  const lines = h("div", { class: "plan" });
  const start = h("button", { type: "button", class: "main", onclick: begin }, "Train");
  const plan = h("section", { hidden: true }, h("h2", {}, "The plan"),
    h("div", { class: "trio" }, field("Minutes", minutes), field("Model", model), field("Name of the result", name)),
    lines, h("div", { class: "row" }, start));
  const live = makeLive((busy) => (start.disabled = busy));

  panel.append(live.element,
    h("section", { class: "source" }, h("h2", {}, "A text to learn from"), file, drop,
      h("div", { class: "pair" }, field("Or one that is here already", there), field("Read it as", kind)), error),
    doctor, plan);

  file.addEventListener("change", () => file.files?.[0] && take(file.files[0]));
  // A file that is dropped beside it is not to take the place of this page.
  for (const event of ["dragover", "drop"]) panel.addEventListener(event, (dragged) => dragged.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  there.addEventListener("change", () => there.value && look(there.value));
  minutes.addEventListener("input", debounce(500, makePlan));
  model.addEventListener("change", makePlan);

  async function take(chosen) {
    dropped.textContent = `Reading ${shown(chosen.name)} …`;
    const found = await attempt(error, () => upload(`/api/texts?name=${encodeURIComponent(chosen.name)}`, chosen));
    dropped.textContent = "Drop a text file here";
    file.value = "";
    if (!found) return;
    await listTexts();
    kind.value = "";
    look(found.name);
  }

  async function listTexts() {
    const found = await attempt(error, () => get("/api/texts"));
    if (!found) return;
    there.replaceChildren(h("option", { value: "" }, "–"), ...found.texts.map((one) =>
      h("option", { value: one.name }, `${shown(one.name)} (${large(one.bytes)} bytes)`)));
    there.value = text;
  }

  /** What the doctor says of a text; then the plan for it. */
  async function look(wanted) {
    if (!wanted) return;
    if (wanted !== text) name.value = wanted.replace(/\.[^.]*$/, "");
    there.value = text = wanted;
    keep.tab.set("train.text", text);
    [doctor.hidden, plan.hidden] = [true, true];
    boxes.clear();
    encoding = null;
    const asked = `${text} ${kind.value}`;
    const found = await attempt(error, () => post("/api/doctor", { text, ...reading() }));
    if (!found || asked !== `${text} ${kind.value}`) return;
    const end = found.lines.indexOf("");
    about.replaceChildren(...found.lines.slice(0, end < 0 ? found.lines.length : end).map((line) => h("p", {}, shown(line))));
    const all = found.findings;
    findings.replaceChildren(...(all.length ? all.map(finding) : [h("li", {}, "Nothing to complain of.")]));
    encoding = all.map(({ mend }) => /^--encoding ([\w-]+)$/.exec(mend)?.[1]).find(Boolean) ?? null;
    for (const { mend } of all) {
      const [option] = MENDS[mend] ?? [];
      if (option && !boxes.has(option)) boxes.set(option, h("input", { type: "checkbox", onchange: makePlan }));
    }
    const titles = Object.fromEntries(Object.values(MENDS));
    mends.replaceChildren(...[...boxes].map(([option, box]) => tick(titles[option], box)));
    [doctor.hidden, plan.hidden] = [false, false];
    makePlan();
  }

  function finding({ sentence, where, example, grave }) {
    const at = [where, example].filter(Boolean).map(shown).join(": ");
    return h("li", { "data-grave": String(grave) }, h("span", { class: "badge" }, grave ? "grave" : "note"),
      h("bdi", {}, shown(sentence)), at && h("bdi", { class: "where" }, at));
  }

  /** How the text is to be read, and mended on the way. */
  const reading = () => ({ ...(kind.value && { kind: kind.value }), ...(encoding && { encoding }),
    ...Object.fromEntries([...boxes].filter(([, box]) => box.checked).map(([option]) => [option, true])) });

  const wishes = () => ({ text, minutes: minutes.valueAsNumber || 2, model: model.value || null, ...reading() });

  /** One plan at a time; when it is there, another if the wishes have changed meanwhile. */
  async function makePlan() {
    if (planning) return;
    planning = true;
    lines.classList.add("waiting");
    for (planned = ""; planned !== JSON.stringify(wishes());) {
      planned = JSON.stringify(wishes());
      const found = await attempt(error, () => post("/api/plan", JSON.parse(planned)));
      drawPlan(found?.lines ?? []);
    }
    planning = false;
    lines.classList.remove("waiting");
  }

  function drawPlan(told) {
    const table = told.some((line) => line.includes("  "));
    lines.replaceChildren(table ? h("pre", { tabindex: 0, "aria-label": "The plan" }, shown(told.join("\n")))
      : h("ul", {}, told.map((line) => h("li", {}, h("bdi", {}, shown(line))))));
  }

  async function begin() {
    start.disabled = true;
    const found = await attempt(error, () => post("/api/training", { ...wishes(), name: name.value.trim() }));
    start.disabled = false;
    if (!found) return;
    live.follow(found);
    live.element.scrollIntoView({ block: "nearest" });
  }

  return {
    async show() {
      live.look();
      await listTexts();
      if (!text) look(keep.tab.get("train.text", ""));
    },
  };
}
