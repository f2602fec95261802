// Line charts and scatter plots in SVG.

import { h, onResize, svg } from "./dom.js";
import { compact } from "./text.js";

const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** Returns about `count` ticks, whose distance is 1, 2 or 5 times a power of ten. */
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? rough;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** Returns powers of ten and, if there is room, 2 and 5 times those. */
function logTicks(low, high, count) {
  const decades = Math.log10(high / low);
  const first = Math.floor(Math.log10(low));
  const powers = Array.from({ length: Math.ceil(decades) + 2 }, (_, i) => 10 ** (first + i));
  const factors = 3 * decades <= count ? [1, 2, 5] : [1];
  return powers.flatMap((power) => factors.map((factor) => factor * power))
    .filter((x) => x >= low * 0.999 && x <= high * 1.001);
}

/** Replaces groups of neighboring points by their means, so that at most `count` points remain. */
export function thinned(points, count) {
  const size = Math.ceil(points.length / count) || 1;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const group = points.slice(i * size, (i + 1) * size);
    return [0, 1].map((axis) => group.reduce((sum, point) => sum + point[axis], 0) / group.length);
  });
}

/** Returns the point nearest to x, or null if the curve ends before it. */
function nearest(points, x) {
  if (x > points.at(-1)[0] * 1.02) return null;
  return points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));
}

const picture = (width, height, ...children) =>
  svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" }, ...children);

const MARGIN = { top: 22, right: 14, bottom: 42, left: 44 };

/** Returns a chart of curves, with a cursor that follows the pointer or the arrow keys. */
export function makeLines({ label, x: xName, y: yName, height = 300, onInspect }) {
  const readout = h("p", { class: "readout values", role: "status" });
  const box = h("div", { class: "chart", tabindex: 0, role: "application", "aria-label": label,
    "aria-roledescription": "chart; use the arrow keys" });
  let series = [], cursor = null, isLog = false;

  const onAxis = (x) => (isLog ? Math.log10(x) : x);

  function ranges() {
    const points = series.flatMap((curve) => curve.points);
    const xs = points.map(([x]) => x).filter((x) => !isLog || x > 0);
    // Without the highest 0.5 %: a few wild steps at the start must not flatten the rest.
    const ys = points.map(([, y]) => y).sort((a, b) => a - b);
    const [low, high] = [ys[0], ys[Math.floor(ys.length * 0.995)]];
    const spare = 0.06 * (high - low || 1);
    return { x: [Math.min(...(isLog ? [] : [0]), ...xs), Math.max(...xs) || 1], y: [low - spare, high + spare] };
  }

  function draw() {
    const width = box.clientWidth;
    if (!width) return;
    if (!series.length) return box.replaceChildren();
    const [innerWidth, innerHeight] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    const range = ranges();
    const [first, last] = range.x.map(onAxis);
    const px = (x) => MARGIN.left + (Math.max(0, onAxis(x) - first) / (last - first || 1)) * innerWidth;
    const py = (y) => MARGIN.top + Math.max(0, 1 - (y - range.y[0]) / (range.y[1] - range.y[0])) * innerHeight;
    const dot = ([x, y], color, r) => svg("circle", { class: `dot c${color}`, cx: px(x), cy: py(y), r });
    const marks = ticks(...range.y, innerHeight / 50).flatMap((y) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: py(y), y2: py(y) }),
      svg("text", { class: "tick y", x: MARGIN.left - 8, y: py(y) }, Math.abs(y) < 1e4 ? fine.format(y) : compact(y)),
    ]);
    for (const x of (isLog ? logTicks : ticks)(...range.x, innerWidth / 90)) {
      marks.push(svg("text", { class: "tick x", x: px(x), y: height - MARGIN.bottom + 18 }, compact(x)));
    }
    for (const { points, color, faint, dots } of series) {
      const path = points.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
      marks.push(svg("path", { class: `curve c${color}${faint ? " faint" : ""}`, d: path }));
      if (dots && points.length <= 60) marks.push(...points.map((point) => dot(point, color, 3)));
    }
    if (cursor !== null) {
      marks.push(svg("line", { class: "cursor", x1: px(cursor), x2: px(cursor), y1: MARGIN.top, y2: height - MARGIN.bottom }));
      for (const { points, color } of series) {
        const near = nearest(points, cursor);
        if (near) marks.push(dot(near, color, 4.5));
      }
    }
    const image = picture(width, height, svg("text", { class: "axis", x: 0, y: 10 }, yName), marks,
      svg("text", { class: "axis", x: width - MARGIN.right, y: height - 4, "text-anchor": "end" },
        isLog ? `${xName}, logarithmic` : xName));
    image.addEventListener("pointermove", (event) =>
      inspect((event.clientX - image.getBoundingClientRect().left - MARGIN.left) / innerWidth));
    box.replaceChildren(image);
  }

  /** Moves the cursor to a fraction of the x-axis. */
  function inspect(fraction) {
    const [first, last] = ranges().x.map(onAxis);
    const to = first + Math.min(1, Math.max(0, fraction)) * (last - first);
    cursor = isLog ? 10 ** to : to;
    draw();
    const values = series.map(({ name, points, color }) => {
      const near = nearest(points, cursor);
      return near && h("span", { class: `value c${color}` }, h("bdi", {}, name), ` ${near[1].toFixed(3)}`);
    });
    readout.replaceChildren(h("span", { class: "value" }, `${compact(Math.round(cursor))} ${xName}`),
      ...values.filter(Boolean));
    onInspect?.(cursor);
  }

  box.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!direction || !series.length) return;
    event.preventDefault();
    const [first, last] = ranges().x.map(onAxis);
    inspect((cursor === null ? 1 : (onAxis(cursor) - first) / (last - first || 1)) + direction / 50);
  });
  onResize(box, draw);

  return {
    element: h("div", {}, box, readout),
    /**
     * Shows curves: { name, points, color, faint, dots }, with at least one point each.
     * The axes may get new names, and the x-axis may become logarithmic.
     */
    set(curves, { x = xName, y = yName, log = isLog } = {}) {
      series = curves;
      if (x !== xName || y !== yName || log !== isLog) {
        [xName, yName, isLog, cursor] = [x, y, log, null];
        readout.textContent = "";
      }
      draw();
    },
  };
}

