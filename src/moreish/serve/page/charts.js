// Curves and scattered points, drawn by hand in SVG.

import { h, svg, whenWide } from "./dom.js";

/** Steps between ticks that people count in: 1, 2 or 5 times a power of ten. */
function ticks(low, high, about) {
  const rough = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough) ?? rough;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** Powers of ten between two numbers, and where there is room twice and five times those. */
function logTicks(low, high, about) {
  const powers = Array.from({ length: Math.ceil(Math.log10(high / low)) + 2 }, (_, i) => 10 ** (Math.floor(Math.log10(low)) + i));
  const times = 3 * Math.log10(high / low) <= about ? [1, 2, 5] : [1];
  return powers.flatMap((power) => times.map((some) => some * power)).filter((x) => x >= low * 0.999 && x <= high * 1.001);
}

/** At most so many points: the mean of each stretch. */
export function thinned(points, most) {
  if (points.length <= most) return points;
  const size = Math.ceil(points.length / most);
  const means = [];
  for (let at = 0; at < points.length; at += size) {
    const some = points.slice(at, at + size);
    means.push([0, 1].map((i) => some.reduce((sum, point) => sum + point[i], 0) / some.length));
  }
  return means;
}

const MARGIN = { top: 22, right: 14, bottom: 42, left: 44 };

/**
 * Curves over one axis, with a line that a pointer or the arrow keys move.
 * @param {{label: string, x: string, y: string, height?: number, looked?: (x: number) => void}} options
 */
export function makeLines({ label, x: xName, y: yName, height = 300, looked }) {
  const readout = h("p", { class: "readout values", role: "status" });
  const box = h("div", { class: "chart", tabindex: 0, role: "application", "aria-label": label,
    "aria-roledescription": "chart; use the arrow keys" });
  const element = h("div", {}, box, readout);
  /** @type {{name: string, points: number[][], color: number, faint?: boolean, marks?: boolean}[]} */
  let series = [];
  let width = 0, at = null;
  /** Whether a step to the right multiplies. */
  let log = false;

  const along = (x) => (log ? Math.log10(x) : x);
  const inner = () => ({ wide: width - MARGIN.left - MARGIN.right, high: height - MARGIN.top - MARGIN.bottom });

  function extent() {
    const all = series.flatMap(({ points }) => points);
    const xs = all.map(([x]) => x).filter((x) => !log || x > 0);
    // A few wild steps at the start must not press everything else flat.
    const ys = all.map(([, y]) => y).sort((a, b) => a - b);
    const top = ys[Math.min(ys.length - 1, Math.floor(ys.length * 0.995))];
    const [low, high] = [ys[0], top];
    const spare = 0.06 * (high - low || 1);
    return { x: [Math.min(...(log ? [] : [0]), ...xs), Math.max(...xs) || 1], y: [low - spare, high + spare] };
  }

  function draw() {
    if (!width) return;
    if (!series.some(({ points }) => points.length)) return box.replaceChildren();
    const { wide, high } = inner();
    const reach = extent();
    const [first, end] = reach.x.map(along);
    const px = (x) => MARGIN.left + (Math.max(0, along(x) - first) / (end - first || 1)) * wide;
    const py = (y) => MARGIN.top + Math.max(0, 1 - (y - reach.y[0]) / (reach.y[1] - reach.y[0])) * high;
    const marks = [];
    for (const y of ticks(...reach.y, high / 50)) {
      marks.push(svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: py(y), y2: py(y) }),
        svg("text", { class: "tick y", x: MARGIN.left - 8, y: py(y) }, (Math.abs(y) < 1e4 ? fine : short).format(y)));
    }
    for (const x of (log ? logTicks : ticks)(...reach.x, wide / 90)) {
      marks.push(svg("text", { class: "tick x", x: px(x), y: height - MARGIN.bottom + 18 }, short.format(x)));
    }
    marks.push(svg("text", { class: "axis", x: width - MARGIN.right, y: height - 4, "text-anchor": "end" },
      log ? `${xName}, logarithmic` : xName));
    for (const { points, color, faint, marks: dots } of series) {
      const path = points.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
      marks.push(svg("path", { class: `curve c${color}${faint ? " faint" : ""}`, d: path }));
      if (dots && points.length <= 60) {
        for (const [x, y] of points) marks.push(svg("circle", { class: `dot c${color}`, cx: px(x), cy: py(y), r: 3 }));
      }
    }
    if (at !== null) {
      marks.push(svg("line", { class: "cursor", x1: px(at), x2: px(at), y1: MARGIN.top, y2: height - MARGIN.bottom }));
      for (const one of series) {
        const near = nearest(one.points, at);
        if (near) marks.push(svg("circle", { class: `dot c${one.color}`, cx: px(near[0]), cy: py(near[1]), r: 4.5 }));
      }
    }
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      svg("text", { class: "axis", x: 0, y: 10 }, yName), marks);
    picture.addEventListener("pointermove", (event) => {
      const share = (event.clientX - picture.getBoundingClientRect().left - MARGIN.left) / wide;
      look(between(Math.min(1, Math.max(0, share))));
    });
    box.replaceChildren(picture);
  }

  /** The place at a share of the way along the axis. */
  function between(share) {
    const [first, end] = extent().x.map(along);
    const to = first + share * (end - first);
    return log ? 10 ** to : to;
  }

  function look(x) {
    at = x;
    draw();
    const parts = series.flatMap(({ name, points, color }) => {
      const near = nearest(points, x);
      return near ? [h("span", { class: `value c${color}` }, h("bdi", {}, name), ` ${near[1].toFixed(3)}`)] : [];
    });
    readout.replaceChildren(h("span", { class: "value" }, `${short.format(Math.round(x))} ${xName}`), ...parts);
    looked?.(x);
  }

  box.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way || !series.length) return;
    event.preventDefault();
    const [first, end] = extent().x.map(along);
    const share = at === null ? 1 : (along(at) - first) / (end - first || 1);
    look(between(Math.min(1, Math.max(0, share + way / 50))));
  });
  whenWide(box, (wide) => {
    width = wide;
    draw();
  });

  return {
    element,
    /** @param {{x?: string, y?: string, log?: boolean}} [axes] other ones: what they count, and whether the lower one multiplies */
    set(wanted, { x = xName, y = yName, log: multiplies = log } = {}) {
      series = wanted;
      if (x !== xName || y !== yName || multiplies !== log) {
        [xName, yName, log, at] = [x, y, multiplies, null];
        readout.textContent = "";
      }
      draw();
    },
    look,
  };
}

