// The columns of a table: one to learn, or those of the inputs and targets of examples.

import { field, select } from "./controls.js";
import { h } from "./dom.js";
import { shown } from "./text.js";

/** Returns the fields; `stored` is what `chosen` returned before a reload, and `onChange` is called at each choice. */
export function makeColumns(stored, onChange) {
  const lists = { column: select([], choose), input: select([], choose), target: select([], choose) };
  const element = h("div", { class: "column-fields", hidden: true }, field("Column to learn", lists.column),
    field("Or inputs of examples", lists.input), field("Targets of examples", lists.target));

  /** A table has one column to learn, or two of examples. */
  function choose({ target }) {
    const excluded = target === lists.column ? [lists.input, lists.target] : [lists.column];
    stored = {};
    if (target.value) for (const list of excluded) list.value = "";
    onChange();
  }

  return {
    element,
    /** Offers columns; none for a text that is no table. */
    show(names) {
      element.hidden = !names.length;
      for (const [option, list] of Object.entries(lists)) {
        const wanted = list.value || stored[option];
        list.replaceChildren(h("option", { value: "" }, "automatic"), ...names.map((name) => h("option", { value: name }, shown(name))));
        list.value = names.includes(wanted) ? wanted : "";
      }
    },
    /** Forgets the choices, which belong to a text. */
    forget() {
      stored = {};
      for (const list of Object.values(lists)) list.value = "";
    },
    /** Returns the choices as fields of a request. */
    chosen: () => Object.fromEntries(
      Object.entries(lists).map(([option, list]) => [option, list.value]).filter(([, value]) => value)),
  };
}
