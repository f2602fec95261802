// Starts the page: loads the models, and shows the view and the model of the address.

import { attempt, get } from "./api.js";
import { errorLine } from "./controls.js";
import { announce, byId, h } from "./dom.js";
import { makeGenerate } from "./generate.js";
import { makeInside } from "./inside.js";
import { makeList } from "./list.js";
import { browserStorage, currentModel, emit, events, readRoute, route, server, writeRoute } from "./state.js";
import { makeTabs } from "./tabs.js";
import { counted, large, shown, whole } from "./text.js";
import { makeTrain } from "./train.js";

const VIEWS = [
  { key: "write", title: "Generate", make: makeGenerate },
  { key: "list", title: "List", make: makeList },
  { key: "inside", title: "Inspect", make: makeInside },
  { key: "train", title: "Train", make: makeTrain },
];

const picker = byId("model");
const tabs = makeTabs(byId("tabs"), byId("panels"), VIEWS, (view) => go({ view }, true));
const error = errorLine();
byId("panels").prepend(error);

const isAvailable = ({ key }) =>
  key === "train" ? server.training : key === "list" ? currentModel()?.kind === "lines" : server.models.length;

/** Changes the route and shows its view; `addsEntry` is for the browser's history. */
function go(changes, addsEntry = false) {
  Object.assign(route, changes);
  const available = VIEWS.filter(isAvailable);
  const view = available.find(({ key }) => key === route.view) ?? available[0];
  route.view = view?.key ?? "";
  tabs.show(route.view, available.map(({ key }) => key));
  writeRoute(addsEntry);
  picker.value = route.model;
  const card = currentModel();
  byId("facts").replaceChildren(...(card ? facts(card) : []).map((fact) => h("span", {}, fact)));
  byId("loading").textContent = view ? "" : "This server has no models yet.";
  byId("loading").hidden = Boolean(view);
  document.title = view ? `${view.title} · ${shown(route.model) || "Moreish"}` : "Moreish";
  if (card || route.view === "train") tabs.views[route.view]?.show(card);
}

/** Describes a model in one line. */
function facts({ architecture, layers, heads, parameters, data, vocabulary, tokenizer, context, losses, bits_per_byte }) {
  const training = losses.train === null ? "" : ` (training ${losses.train.toFixed(3)})`;
  return [
    shown(architecture) + (layers ? `, ${counted(layers, "layer")}, ${counted(heads, "head")}` : ""),
    `${large(parameters)} parameters`,
    ["trained on ", h("bdi", {}, shown(data))],
    `vocabulary ${whole(vocabulary)} (${shown(tokenizer)})`,
    `context ${whole(context)}`,
    losses.val !== null && `loss ${losses.val.toFixed(3)}${training} nats per token`,
    bits_per_byte !== null && `${bits_per_byte.toFixed(3)} bits per byte`,
  ].filter(Boolean);
}

async function load() {
  const answer = await attempt(error, () => get("/api/models"));
  if (!answer) return;
  Object.assign(server, answer);
  byId("version").textContent = `Moreish ${server.version}`;
  picker.replaceChildren(...server.models.map(({ name }) => h("option", { value: name }, shown(name))));
  picker.disabled = !server.models.length;
  showRoute();
}

/** Shows the route, with the first model where it names none of the server's. */
function showRoute() {
  if (!currentModel()) route.model = server.models[0]?.name ?? "";
  go({});
}

picker.addEventListener("change", () => {
  go({ model: picker.value, part: "" });
  announce(`Model: ${shown(route.model)}. ${byId("facts").textContent}`);
});

const theme = byId("theme");
theme.value = browserStorage.get("theme", "");
theme.addEventListener("change", () => {
  browserStorage.set("theme", theme.value);
  document.documentElement.dataset.theme = theme.value;
  emit("theme");
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => emit("theme"));

addEventListener("hashchange", () => {
  readRoute();
  showRoute();
});
events.addEventListener("models", load);
readRoute();
load();
