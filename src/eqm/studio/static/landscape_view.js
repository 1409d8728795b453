// Draws the landscape: a map below, and samples, arrows and the path above.

import { colour, el } from "./elements.js";
import { between, EXTENT, tick } from "./plane.js";
import { DIVERGED, STOPPED } from "./rules.js";

const BANDS = 16;

/** The picture: `{element, drawMap(map, what, arrows), drawSamples(scene), toPlane(event), place(element, x, y)}`. */
export function view(label) {
  const back = el("canvas", { "aria-hidden": "true" });
  const front = el("canvas", { role: "img", "aria-label": label });
  const element = el("div", { class: "stage" }, back, front);
  const size = () => {
    const side = Math.max(Math.round(element.clientWidth * Math.min(devicePixelRatio, 2)), 64);
    for (const canvas of [back, front]) if (canvas.width !== side) canvas.width = canvas.height = side;
    return side;
  };
  const across = (x, side) => ((x + EXTENT) / (2 * EXTENT)) * side;
  const down = (y, side) => ((EXTENT - y) / (2 * EXTENT)) * side;

  function drawMap(map, what, arrows) {
    const side = size(), pen = back.getContext("2d");
    const values = what === "norm" ? map.norms : map.energy;
    const levels = quantiles(values, BANDS);
    const shades = mixes(rgb(colour("--map-low")), rgb(colour("--map-high")), BANDS);
    const small = Math.min(side, 340), picture = new ImageData(small, small);
    const read = between(values, map.side, 1), out = [0];
    for (let row = 0, at = 0; row < small; row++) {
      for (let column = 0; column < small; column++, at += 4) {
        read(((column + 0.5) / small) * 2 * EXTENT - EXTENT, EXTENT - ((row + 0.5) / small) * 2 * EXTENT, out);
        let band = 0;
        while (band < BANDS - 1 && out[0] > levels[band + 1]) band++;
        picture.data.set(shades[band], at);
      }
    }
    const sheet = new OffscreenCanvas(small, small);
    sheet.getContext("2d").putImageData(picture, 0, 0);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(sheet, 0, 0, side, side);
    pen.strokeStyle = colour("--map-line");
    pen.lineWidth = side / 700;
    pen.beginPath();
    for (const level of levels.slice(1, -1)) {
      for (const [x0, y0, x1, y1] of isoline(values, map.side, level)) {
        pen.moveTo(across(x0, side), down(y0, side));
        pen.lineTo(across(x1, side), down(y1, side));
      }
    }
    pen.stroke();
    if (arrows) drawArrows(pen, side, map);
  }

  function drawArrows(pen, side, map) {
    const read = between(map.gradient, map.side, 2), out = [0, 0], count = 17;
    pen.strokeStyle = colour("--muted");
    pen.lineWidth = side / 420;
    pen.beginPath();
    for (let row = 0; row < count; row++) {
      for (let column = 0; column < count; column++) {
        const x = tick(column + 0.5, count + 1), y = tick(row + 0.5, count + 1);
        read(x, y, out);
        const norm = Math.hypot(out[0], out[1]);
        if (norm < 1e-6) continue;
        const length = 0.3 * Math.min(1, norm / 4) + 0.05;
        const dx = -out[0] / norm, dy = -out[1] / norm; // downhill
        const tipX = x + dx * length / 2, tipY = y + dy * length / 2;
        pen.moveTo(across(x - dx * length / 2, side), down(y - dy * length / 2, side));
        pen.lineTo(across(tipX, side), down(tipY, side));
        for (const turn of [2.6, -2.6]) {
          const hx = dx * Math.cos(turn) - dy * Math.sin(turn), hy = dx * Math.sin(turn) + dy * Math.cos(turn);
          pen.moveTo(across(tipX, side), down(tipY, side));
          pen.lineTo(across(tipX + 0.09 * hx, side), down(tipY + 0.09 * hy, side));
        }
      }
    }
    pen.stroke();
  }

  let inks = null;

  /** `scene` has samples, points (flat; null where handles show them) and path (flat). */
  function drawSamples({ samples, points, path }) {
    const side = size(), pen = front.getContext("2d");
    inks ??= Object.fromEntries(["data", "moving", "good", "card", "start"].map((name) => [name, colour(`--${name}`)]));
    pen.clearRect(0, 0, side, side);
    const dot = (x, y, radius) => {
      pen.moveTo(across(x, side) + radius, down(y, side));
      pen.arc(across(x, side), down(y, side), radius, 0, 2 * Math.PI);
    };
    if (points) {
      pen.strokeStyle = inks.data;
      pen.lineWidth = side / 260;
      pen.beginPath();
      for (let at = 0; at < points.length; at += 2) dot(points[at], points[at + 1], side / 105);
      pen.stroke();
    }
    for (const stopped of [false, true]) {
      pen.fillStyle = stopped ? inks.good : inks.moving;
      pen.strokeStyle = inks.card;
      pen.lineWidth = side / 900;
      pen.beginPath();
      for (let i = 0; i < samples.count; i++) {
        if (samples.state[i] !== DIVERGED && (samples.state[i] === STOPPED) === stopped) {
          dot(samples.x[2 * i], samples.x[2 * i + 1], side / (stopped ? 130 : 165));
        }
      }
      pen.fill();
      pen.stroke();
    }
    pen.lineJoin = "round";
    for (const [ink, width] of [[inks.card, 90], [inks.start, 190]]) {
      pen.strokeStyle = ink;
      pen.lineWidth = side / width;
      pen.beginPath();
      for (let at = 0; at < path.length; at += 2) pen.lineTo(across(path[at], side), down(path[at + 1], side));
      pen.stroke();
    }
    pen.fillStyle = inks.start;
    pen.beginPath();
    for (let at = 0; at < path.length; at += 2) dot(path[at], path[at + 1], side / 220);
    pen.fill();
  }

  return {
    element,
    drawMap,
    drawSamples,
    describe(sentence) { front.setAttribute("aria-label", sentence); },
    forgetColours() { inks = null; },
    /** The place of a pointer in the plane. */
    toPlane({ clientX, clientY }) {
      const box = element.getBoundingClientRect();
      const scale = (2 * EXTENT) / box.width;
      return [(clientX - box.left) * scale - EXTENT, EXTENT - (clientY - box.top) * scale];
    },
    /** Puts an element at a place of the plane. */
    place(handle, x, y) {
      handle.style.left = `${across(x, 100)}%`;
      handle.style.top = `${down(y, 100)}%`;
    },
  };
}

