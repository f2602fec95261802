// Tables of numbers as tinted squares, which a pointer or the arrow keys look into.

import { fresh, h, whenWide } from "./dom.js";
import { events } from "./state.js";

/** A custom property of the page's style, as a color that a canvas takes. */
export function color(name) {
  const probe = h("span", { class: `probe ${name}`, hidden: true });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Red, green and blue of a color, 0 to 255. */
function channels(name) {
  const context = h("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  context.fillStyle = color(name);
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/** A picture with a pixel for each cell; `strength` is from 0 to 1. */
export function pixels(rows, columns, strength) {
  const [low, high] = [channels("cell-low"), channels("cell-high")];
  const canvas = h("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = 4 * (row * columns + column);
      const share = Math.min(1, Math.max(0, strength(row, column)));
      for (let i = 0; i < 3; i++) image.data[at + i] = low[i] + share * (high[i] - low[i]);
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Labels are left out where they would be smaller than this. */
const LEGIBLE = 9;

/**
 * @param {object} options
 * @param {string} options.label
 * @param {(row: number, column: number) => string} options.describe a cell in words
 * @param {(row: number, column: number) => void} options.looked
 * @param {number} [options.most] pixels that a cell is wide at the most
 */
export function makeMatrix({ label, describe, looked, most = 32 }) {
  const canvas = h("canvas", {});
  const about = h("p", { class: "unseen", id: fresh("cell"), role: "status" });
  const element = h("div", { class: "matrix", tabindex: 0, role: "application", "aria-label": label,
    "aria-roledescription": "heat map; use the arrow keys" }, canvas, about);
  let data = null, image = null, cell = 0, margin = 0, row = 0, column = 0, width = 0;

  function draw() {
    if (!data || !width) return;
    const { rows, columns } = data;
    const count = Math.max(rows.length, columns.length);
    margin = width / (count + 2) >= LEGIBLE ? Math.min(28, width / (count + 1)) : 0;
    cell = Math.min(most, (width - margin) / count);
    const ratio = devicePixelRatio || 1;
    const [wide, high] = [margin + cell * columns.length, margin + cell * rows.length];
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
    canvas.style.setProperty("width", `${wide}px`);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    context.drawImage(image, margin, margin, wide - margin, high - margin);
    if (margin) labels(context, rows, columns);
    context.strokeStyle = color("cell-mark");
    context.lineWidth = 2;
    context.strokeRect(margin + column * cell, margin + row * cell, cell, cell);
    context.lineWidth = 1;
    context.globalAlpha = 0.5;
    context.strokeRect(margin, margin + row * cell, wide - margin, cell);
    context.strokeRect(margin + column * cell, margin, cell, high - margin);
  }

  function labels(context, rows, columns) {
    context.fillStyle = color("cell-label");
    context.font = `${Math.min(13, cell - 1)}px ${getComputedStyle(element).fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const write = (text, x, y, room) => {
      const short = text.length > 4 ? `${text.slice(0, 3)}…` : text;
      // Letters that are squeezed to less than half of their width cannot be read.
      context.fillText(context.measureText(short).width > 2 * room ? "…" : short, x, y, room);
    };
    rows.forEach((text, at) => write(text, margin / 2, margin + (at + 0.5) * cell, margin - 2));
    columns.forEach((text, at) => write(text, margin + (at + 0.5) * cell, margin / 2, cell - 2));
  }

  function look(toRow, toColumn, aloud) {
    if (!data) return;
    row = Math.max(0, Math.min(data.rows.length - 1, toRow));
    column = Math.max(0, Math.min(data.columns.length - 1, toColumn));
    draw();
    if (aloud) about.textContent = describe(row, column);
    looked(row, column);
  }

  element.addEventListener("pointermove", point);
  element.addEventListener("pointerdown", point);
  function point(event) {
    const box = canvas.getBoundingClientRect();
    const at = [event.clientY - box.top - margin, event.clientX - box.left - margin].map((far) => Math.floor(far / cell));
    if (at[0] >= 0 && at[1] >= 0 && (at[0] !== row || at[1] !== column)) look(at[0], at[1], false);
  }
  element.addEventListener("keydown", (event) => {
    const way = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault();
    look(row + way[0], column + way[1], true);
  });
  whenWide(element, (wide) => {
    width = wide;
    draw();
  });
  events.addEventListener("theme", () => {
    if (!data) return;
    image = pixels(data.rows.length, data.columns.length, data.strength);
    draw();
  });

  return {
    element,
    /** @param {{rows: string[], columns: string[], strength: (row: number, column: number) => number}} wanted */
    set(wanted) {
      data = wanted;
      image = pixels(data.rows.length, data.columns.length, data.strength);
      [row, column] = [Math.min(row, data.rows.length - 1), Math.min(column, data.columns.length - 1)];
      draw();
    },
    /** Mark a cell without telling anybody. */
    mark(toRow, toColumn) {
      [row, column] = [toRow, toColumn];
      draw();
    },
  };
}
