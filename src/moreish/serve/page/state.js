// What all views share: which models there are, which is looked at, and what the browser keeps.

/**
 * @typedef {{name: string, kind: "lines" | "text", architecture: string, parameters: number,
 *   tokenizer: string, vocabulary: number, context: number, layers: number | null,
 *   heads: number | null, data: string, losses: {train: number | null, val: number | null} | null,
 *   bits_per_byte: number | null, has: Record<"data" | "attention" | "embedding" | "pairs" | "novelty" | "history",
 *   boolean>}} ModelCard
 */

/** @type {{models: ModelCard[], training: boolean, version: string}} */
export const server = { models: [], training: false, version: "" };

/** Where the user is; the address keeps it. */
export const here = { view: "write", model: "", part: "" };

/** @returns {ModelCard | undefined} */
export const model = () => server.models.find((card) => card.name === here.model);

/** `#/view/model/part`, as far as it makes sense. */
export function readAddress() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  [here.view, here.model, here.part] = [parts[0] || "write", parts[1] ?? "", parts[2] ?? ""];
}

/** @param {boolean} [another] a view that the browser's Back is to leave again */
export function writeAddress(another = false) {
  const parts = [here.view, here.model, here.part].map(encodeURIComponent);
  while (parts.at(-1) === "") parts.pop();
  const address = `#/${parts.join("/")}`;
  if (address === location.hash) return;
  if (another) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return "";
  }
}

/** "change": another model or view; "back": the server answers again; "models": look again. */
export const events = new EventTarget();
export const tell = (name) => events.dispatchEvent(new Event(name));

/**
 * The text of Write as it is now, to be looked into: its tokens, or where there are none yet, what it
 * is to begin with. `changes` counts.
 * @type {{of: string, tokens: any[], beginning: string, changes: number}}
 */
export const currentText = { of: "", tokens: [], beginning: "", changes: 0 };

/** How tokens are drawn, in every view. */
export const sampling = { temperature: 1, top_k: 0, top_p: 1 };

/** The sampling in the words of a request. */
export const samplingParams = () => ({
  temperature: sampling.temperature,
  top_k: sampling.top_k || null,
  top_p: sampling.top_p < 1 ? sampling.top_p : null,
});

/** Things that the browser keeps: `keep.tab` until the tab is closed, `keep.long` for good. */
export const keep = { tab: kept(() => sessionStorage), long: kept(() => localStorage) };

/** A storage that may be full, switched off, or hold what another version wrote. */
function kept(storage) {
  return {
    /** @returns {any} */
    get(name, otherwise) {
      try {
        const found = JSON.parse(storage().getItem(`moreish.${name}`) ?? "null");
        return found === null || typeof found !== typeof otherwise ? otherwise : found;
      } catch {
        return otherwise;
      }
    },
    set(name, value) {
      try {
        storage().setItem(`moreish.${name}`, JSON.stringify(value));
        return true;
      } catch {
        return false;
      }
    },
    /** Tells what another tab has changed. @param {(name: string) => void} work */
    changed(work) {
      addEventListener("storage", ({ key }) => key?.startsWith("moreish.") && work(key.slice("moreish.".length)));
    },
  };
}
