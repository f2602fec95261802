// State that all views share: the models, the route, the sampling settings, and browser storage.

/** The answer of `/api/models`: the cards of the models, how many more are being loaded, whether the server trains, and its version. */
export const server = { models: [], loading: 0, training: false, version: "" };

/** The current view, model and part of the view, as in the address `#/view/model/part`. */
export const route = { view: "", model: "", part: "" };

export const currentModel = () => server.models.find((card) => card.name === route.model);

export function readRoute() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decode);
  [route.view, route.model, route.part] = [parts[0] ?? "", parts[1] ?? "", parts[2] ?? ""];
}

/** Writes the route to the address; with `addsEntry`, the browser's Back button returns to the previous one. */
export function writeRoute(addsEntry = false) {
  const parts = [route.view, route.model, route.part].map(encodeURIComponent);
  const address = `#/${parts.slice(0, parts.findLastIndex(Boolean) + 1).join("/")}`;
  if (address !== location.hash) history[addsEntry ? "pushState" : "replaceState"](null, "", address);
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

/** Moves what is stored for a model to its new name, and so the route; a deleted model has none. */
export function followRename(name, newName) {
  if (route.model === name) route.model = newName;
  if (!newName) return;
  browserStorage.move(`favorites.${name}`, `favorites.${newName}`);
  for (const kept of ["prompt", "remember", "predict"]) tabStorage.move(`${kept}.${name}`, `${kept}.${newName}`);
}

/**
 * Dispatches "models" (load the list of models again), "missing" (a model is not served any more) and "theme" (the
 * colors have changed).
 */
export const events = new EventTarget();
export const emit = (name) => events.dispatchEvent(new Event(name));

/** The text of the Generate view, which the Attention view shows; `version` increases with each change. */
export const currentText = { model: "", tokens: [], prompt: "", version: 0 };

/** The sampling settings of all views. */
export const sampling = { temperature: 1, top_k: 0, top_p: 1 };

/** Whether the sampling settings leave the model's probabilities unchanged. */
export const isUnchanged = () => sampling.temperature === 1 && !sampling.top_k && sampling.top_p === 1;

/** Returns the sampling settings as fields of a request. */
export const samplingParams = () => ({
  temperature: sampling.temperature,
  top_k: sampling.top_k || null,
  top_p: sampling.top_p < 1 ? sampling.top_p : null,
});

/** Storage until the tab is closed. */
export const tabStorage = makeStorage(() => sessionStorage);

/** Storage that stays in the browser. */
export const browserStorage = makeStorage(() => localStorage);

/** Wraps a storage that may be full, be disabled, or hold the values of another version. */
function makeStorage(getStorage) {
  return {
    get(name, fallback) {
      try {
        const value = JSON.parse(getStorage().getItem(`moreish.${name}`) ?? "null");
        return value === null || (fallback !== null && typeof value !== typeof fallback) ? fallback : value;
      } catch {
        return fallback;
      }
    },
    /** Returns whether the value could be stored. */
    set(name, value) {
      try {
        getStorage().setItem(`moreish.${name}`, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },
    /** Stores a value under another name. */
    move(name, newName) {
      const value = this.get(name, null);
      if (value !== null && this.set(newName, value)) getStorage().removeItem(`moreish.${name}`);
    },
  };
}
