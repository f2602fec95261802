// Heat maps of matrices, inspected with a pointer or the arrow keys.

import { h, onResize, uniqueId } from "./dom.js";
import { events } from "./state.js";

/** Returns the color of a CSS class in a form that a canvas accepts. */
function color(className) {
  const probe = h("span", { class: `probe ${className}`, hidden: true });
  document.body.append(probe);
  const computed = getComputedStyle(probe).color;
  probe.remove();
  return computed;
}

/** Returns red, green and blue of a color, from 0 to 255. */
function channels(className) {
  const context = h("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  context.fillStyle = color(className);
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/** Draws a canvas with one pixel per cell; `strength` returns values from 0 to 1. */
export function pixels(rows, columns, strength) {
  const [low, high] = [channels("cell-low"), channels("cell-high")];
  const canvas = h("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let cell = 0; cell < rows * columns; cell++) {
    const share = Math.min(1, Math.max(0, strength(Math.floor(cell / columns), cell % columns)));
    image.data.set([...low.map((from, i) => from + share * (high[i] - from)), 255], 4 * cell);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Labels are left out in cells of fewer pixels. */
const MIN_LABELED_CELL = 9;
/** In narrower cells, every other label is set back, so that they do not touch. */
const MIN_SINGLE_ROW_CELL = 15;
const MAX_CELL = 32;
const MAX_MARGIN = 28;

/** `describe` returns a description of a cell, and `onInspect` is called when one is inspected. */
export function makeMatrix({ label, describe, onInspect }) {
  const canvas = h("canvas");
  const status = h("p", { class: "visually-hidden", id: uniqueId("cell"), role: "status" });
  const element = h("div", { class: "matrix", tabindex: 0, role: "application", "aria-label": label,
    "aria-roledescription": "heat map; use the arrow keys" }, canvas, status);
  let data = null, image = null, cell = 0, margin = 0, isTight = false, row = 0, column = 0;

  function draw() {
    const width = element.clientWidth;
    if (!data || !width) return;
    const count = data.labels.length;
    const narrowest = width / (count + 2);
    isTight = narrowest < MIN_SINGLE_ROW_CELL;
    margin = narrowest < MIN_LABELED_CELL ? 0 : isTight ? 2 * narrowest : Math.min(MAX_MARGIN, width / (count + 1));
    cell = Math.min(MAX_CELL, (width - margin) / count);
    const ratio = devicePixelRatio || 1;
    const [length, size] = [cell * count, margin + cell * count];
    canvas.width = canvas.height = Math.round(size * ratio);
    canvas.style.setProperty("width", `${size}px`);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    context.drawImage(image, margin, margin, length, length);
    if (margin) drawLabels(context);
    const [left, top] = [margin + column * cell, margin + row * cell];
    context.strokeStyle = color("cell-mark");
    context.lineWidth = 2;
    context.strokeRect(left, top, cell, cell);
    context.lineWidth = 1;
    context.globalAlpha = 0.5;
    context.strokeRect(margin, top, length, cell);
    context.strokeRect(left, margin, cell, length);
  }

  function drawLabels(context) {
    context.fillStyle = color("cell-label");
    context.font = `${Math.min(13, cell - 1)}px ${getComputedStyle(element).fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const write = (text, x, y, room) => {
      const short = text.length > 4 ? `${text.slice(0, 3)}…` : text;
      // Letters that are squeezed to less than half of their width cannot be read.
      context.fillText(context.measureText(short).width > 2 * room ? "…" : short, x, y, room);
    };
    data.labels.forEach((text, at) => {
      const center = margin + (at + 0.5) * cell;
      const middle = margin * (isTight ? (at % 2 ? 0.25 : 0.75) : 0.5);
      write(text, middle, center, isTight ? cell - 2 : margin - 2);
      write(text, center, middle, isTight ? 2 * cell - 4 : cell - 2);
    });
  }

  function inspect(toRow, toColumn) {
    [row, column] = [toRow, toColumn].map((to) => Math.max(0, Math.min(data.labels.length - 1, to)));
    draw();
    onInspect(row, column);
  }

  for (const type of ["pointermove", "pointerdown"]) {
    element.addEventListener(type, (event) => {
      const box = canvas.getBoundingClientRect();
      const [toRow, toColumn] = [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at - margin) / cell));
      if (data && toRow >= 0 && toColumn >= 0 && (toRow !== row || toColumn !== column)) inspect(toRow, toColumn);
    });
  }
  element.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move || !data) return;
    event.preventDefault();
    inspect(row + move[0], column + move[1]);
    status.textContent = describe(row, column);
  });
  onResize(element, draw);

  /** Shows a square matrix: { labels, strength }, where strength(row, column) is from 0 to 1. */
  function set(newData) {
    data = newData;
    const last = data.labels.length - 1;
    image = pixels(last + 1, last + 1, data.strength);
    [row, column] = [Math.min(row, last), Math.min(column, last)];
    draw();
  }
  events.addEventListener("theme", () => data && set(data));

  return {
    element,
    set,
    /** Marks a cell. */
    mark(toRow, toColumn) {
      [row, column] = [toRow, toColumn];
      draw();
    },
  };
}
