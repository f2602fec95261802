// The runs in the server's folder: use, resume, rename and delete them.

import { errorLine } from "./controls.js";
import { button, h } from "./dom.js";
import { server } from "./state.js";
import { counted, large, shown } from "./text.js";

/** How much longer a finished run is trained. */
const MORE_MINUTES = 2;

const STATUS = { interrupted: "stopped", training: "stopped" };

/** Opens a model in the view that suits it. */
export const open = (name) => (location.hash = `#//${encodeURIComponent(name)}`);

/** Returns the list of runs; `order(action, body)` sends a request and returns whether it succeeded. */
export function makeRuns(order) {
  const title = h("h2", { tabindex: -1 }, "Runs");
  const list = h("ul", { class: "run-list" });
  const error = errorLine();
  const element = h("section", { class: "runs-section", hidden: true }, title, list, error);
  let runs = [];
  let drawn = "";
  /** The buttons that resume runs, by name. */
  const resumeButtons = new Map();

  function draw() {
    const served = server.models.map(({ name }) => name);
    const key = JSON.stringify([runs, served]);
    if (key === drawn) return;
    drawn = key;
    element.hidden = !runs.length;
    resumeButtons.clear();
    list.replaceChildren(...runs.map((run) => {
      const row = h("li");
      showRow(row, run, served.includes(run.name));
      return row;
    }));
  }

  function showRow(row, run, isServed) {
    const name = shown(run.name);
    const tool = (label, onclick, props = {}) => button(label, onclick, { "aria-label": `${label} ${name}`, ...props });
    // A finished run that the server can resume is trained longer.
    const isStopped = run.status in STATUS;
    const minutes = isStopped ? {} : { minutes: MORE_MINUTES };
    const resume = run.can_resume && tool(isStopped ? "Resume" : `Train ${counted(MORE_MINUTES, "minute")} longer`,
      () => order("resume", { name: run.name, ...minutes }));
    if (resume) resumeButtons.set(run.name, resume);
    const buttons = {
      rename: tool("Rename", () => showRename(row, run, () => back("rename")), { class: "quiet" }),
      remove: tool("Delete", () => showDelete(row, run, () => back("remove")), { class: "quiet" }),
    };
    /** Shows the row again, with the focus on the button that was used. */
    function back(used) {
      error.textContent = "";
      showRow(row, run, isServed)[used].focus();
    }
    row.replaceChildren(h("div", {}, h("bdi", { class: "name" }, name), h("p", { class: "hint" }, describe(run))),
      h("div", { class: "row" }, isServed && tool("Play with it", () => open(run.name), { "aria-label": `Play with ${name}` }),
        resume, ...Object.values(buttons)));
    return buttons;
  }

  function showRename(row, run, back) {
    error.textContent = "";
    const input = h("input", { type: "text", maxlength: 60, value: run.name, spellcheck: "false", autocomplete: "off",
      oninput: () => (error.textContent = ""), "aria-label": `New name of ${shown(run.name)}` });
    const form = h("form", { class: "row", onsubmit: async (event) => {
      event.preventDefault();
      if (await order("rename", { name: run.name, new_name: input.value.trim() })) title.focus();
    }, onkeydown: ({ key }) => key === "Escape" && back() }, input, h("button", { type: "submit" }, "Rename"), button("Cancel", back));
    row.replaceChildren(form);
    input.select();
  }

  function showDelete(row, run, back) {
    const cancel = button("Cancel", back);
    row.replaceChildren(h("p", {}, "Delete ", h("bdi", {}, shown(run.name)), " and its model? This cannot be undone."),
      h("div", { class: "row", onkeydown: ({ key }) => key === "Escape" && back() },
        button("Delete", async () => (await order("delete", { name: run.name })) && title.focus(), { class: "danger" }), cancel));
    cancel.focus();
  }

  return {
    element,
    error,
    resumeButtons,
    /** Shows runs; none while one is being trained. */
    show(newRuns) {
      runs = newRuns;
      draw();
    },
  };
}

function describe({ status, model, data, parameters, loss }) {
  if (!status) return "damaged";
  return [shown(model), parameters && `${large(parameters)} parameters`, `trained on ${shown(data)}`,
    loss !== null && `validation loss ${loss.toFixed(3)} nats per token`, STATUS[status] ?? shown(status)].filter(Boolean).join(" · ");
}
