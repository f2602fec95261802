// Helpers that create and update elements. None of them parses text as markup.

/** These are set as properties: an attribute would only set the initial value. */
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden"]);

const isPresent = (value) => value !== null && value !== undefined && value !== false;

/**
 * Creates an element from attributes, listeners named `on…`, and children:
 * h("p", { class: "hint", onclick: f }, "text", child). Null, undefined and false are skipped.
 */
export const h = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);

/** Creates an SVG element; the arguments are those of `h`. */
export const svg = (tag, props = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (!isPresent(value)) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter(isPresent));
  return element;
}

export const button = (label, onclick, props = {}) => h("button", { type: "button", onclick, ...props }, label);

/** Sets a custom CSS property to a number; the content security policy allows no style attributes. */
export const setVar = (element, name, number) => element.style.setProperty(`--${name}`, number.toFixed(4));

export const byId = (id) => document.getElementById(id);

let idCount = 0;
export const uniqueId = (prefix) => `${prefix}-${++idCount}`;

const isFocusable = (element) => element.isConnected && !element.disabled && element.checkVisibility();

/** Runs work that may hide, disable or replace the focused element; if so, focuses the first usable fallback. */
export function keepFocus(work, ...fallbacks) {
  const focused = document.activeElement;
  work();
  if (!focused || focused === document.body || isFocusable(focused)) return;
  fallbacks.find((element) => element && isFocusable(element))?.focus();
}

/** Delays a function until it has not been called for some milliseconds. */
export function debounce(milliseconds, work) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

/** Calls a function when the element is shown and whenever its width changes. */
export function onResize(element, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    if (width) draw();
  }).observe(element);
}

/** Announces a text to screen readers. */
export const announce = (text) => (byId("announcer").textContent = text);

/** Returns a button that copies the text that `getText` returns. */
export function copyButton(getText) {
  const element = button("Copy", async () => {
    const copied = await copy(getText());
    announce(copied ? "Copied." : "Copying failed.");
    if (!copied) return;
    element.textContent = "Copied";
    setTimeout(() => (element.textContent = "Copy"), 1500);
  });
  return element;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The clipboard API needs permission and, on other machines, https; selecting the text does not.
    const area = h("textarea", { value: text, class: "visually-hidden", readonly: true });
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Offers a text as a download. */
export const downloadText = (name, text) => downloadBlob(name, new Blob([text], { type: "text/plain;charset=utf-8" }));

/** Offers a file as a download. */
export function downloadBlob(name, blob) {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
