// A canvas to paint a mask on, by mouse, touch or keyboard.

import { button, colour, el, field, freshId } from "./elements.js";
import { canvasOf, encode } from "./pictures.js";

const SCALE = 10; // pixels of the canvas for one of the mask
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * A mask that can be painted: `{element, mask, share(), png(), resize(), setBackground(), fillMiddle()}`.
 *
 * `mask` holds 0 or 1 for each pixel, row by row; `share` is the share of ones. `painted` names what is
 * painted, as in "the hole". `onInput` is called after each change.
 */
export function painting({ label, painted = "the mask", width, height, onInput = () => {} }) {
  const id = freshId("painting");
  let mask = new Uint8Array(width * height);
  let background = null; // a canvas
  let paints = true; // otherwise it erases
  let cursor = [width >> 1, height >> 1]; // column and row of the keyboard
  let keyed = false; // whether the cursor is shown
  let last = null; // where the pointer was, while it paints
  const canvas = el("canvas", {
    class: "paint", tabindex: "0", role: "application", "aria-label": label, "aria-describedby": `${id}-help`,
    "aria-roledescription": "painting",
  });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const said = el("span", { class: "help", "aria-live": "polite" });
  const pen = button("Paint", () => choose(true), { "aria-pressed": "true" });
  const rubber = button("Erase", () => choose(false), { "aria-pressed": "false" });
  const brush = field({
    label: "Brush", type: "range", value: 5, min: 1, max: 15, step: 2, unit: "pixels wide", onInput: draw,
  });
  const invert = button("Invert", () => change(() => mask.forEach((value, i) => { mask[i] = 1 - value; })));
  const clear = button("Clear", () => change(() => mask.fill(0)));
  const help =
    "Paint with the mouse or a finger. With the keyboard: arrows move, space paints, Shift and arrows paint on the way.";
  const element = el("div", { class: "painting" }, canvas,
    el("div", { class: "painting-tools" },
      el("div", { class: "row" }, pen, rubber, button("Middle", fillMiddle), invert, clear), brush.element,
      el("span", { id: `${id}-help`, class: "help" }, help), said));

  function choose(paint) {
    paints = paint;
    pen.setAttribute("aria-pressed", String(paint));
    rubber.setAttribute("aria-pressed", String(!paint));
  }
  function change(how) {
    how();
    draw();
    onInput();
  }
  function dab([x, y]) {
    const radius = brush.value / 2;
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(height - 1, y + radius); row++) {
      for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(width - 1, x + radius); column++) {
        if (Math.hypot(row - y, column - x) <= radius) mask[row * width + column] = Number(paints);
      }
    }
  }
  function line(from, to) {
    const count = Math.max(1, ...from.map((v, k) => Math.abs(to[k] - v)));
    for (let k = 0; k <= count; k++) dab(from.map((v, i) => Math.round(v + (k / count) * (to[i] - v))));
  }
  function fillMiddle() {
    change(() => {
      mask.fill(0);
      for (let row = Math.floor(height / 4); row < height - Math.floor(height / 4); row++) {
        mask.fill(1, row * width + Math.floor(width / 4), (row + 1) * width - Math.floor(width / 4));
      }
    });
  }
  function place(event) {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [Math.floor(x * width), Math.floor(y * height)];
  }
  function draw() {
    canvas.width = width * SCALE;
    canvas.height = height * SCALE;
    context.imageSmoothingEnabled = false;
    context.fillStyle = colour("--inset");
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (background) context.drawImage(background, 0, 0, canvas.width, canvas.height);
    context.fillStyle = colour("--accent");
    context.globalAlpha = background ? 0.8 : 1;
    mask.forEach((value, i) => {
      if (value) context.fillRect((i % width) * SCALE, Math.floor(i / width) * SCALE, SCALE, SCALE);
    });
    context.globalAlpha = 1;
    if (!keyed) return;
    context.strokeStyle = colour("--data");
    context.lineWidth = 3;
    context.beginPath();
    context.arc((cursor[0] + 0.5) * SCALE, (cursor[1] + 0.5) * SCALE, (brush.value / 2) * SCALE, 0, 2 * Math.PI);
    context.stroke();
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    keyed = false;
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    change(() => dab(last));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    change(() => line(last, next));
    last = next;
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { last = null; });
  canvas.addEventListener("blur", () => { keyed = false; draw(); });
  canvas.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    keyed = true;
    if (move) cursor = cursor.map((place, k) => Math.max(0, Math.min([width, height][k] - 1, place + move[k])));
    if (!move || event.shiftKey) change(() => dab(cursor));
    else draw();
    const [column, row] = cursor;
    const state = mask[row * width + column] ? "painted" : "free";
    const percent = `${Math.round(100 * share())} %`;
    said.textContent = `Row ${row + 1}, column ${column + 1}: ${state}. ${percent} of the picture is ${painted}.`;
  });
  document.addEventListener("theme", draw);
  const share = () => mask.reduce((sum, v) => sum + v, 0) / mask.length;
  draw();
  return {
    element,
    get mask() { return mask; },
    share,
    fillMiddle,
    /** The mask as a base64 PNG, white where it is painted. */
    png() {
      const data = new ImageData(width, height);
      mask.forEach((value, i) => data.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
      return encode(data);
    },
    /** Begins with an empty mask of another size. */
    resize(wide, high) {
      [width, height] = [wide, high];
      mask = new Uint8Array(width * height);
      background = null;
      cursor = [wide >> 1, high >> 1];
      draw();
    },
    /** Shows ImageData below the mask. */
    setBackground(data) {
      background = data && canvasOf(data);
      draw();
    },
  };
}
