// Elements out of values. Nothing here makes markup out of text, so text stays text.

const SVG = "http://www.w3.org/2000/svg";

/** What is set as a property: an attribute would only be the first value. */
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected"]);

/**
 * An element: h("p", {class: "hint", onclick: f}, "text", child).
 * Props that are null, undefined or false are left out, as are such children.
 * @param {string} tag
 * @param {Record<string, any>} [props] attributes; `on…` listeners; `vars`, custom CSS properties
 * @param {...any} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. @returns {any} */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "vars") setVars(element, value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Custom CSS properties; the policy of this page allows no style attributes. */
export function setVars(element, vars) {
  for (const [name, value] of Object.entries(vars)) element.style.setProperty(`--${name}`, String(value));
}

/** @returns {any} */
export const byId = (id) => document.getElementById(id);

let numbered = 0;
/** An id that is used nowhere else. */
export const fresh = (name) => `${name}-${++numbered}`;

const canHaveFocus = (one) => one.isConnected && !one.disabled && one.checkVisibility();

/** Does what may hide, disable or replace the element that has the focus: then the first of `others` gets it that can. */
export function keepFocus(work, ...others) {
  const focused = document.activeElement;
  work();
  if (focused && focused !== document.body && !canHaveFocus(focused)) others.find((one) => one && canHaveFocus(one))?.focus();
}

/** The last call, once no other has come for so many milliseconds. */
export function debounce(wait, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(work, wait, ...given);
  };
}

/** At most once a frame, with the latest arguments. */
export function eachFrame(work) {
  let given = null;
  return (...latest) => {
    if (given === null) {
      requestAnimationFrame(() => {
        const now = given ?? [];
        given = null;
        work(...now);
      });
    }
    given = latest;
  };
}

/** Calls `draw(width)` when the element gets another width, once it is seen. */
export function whenWide(element, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.floor(element.clientWidth);
    if (width && width !== last) draw((last = width));
  }).observe(element);
}

/** Tells those who listen to the page; sparingly. */
export function say(text) {
  byId("say").textContent = text;
}

/** Text to the clipboard; whether that went well. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No permission, or no https on another machine: the old way.
    const area = h("textarea", { value: text, class: "unseen", readonly: true });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const went = document.execCommand("copy");
    area.remove();
    if (!went) return say("Copying failed."), false;
  }
  say("Copied.");
  return true;
}

/** A button that copies what `text()` gives, and says that it did. */
export function copyButton(text) {
  const button = h("button", { type: "button", onclick: async () => {
    if (!(await copy(text()))) return;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  } }, "Copy");
  return button;
}

/** Has the browser save a text as a file. */
export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
