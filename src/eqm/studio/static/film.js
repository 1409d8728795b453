// Films: pictures with their paths from noise, and curves below.

import { button, download, el, short } from "./elements.js";
import { encodeGif } from "./gif.js";
import { decode, sheet } from "./pictures.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [120, 40]; // of the curves
const ENLARGED = 4; // times the size of the model's pictures, in a GIF
const MOST_PIXELS = 4e6; // of a GIF, all frames together: more would keep the page busy for seconds

/**
 * A picture on its way. Its `frames` hold {steps, norm, energy, data}; `sample` is what the server said at
 * its end, or null; `element` shows it.
 *
 * `about` comes before the title where only screen readers need it. With `onSelect` the picture is a
 * button. `curves` false leaves out curves and numbers.
 */
export function film({ title, note = "", about = "", shape, onSelect = null, curves = true }) {
  const name = [about, title, note].filter(Boolean).join(", ");
  const canvas = el("canvas", {
    class: "pixels", width: shape[2], height: shape[1], role: "img", "aria-label": `${name}: not begun`,
  });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const face = onSelect
    ? button("", () => onSelect(one), { kind: "film-face", "aria-pressed": "false" })
    : el("div", { class: "film-face" });
  face.append(canvas);
  const lines = curves ? twoCurves() : null;
  const outcome = el("span", { class: "film-outcome" });
  const numbers = el("span", { class: "film-numbers" });
  const remark = el("span", { class: "film-numbers" });
  let shown = []; // the frame that is shown, and all that its look depends on

  const one = {
    title, frames: [], sample: null, maxSteps: 0, cancelled: false,
    element: el("figure", { class: "film" }, face, lines?.element,
      el("figcaption", {}, el("strong", {}, title), note && el("span", { class: "muted" }, note), outcome,
        curves ? numbers : null, remark)),
    get firstStep() { return one.frames[0]?.steps ?? 0; },
    get lastStep() { return one.frames.at(-1)?.steps ?? 0; },
    /** The newest picture, ImageData, or null. */
    get data() { return one.frames.at(-1)?.data ?? null; },
    /** Resolves once all frames are decoded. */
    ready: () => Promise.all(one.frames.map(({ decoded }) => decoded)),
    /** The last frame that is not after `step`. */
    at: (step) => one.frames.findLast(({ steps }) => steps <= step) ?? one.frames[0],
    /** Takes the progress of a stream. */
    add(progress) {
      if (!progress.b64_json || one.sample) return;
      one.maxSteps = progress.max_steps ?? one.maxSteps;
      push(progress);
    },
    /** Takes the finished sample. */
    finish(sample) {
      one.sample = sample;
      if (sample.trajectory?.length) {
        one.frames = [];
        sample.trajectory.forEach(push); // the whole path, of which a slow reader saw a part
      } else {
        const same = one.frames.length > 0 && one.lastStep === sample.steps ? one.frames.pop() : null;
        push({ ...sample, energy: sample.energy ?? same?.energy });
      }
    },
    /** Says that no more frames come, unless the sample is finished. */
    cancel() { one.cancelled = !one.sample; },
    /** Shows the last frame that is not after `step`. */
    show(step) {
      const frame = one.at(step);
      const next = [frame, one.frames.length, one.sample, one.cancelled];
      if (!frame || next.every((value, k) => value === shown[k])) return;
      shown = next;
      frame.decoded.then(() => shown[0] === frame && context.putImageData(frame.data, 0, 0));
      const end = frame === one.frames.at(-1);
      const ended = end && one.sample;
      const here = `step ${frame.steps}`;
      outcome.textContent = ended ? endOf(one.sample) : end && one.cancelled ? `cancelled at ${here}` : here;
      outcome.classList.toggle("good", ended?.outcome === "converged");
      outcome.classList.toggle("bad", ended?.outcome === "diverged");
      const values = [["gradient norm", frame.norm], ["energy change", frame.energy]];
      const known = values.filter(([, value]) => isFinite(value));
      numbers.replaceChildren(...known.map(([label, value]) => el("span", {}, `${label} ${short(value)}`)));
      canvas.setAttribute("aria-label", `${name}, ${outcome.textContent}`);
      if (onSelect) face.setAttribute("aria-label", `${name}, ${outcome.textContent}: details and variations`);
      lines?.draw(one.frames, frame, Math.max(1, one.lastStep, one.sample ? 0 : one.maxSteps));
    },
    /** Adds a sentence below. */
    remark(sentence) { remark.textContent = sentence; },
    select(on) { face.setAttribute("aria-pressed", String(on)); },
  };

  function push({ steps, gradient_norm, energy, b64_json }) {
    const frame = { steps, norm: gradient_norm ?? NaN, energy: energy ?? NaN, data: null };
    frame.decoded = decode(b64_json).then((data) => { frame.data = data; });
    one.frames.push(frame);
  }
  return one;
}

