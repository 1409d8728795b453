// A canvas to paint a mask on, by mouse, touch or keyboard.

import { button, colour, el, field, freshId } from "./elements.js";
import { canvasOf, encode } from "./pictures.js";

const SCALE = 10; // pixels of the canvas for one of the mask

/**
 * A mask that can be painted: `{element, mask, png(), share(), resize(), setBackground(), fillMiddle()}`.
 *
 * `mask` holds 0 or 1 for each pixel, row by row. `painted` names what is painted, as in "the hole".
 * `onInput` is called after each change.
 */
export function painting({ label, painted = "the mask", width, height, onInput = () => {} }) {
  const id = freshId("painting");
  const canvas = el("canvas", {
    class: "paint", tabindex: "0", role: "application", "aria-label": label, "aria-describedby": `${id}-help`,
    "aria-roledescription": "painting",
  });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const said = el("span", { class: "help", "aria-live": "polite" });
  const pen = button("Paint", () => choose(true), { "aria-pressed": "true" });
  const rubber = button("Erase", () => choose(false), { "aria-pressed": "false" });
  const brush = field({ label: "Brush", type: "range", value: 5, min: 1, max: 15, step: 2, unit: "pixels wide", onInput: () => draw() });
  const element = el("div", { class: "painting" }, canvas,
    el("div", { class: "painting-tools" },
      el("div", { class: "row" }, pen, rubber, button("Middle", () => fillMiddle()), button("Invert", () => change(() => mask.forEach((v, i) => { mask[i] = 1 - v; }))), button("Clear", () => change(() => mask.fill(0)))),
      brush.element,
      el("span", { id: `${id}-help`, class: "help" }, "Paint with the mouse or a finger. With the keyboard: arrows move, space paints, Shift and arrows paint on the way."),
      said));
  let mask = new Uint8Array(width * height);
  let [background, painting, cursor, last, keyed] = [null, true, [width >> 1, height >> 1], null, false];

  function choose(paint) {
    painting = paint;
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
        if ((row - y) ** 2 + (column - x) ** 2 <= radius ** 2) mask[row * width + column] = painting ? 1 : 0;
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
    return [Math.floor(((event.clientX - box.left) / box.width) * width), Math.floor(((event.clientY - box.top) / box.height) * height)];
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
    mask.forEach((v, i) => v && context.fillRect((i % width) * SCALE, Math.floor(i / width) * SCALE, SCALE, SCALE));
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
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    keyed = true;
    if (move) cursor = [Math.max(0, Math.min(width - 1, cursor[0] + move[0])), Math.max(0, Math.min(height - 1, cursor[1] + move[1]))];
    if (!move || event.shiftKey) change(() => dab(cursor));
    else draw();
    said.textContent = `Row ${cursor[1] + 1}, column ${cursor[0] + 1}: ${mask[cursor[1] * width + cursor[0]] ? "painted" : "free"}. ${percent()} of the picture is ${painted}.`;
  });
  document.addEventListener("theme", draw);
  const percent = () => `${Math.round(100 * share())} %`;
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
      mask.forEach((v, i) => data.data.set([255 * v, 255 * v, 255 * v, 255], 4 * i));
      return encode(data);
    },
    /** Begins with an empty mask of another size. */
    resize(wide, high) {
      [width, height, background, mask] = [wide, high, null, new Uint8Array(wide * high)];
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
