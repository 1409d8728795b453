// A line chart as SVG, with a sentence for screen readers.

import { el, freshId, short } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 54, RIGHT = 10, TOP = 10, BOTTOM = 34;

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * A chart: `{element, set(lines, {marks})}`.
 *
 * `title` says what it shows, `x` and `y` what the axes are, with units. With `log` the y axis is
 * logarithmic and values of 0 and below are left out. A line is `{name, points: [[x, y], ...], faint}`; each
 * gets one of six colours with its own dash pattern. `marks` are `{x, text}`: vertical lines.
 */
export function chart({ title, x, y, log = false, height = 190 }) {
  const id = freshId("chart");
  const picture = svg("svg", { role: "img", "aria-labelledby": id, class: "chart", height });
  let width = 360, shown = [[], {}];
  const legend = el("ul", { class: "legend" });
  const element = el("figure", { class: "chart-box" },
    el("figcaption", { id: `${id}-title` }, title), picture, legend);

  /** Replaces all lines. */
  function set(lines, options = {}) {
    shown = [lines, options];
    draw(lines, options);
  }

  function draw(lines, { marks = [] }) {
    picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const usable = ([a, b]) => Number.isFinite(a) && Number.isFinite(b) && !(log && b <= 0);
    const kept = lines.map((line) => ({ ...line, points: line.points.filter(usable) }));
    const all = kept.flatMap((line) => line.points);
    const alt = svg("title", { id });
    alt.textContent = `${title}. ${kept.filter(({ points }) => points.length).map(({ name, points }) =>
      `${name}: from ${short(points[0][1])} to ${short(points.at(-1)[1])}`).join("; ") || "No values yet"}.`;
    picture.replaceChildren(alt);
    const [x0, x1] = range(all.map(([a]) => a).concat(marks.map((mark) => mark.x)), false);
    const [y0, y1] = range(all.map(([, b]) => b), log);
    const scale = log ? Math.log10 : (value) => value;
    const along = (value) => LEFT + ((value - x0) / (x1 - x0)) * (width - LEFT - RIGHT);
    const up = (value) =>
      height - BOTTOM - ((scale(value) - scale(y0)) / (scale(y1) - scale(y0))) * (height - TOP - BOTTOM);
    const label = (text, attributes) => {
      const node = svg("text", attributes);
      node.textContent = text;
      picture.append(node);
    };
    for (const tick of log ? decades(y0, y1) : ticks(y0, y1, 4)) {
      picture.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: up(tick), y2: up(tick), class: "grid" }));
      label(short(tick), { x: LEFT - 6, y: up(tick) + 4, "text-anchor": "end" });
    }
    for (const tick of ticks(x0, x1, 5)) {
      label(short(tick), { x: along(tick), y: height - BOTTOM + 15, "text-anchor": "middle" });
    }
    label(x, { x: (LEFT + width - RIGHT) / 2, y: height - 4, "text-anchor": "middle", class: "axis" });
    label(y, {
      transform: `translate(11 ${(height - BOTTOM + TOP) / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis",
    });
    for (const mark of marks) {
      picture.append(svg("line", { x1: along(mark.x), x2: along(mark.x), y1: TOP, y2: height - BOTTOM, class: "mark" }));
      label(mark.text, { x: along(mark.x) + 4, y: TOP + 9 });
    }
    kept.forEach(({ points, faint, colour }, index) => {
      if (!points.length) return;
      const path = thinned(points).map(([a, b]) => `${along(a).toFixed(1)},${up(b).toFixed(1)}`).join(" ");
      picture.append(svg("polyline", { points: path, class: `curve c${(colour ?? index) % 6}${faint ? " faint" : ""}` }));
    });
    const named = kept.map((line, index) => ({ ...line, colour: line.colour ?? index }))
      .filter(({ name, faint, points }) => name && !faint && points.length);
    legend.replaceChildren(...(named.length < 2 ? [] : named.map(({ name, colour }) =>
      el("li", {}, el("span", { class: `swatch c${colour % 6}`, "aria-hidden": "true" }), name))));
  }

  // One unit is one pixel, so that texts keep their size.
  new ResizeObserver(() => {
    const now = Math.round(picture.getBoundingClientRect().width);
    if (!now || now === width) return;
    width = now;
    draw(...shown);
  }).observe(picture);
  set([]);
  return { element, set };
}

function range(values, log) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return log ? [0.1, 10] : [0, 1];
  if (log) return high > low * 1.05 ? [low, high] : [low / 2, high * 2];
  if (low >= 0 && low < high * 0.6) low = 0;
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.99);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) {
    found.push(Number(tick.toPrecision(12)));
  }
  return found;
}

/** Ticks of a logarithmic axis: 1, 2, 5, 10, ...; powers of ten on a long one. */
function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    found.push(...[1, 2, 5].map((factor) => Number((factor * 10 ** power).toPrecision(1))));
  }
  const inside = found.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  if (inside.length < 3) return ticks(low, high, 4);
  if (inside.length < 7) return inside;
  const powers = inside.filter((tick) => /^1(e|0*$)|^0?\.?0*1$/.test(String(tick)));
  return powers.filter((_, index) => index % Math.ceil(powers.length / 6) === 0);
}

/** At most 400 of the points, with the last one: a chart has no more pixels. */
function thinned(points) {
  if (points.length <= 400) return points;
  const every = Math.ceil(points.length / 400);
  return points.filter((_, index) => index % every === 0 || index === points.length - 1);
}
