// How the findings of an audit and the lines of a plan are shown.

import { h } from "./dom.js";
import { inPageTerms } from "./terms.js";
import { shown } from "./text.js";

/** Returns a problem of a text as an item of a list. */
export function finding({ summary, location, example, severity }) {
  const where = [location, example].filter(Boolean).map(shown).join(": ");
  return h("li", { "data-severity": severity }, h("span", { class: "badge" }, severity),
    h("bdi", {}, inPageTerms(shown(summary))), where && h("bdi", { class: "where" }, where));
}

/** Returns the elements that show the lines of a plan. Two or more spaces separate the columns of a table. */
export function planned(lines) {
  if (!lines.some((line) => line.includes("  "))) {
    return [h("ul", {}, lines.map((line) => h("li", {}, h("bdi", {}, inPageTerms(shown(line))))))];
  }
  const end = lines.indexOf("");
  const [first, rest] = end < 0 ? [lines, []] : [lines.slice(0, end), lines.slice(end + 1)];
  return [table(first), rest.length > 0 && h("details", {}, h("summary", {}, "Memory"), table(rest))].filter(Boolean);
}

/** The width of the first column where a term fills it. */
const TERM_WIDTH = 13;

const table = (lines) => h("dl", { class: "terms" }, lines.filter((line) => !line.startsWith(" ")).map((line) => {
  const at = / {2,}/.exec(line)?.index ?? TERM_WIDTH;
  return h("div", {}, h("dt", {}, shown(line.slice(0, at))), h("dd", {}, h("bdi", {}, inPageTerms(shown(line.slice(at).trim())))));
}));