function quantiles(values, bands) {
  const sorted = Float32Array.from(values).sort();
  return Array.from({ length: bands + 1 }, (_, k) => sorted[Math.round((k / bands) * (sorted.length - 1))]);
}

/** The parts [x0, y0, x1, y1] of the line on which the values equal `level`, cell by cell. */
function* isoline(values, side, level) {
  for (let row = 0; row < side - 1; row++) {
    for (let column = 0; column < side - 1; column++) {
      const at = row * side + column;
      const corners = [values[at], values[at + 1], values[at + side + 1], values[at + side]];
      const above = corners.filter((value) => value > level).length;
      if (above === 0 || above === 4) continue;
      const cuts = [];
      for (let edge = 0; edge < 4; edge++) {
        const from = corners[edge], to = corners[(edge + 1) % 4];
        if ((from > level) === (to > level)) continue;
        const share = (level - from) / (to - from);
        const [x, y] = [[share, 0], [1, share], [1 - share, 1], [0, 1 - share]][edge];
        cuts.push(tick(column + x, side), tick(row + y, side));
      }
      yield cuts.slice(0, 4);
      if (cuts.length === 8) yield cuts.slice(4);
    }
  }
}

const rgb = (text) => text.match(/[\d.]+/g).slice(0, 3).map(Number);

const mixes = (low, high, count) => Array.from({ length: count }, (_, k) => [
  ...low.map((part, index) => Math.round(part + (high[index] - part) * (k / (count - 1)) ** 0.8)), 255,
]);
