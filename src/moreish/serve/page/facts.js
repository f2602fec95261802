// What a model has learned from, in one line, with details on demand.

import { h } from "./dom.js";
import { compact, counted, shown, whole } from "./text.js";

/** Shows the facts of a model in a <details> element. */
export function makeFacts(element) {
  const [line, list] = element.children;
  const close = () => (element.open = false);
  element.addEventListener("keydown", ({ key }) => key === "Escape" && close());
  addEventListener("pointerdown", ({ target }) => !element.contains(target) && close());
  return {
    /** The text of the line. */
    get summary() {
      return line.textContent;
    },
    /** Shows a model; nothing without one. */
    show(card) {
      element.hidden = !card;
      const size = card && `${compact(card.parameters)} parameters`;
      line.replaceChildren(...(card ? [h("span", {}, ...origin(card)), h("span", {}, size)] : []));
      list.replaceChildren(...(card ? details(card) : []).map(([name, ...value]) =>
        h("div", {}, h("dt", {}, name), h("dd", {}, ...value))));
    },
  };
}

/** Says what a model has learned from: "Learned from 32,178 names". */
function origin({ kind, data, documents, characters }) {
  const name = h("bdi", {}, shown(data));
  if (!characters) return ["Imported from ", name];
  if (kind === "examples") return [`Learned from ${whole(documents)} examples of `, name];
  if (kind === "text") return [`Learned from ${compact(characters)} characters of `, name];
  // A list is often named after its items.
  return /^[a-z]+s$/.test(data) ? [`Learned from ${whole(documents)} `, name] : [`Learned from ${whole(documents)} lines of `, name];
}

function details({ architecture, layers, heads, parameters, vocabulary, tokenizer, context, memory, losses, bits_per_byte }) {
  const inNats = (loss) => `${loss.toFixed(3)} nats per token`;
  return [
    ["Model", h("bdi", {}, shown(architecture)), layers && `, ${counted(layers, "layer")}, ${counted(heads, "head")}`],
    ["Parameters", whole(parameters)],
    ["Vocabulary", `${whole(vocabulary)} tokens (`, h("bdi", {}, shown(tokenizer)), ")"],
    ["Context", counted(context, "token")],
    memory > 0 && ["Memory", `${counted(memory, "token")} of recent text`],
    losses.val !== null && ["Validation loss", inNats(losses.val), bits_per_byte !== null && `, ${bits_per_byte.toFixed(3)} bits per byte`],
    losses.train !== null && ["Training loss", inNats(losses.train)],
    ["Uniform guess", inNats(Math.log(vocabulary))],
  ].filter(Boolean);
}