/** Returns a scatter plot of points: { x, y, name, size }, the most important first. A name is shown if there is room. */
export function makeScatter({ label, onInspect }) {
  const element = h("div", { class: "chart scatter", role: "img", "aria-label": label });
  let points = [], marks = [], marked = null;

  function draw() {
    const width = element.clientWidth;
    if (!width || !points.length) return;
    const height = Math.round(Math.min(0.72 * width, 620));
    const scale = (values, start, end) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return (value) => start + ((value - low) / (high - low || 1)) * (end - start);
    };
    const margin = points.some(({ name }) => [...name].length > 2) ? 52 : 24;
    const px = scale(points.map(({ x }) => x), margin, width - margin);
    const py = scale(points.map(({ y }) => y), height - 24, 24);
    const placed = [];
    marks = points.map(({ x, y, name, size }) => {
      const [left, top, length] = [px(x), py(y), [...name].length];
      const half = 4 + 4.2 * length;
      const isFree = !placed.some((other) => Math.abs(other.left - left) < half + other.half && Math.abs(other.top - top) < 15);
      if (isFree) placed.push({ left, top, half });
      return svg("g", { class: `point${isFree ? "" : " bare"}${length > 2 ? " word" : ""}`,
        transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})` },
      svg("circle", { r: isFree ? 11 : 2 + 2 * size }), svg("text", {}, name));
    });
    // The last element is on top.
    const image = picture(width, height, marks.toReversed());
    const inspectNearest = (event) => {
      const box = image.getBoundingClientRect();
      const distances = points.map(({ x, y }) => Math.hypot(px(x) - event.clientX + box.left, py(y) - event.clientY + box.top));
      const smallest = Math.min(...distances);
      onInspect(smallest < 40 ? distances.indexOf(smallest) : null);
    };
    image.addEventListener("pointermove", inspectNearest);
    image.addEventListener("pointerdown", inspectNearest);
    element.replaceChildren(image);
    mark(marked);
  }

  function mark(at) {
    marks[marked]?.classList.remove("marked");
    marked = at;
    marks[at]?.classList.add("marked");
    marks[at]?.parentNode.append(marks[at]);
  }

  onResize(element, draw);

  return {
    element,
    set(newPoints) {
      [points, marked] = [newPoints, null];
      draw();
    },
    mark,
  };
}