/** The point nearest to a place; none where the curve has ended. */
function nearest(points, x) {
  let best = null;
  if (!points.length || x > points.at(-1)[0] * 1.02) return best;
  for (const point of points) if (!best || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
  return best;
}

/**
 * Points with names; a name is currentText where there is room for it.
 * @param {{label: string, looked: (at: number | null) => void}} options
 */
export function makeScatter({ label, looked }) {
  const element = h("div", { class: "chart scatter", role: "img", "aria-label": label });
  /** @type {{x: number, y: number, name: string, size: number}[]} */
  let points = [];
  let marks = [], width = 0, marked = null;

  function draw() {
    if (!width || !points.length) return;
    const height = Math.round(Math.min(0.72 * width, 620));
    const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
    const scale = (values, size, margin) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return (value) => margin + ((value - low) / (high - low || 1)) * (size - 2 * margin);
    };
    const wordy = points.some(({ name }) => [...name].length > 2);
    const [px, py] = [scale(xs, width, wordy ? 52 : 24), scale(ys, height, 24)];
    const taken = [];
    marks = points.map(({ x, y, name, size }) => {
      const [left, top] = [px(x), height - py(y)];
      const half = 4 + 4.2 * [...name].length;
      const free = !taken.some((other) => Math.abs(other.left - left) < half + other.half && Math.abs(other.top - top) < 15);
      if (free) taken.push({ left, top, half });
      const kind = `point${free ? "" : " bare"}${[...name].length > 2 ? " word" : ""}`;
      return svg("g", { class: kind, transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})` },
        svg("circle", { r: free ? 11 : 2 + 2 * size }), svg("text", {}, name));
    });
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" },
      // The rare ones below: what is frequent stays readable.
      [...marks].reverse());
    const near = (event) => {
      const box = picture.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      const distance = (one) => Math.hypot(px(one.x) - x, height - py(one.y) - y);
      const at = points.reduce((best, one, i) => (distance(one) < distance(points[best]) ? i : best), 0);
      looked(distance(points[at]) < 40 ? at : null);
    };
    picture.addEventListener("pointermove", near);
    picture.addEventListener("pointerdown", near);
    element.replaceChildren(picture);
    mark(marked);
  }

  function mark(at) {
    marks[marked]?.classList.remove("marked");
    marked = at;
    if (at === null || !marks[at]) return;
    marks[at].classList.add("marked");
    marks[at].parentNode.append(marks[at]);
  }

  whenWide(element, (wide) => {
    width = wide;
    draw();
  });

  return {
    element,
    set(wanted) {
      [points, marked] = [wanted, null];
      draw();
    },
    mark,
  };
}