/** How a sample ended, in a few words. */
function endOf({ outcome, steps }) {
  const how = { converged: "stopped after", max_steps: "stopped at the limit of", diverged: "diverged after" };
  return `${how[outcome]} ${steps} step${steps === 1 ? "" : "s"}`;
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Curves of gradient norm and energy change, each on its own scale: `{element, draw}`. */
function twoCurves() {
  const element = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "film-curves", role: "img", preserveAspectRatio: "none",
  });
  /** Draws frames of a path of `last` steps, with a mark at one of them. */
  function draw(frames, marked, last) {
    const along = (steps) => (2 + (steps / last) * (WIDTH - 4)).toFixed(1);
    const words = [];
    const curves = [["norm", "c0", "gradient norm"], ["energy", "c1", "energy change"]].map(([key, kind, name]) => {
      const points = frames.filter((frame) => isFinite(frame[key]));
      const values = points.map((frame) => frame[key]);
      const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
      const up = (value) => (3 + (1 - (value - low) / (high - low || 1)) * (HEIGHT - 6)).toFixed(1);
      if (values.length) words.push(`${name} from ${short(values[0])} to ${short(values.at(-1))}`);
      return svg("polyline", {
        points: points.map((frame) => `${along(frame.steps)},${up(frame[key])}`).join(" "), class: `curve ${kind}`,
      });
    });
    const x = along(marked.steps);
    element.replaceChildren(svg("title", {}, words.join("; ") || "no curves"), ...curves,
      svg("line", { x1: x, x2: x, y1: 0, y2: HEIGHT, class: "film-mark" }));
  }
  return { element, draw };
}

/** What the two curves below films are. */
export const legend = () =>
  el("ul", { class: "legend" },
    el("li", {}, el("span", { class: "swatch c0", "aria-hidden": "true" }), "gradient norm"),
    el("li", {}, el("span", { class: "swatch c1", "aria-hidden": "true" }), "energy change since the start"),
    el("li", { class: "muted" }, "from left to right along the path, each on its own scale"));

/**
 * Sends a request that makes pictures and feeds its films: the data of the event `done`.
 *
 * Sample k of the answer belongs to films[k]. `changed` is called after each change.
 */
export function feed(api, path, body, films, { signal, changed = () => {} }) {
  return api.stream(path, body, {
    signal,
    onProgress({ samples }) {
      for (const sample of samples) films[sample.index]?.add(sample);
      changed();
    },
    onSample(sample) {
      films[sample.index]?.finish(sample);
      changed();
    },
  });
}

/** Saves the paths of films as one GIF, a frame for each step that was seen, `columns` films in a row. */
export function saveGif(name, films, columns) {
  const steps = [...new Set(films.flatMap(({ frames }) => frames.map((frame) => frame.steps)))].sort((a, b) => a - b);
  const { width, height } = films[0].data;
  const scale = Math.floor(Math.sqrt(MOST_PIXELS / (films.length * width * height * steps.length)));
  const frames = steps.map((step) => {
    const canvas = sheet(films.map((one) => one.at(step).data), columns, Math.max(1, Math.min(ENLARGED, scale)));
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  });
  const delays = steps.map((step) => (step === steps.at(-1) ? 1500 : 90)); // milliseconds
  download(name, encodeGif(frames, delays), "image/gif");
}
