// Starts the page: loads the models, and shows the view and the model of the address.

import { attempt, get } from "./api.js";
import { errorLine } from "./controls.js";
import { announce, byId, h } from "./dom.js";
import { makeGenerate } from "./generate.js";
import { makeInside } from "./inside.js";
import { makeList } from "./list.js";
import { makePredict } from "./predict.js";
import { browserStorage, currentModel, emit, events, readRoute, route, server, writeRoute } from "./state.js";
import { makeTabs } from "./tabs.js";
import { makeFacts } from "./facts.js";
import { counted, shown } from "./text.js";
import { makeTrain } from "./train.js";

// A model of a list opens with its list.
const VIEWS = [
  { key: "list", title: "List", make: makeList },
  { key: "predict", title: "Predict", make: makePredict },
  { key: "write", title: "Generate", make: makeGenerate },
  { key: "inside", title: "Inspect", make: makeInside },
  { key: "train", title: "Train", make: makeTrain },
];

/** Milliseconds until the list of models is loaded again while the server is loading some. */
const LOADING_INTERVAL = 1000;

const picker = byId("model");
const facts = makeFacts(byId("facts"));
const tabs = makeTabs(byId("tabs"), byId("panels"), VIEWS, (view) => go({ view }, true));
const error = errorLine();
byId("panels").prepend(error);

/** The kinds of models that have a view; the others have it all. */
const KINDS = { list: ["lines"], predict: ["examples"], write: ["lines", "text"] };

const isAvailable = ({ key }) => key === "train" ? server.training
  : server.models.length && (!currentModel() || (KINDS[key]?.includes(currentModel().kind) ?? true));

/** Changes the route and shows its view; `addsEntry` is for the browser's history. */
function go(changes, addsEntry = false) {
  Object.assign(route, changes);
  const available = VIEWS.filter(isAvailable);
  const view = available.find(({ key }) => key === route.view) ?? available[0];
  route.view = view?.key ?? "";
  error.textContent = "";
  tabs.show(route.view, available.map(({ key }) => key));
  writeRoute(addsEntry);
  picker.value = route.model;
  const card = currentModel();
  facts.show(card);
  showMessage(view ? "" : "This server has no models yet.");
  document.title = view ? `${view.title} · ${shown(route.model) || "Moreish"}` : "Moreish";
  if (card || route.view === "train") tabs.views[route.view]?.show(card);
}

function showMessage(text) {
  byId("loading").textContent = text;
  byId("loading").hidden = !text;
}

/** Loads the models and shows the route; with `ifChanged`, only if the models are others. */
async function load(ifChanged = false) {
  const answer = await attempt(error, () => get("/api/models"));
  if (!answer) return;
  if (answer.loading) setTimeout(load, LOADING_INTERVAL, ifChanged);
  const isSame = JSON.stringify({ ...server, loading: 0 }) === JSON.stringify({ ...answer, loading: 0 });
  Object.assign(server, answer);
  if (isSame && (answer.loading || ifChanged)) return;
  byId("version").textContent = `Moreish ${server.version}`;
  picker.replaceChildren(...server.models.map(({ name }) => h("option", { value: name }, shown(name))));
  byId("model-picker").hidden = !server.models.length;
  showRoute();
}

/** Shows the route, with the first model where it names none of the server's. */
function showRoute() {
  if (!currentModel() && server.loading && (route.model || !server.models.length)) {
    return showMessage(`Loading ${counted(server.loading, "model")} …`);
  }
  const missing = currentModel() ? "" : route.model;
  if (!currentModel()) route.model = server.models[0]?.name ?? "";
  go({});
  if (missing) error.textContent = `There is no model “${shown(missing)}” any more.`;
}

picker.addEventListener("change", () => {
  go({ model: picker.value, part: "" }, true);
  announce(`Model: ${shown(route.model)}. ${facts.summary}`);
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
events.addEventListener("models", () => load());
// Another tab may have renamed or deleted models.
events.addEventListener("missing", () => load(true));
document.addEventListener("visibilitychange", () => document.hidden || load(true));
readRoute();
load();
