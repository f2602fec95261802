// What starts the page: the models, the tabs, and which of them is seen.

import { attempt, get } from "./api.js";
import { errorLine } from "./controls.js";
import { byId, h, keepFocus, say } from "./dom.js";
import { makeInside } from "./inside.js";
import { makeList } from "./list.js";
import { events, here, keep, model, readAddress, server, writeAddress } from "./state.js";
import { makeTabs } from "./tabs.js";
import { counted, large, shown, whole } from "./text.js";
import { makeTrain } from "./train.js";
import { makeGenerate } from "./generate.js";

const VIEWS = [
  { key: "write", title: "Generate", make: makeGenerate },
  { key: "list", title: "List", make: makeList },
  { key: "inside", title: "Inspect", make: makeInside },
  { key: "train", title: "Train", make: makeTrain },
];

const picker = byId("model");
const tabs = makeTabs(byId("tabs"), byId("panels"), VIEWS, (view) => go({ view }, true));
const views = Object.fromEntries(VIEWS.map(({ key, make }) => [key, make(tabs.panel(key))]));
const error = errorLine();
byId("panels").prepend(error);

/** Go to another model or view; whether Back is to come back from there. */
function go(to, another = false) {
  Object.assign(here, to);
  const offered = VIEWS.map(({ key }) => key).filter((key) =>
    key === "train" ? server.training : key === "list" ? model()?.kind === "lines" : server.models.length);
  if (!offered.includes(here.view)) here.view = offered[0] ?? "";
  tabs.offer(offered);
  // Back may hide the view in which the focus is.
  keepFocus(() => tabs.choose(here.view), byId("tabs").querySelector("[aria-selected=true]"));
  writeAddress(another);
  picker.value = here.model;
  describe();
  byId("wait").textContent = offered.length ? "" : "This server has no models yet.";
  byId("wait").hidden = offered.length > 0;
  const view = VIEWS.find(({ key }) => key === here.view);
  document.title = view ? `${view.title} · ${shown(here.model) || "Moreish"}` : "Moreish";
  const card = model();
  if (view && (card || view.key === "train")) views[view.key].show(card);
}

/** The model in a line. */
function describe() {
  const card = model();
  if (!card) return byId("facts").replaceChildren();
  const { losses } = card;
  const facts = [
    ["", shown(card.layers ? `${card.architecture}, ${counted(card.layers, "layer")}, ${counted(card.heads, "head")}` : card.architecture)],
    ["", `${large(card.parameters)} parameters`],
    ["trained on ", h("bdi", {}, shown(card.data))],
    ["", `vocabulary ${whole(card.vocabulary)} (${shown(card.tokenizer)})`],
    ["", `context ${whole(card.context)}`],
    losses.val === null ? null : ["loss ", `${losses.val.toFixed(3)}${
      losses.train === null ? "" : ` (training ${losses.train.toFixed(3)})`} nats per token`],
    card.bits_per_byte === null ? null : ["", `${card.bits_per_byte.toFixed(3)} bits per byte`],
  ];
  byId("facts").replaceChildren(...facts.filter(Boolean).map(([name, value]) =>
    h("span", {}, name && h("span", { class: "name" }, name), value)));
}

async function load() {
  const found = await attempt(error, () => get("/api/models"));
  if (!found) return;
  Object.assign(server, found);
  byId("version").textContent = `Moreish ${server.version}`;
  picker.replaceChildren(...server.models.map(({ name }) => h("option", { value: name }, shown(name))));
  picker.disabled = !server.models.length;
  if (!model()) here.model = server.models[0]?.name ?? "";
  go({});
}

picker.addEventListener("change", () => {
  go({ model: picker.value, part: "" });
  say(`Model: ${shown(here.model)}. ${byId("facts").textContent}`);
});

const theme = byId("theme");
theme.value = keep.long.get("theme", "");
theme.addEventListener("change", () => {
  keep.long.set("theme", theme.value);
  document.documentElement.dataset.theme = theme.value;
  events.dispatchEvent(new Event("theme"));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => events.dispatchEvent(new Event("theme")));

addEventListener("hashchange", () => {
  readAddress();
  if (!model()) here.model = server.models[0]?.name ?? "";
  go({});
});
events.addEventListener("back", load);
events.addEventListener("models", load);
readAddress();
load();
