// Films: pictures with their paths from noise, with curves below; and a player for several films.

import { button, calm, el, field, freshId, short } from "./elements.js";
import { decode } from "./pictures.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [120, 40];
const SECONDS = 2.4; // the time of a whole path, unless it has few steps
const [SHORTEST, LONGEST] = [40, 160]; // milliseconds a frame

/**
 * A picture on its way: `{element, frames, sample, title, ...}`.
 *
 * `add(frame)` takes the progress of a stream, `finish(sample)` the finished sample, `show(step)` shows
 * the last frame that is not after `step`. With `onSelect` the picture is a button. `about` comes before
 * the title where only screen readers need it. `curves` false leaves out curves and numbers.
 */
export function film({ title, note = "", about = "", shape, onSelect = null, curves: curved = true }) {
  const named = [about, title].filter(Boolean).join(", ");
  const canvas = el("canvas", { class: "pixels", width: shape[2], height: shape[1], role: "img", "aria-label": `${named}: not begun` });
  const face = onSelect
    ? button("", () => onSelect(one), { kind: "film-face", "aria-pressed": "false" })
    : el("div", { class: "film-face" });
  face.append(canvas);
  const curves = document.createElementNS(SVG, "svg");
  curves.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  curves.setAttribute("class", "film-curves");
  curves.setAttribute("role", "img");
  curves.setAttribute("preserveAspectRatio", "none");
  const numbers = el("span", { class: "film-numbers" });
  const outcome = el("span", { class: "film-outcome" });
  const remark = el("span", { class: "film-numbers" });
  const element = el("figure", { class: "film" }, face, curved ? curves : null,
    el("figcaption", {}, el("strong", {}, title), note && el("span", { class: "muted" }, note), outcome, curved ? numbers : null, remark));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let [painted, state] = [null, []];

  const one = {
    element, title, frames: [], sample: null, maxSteps: 0, cancelled: false,
    get lastStep() { return one.frames.at(-1)?.steps ?? 0; },
    get firstStep() { return one.frames[0]?.steps ?? 0; },
    get data() { return one.frames.at(-1)?.data ?? null; },
    /** Resolves once all frames are decoded. */
    ready: () => Promise.all(one.frames.map((frame) => frame.decoded)),
    at(step) {
      return one.frames.findLast((frame) => frame.steps <= step) ?? one.frames[0];
    },
    add({ steps, max_steps, gradient_norm, energy, b64_json }) {
      if (!b64_json || one.sample) return;
      one.maxSteps = max_steps ?? one.maxSteps;
      push({ steps, norm: gradient_norm, energy, b64: b64_json });
    },
    finish(sample) {
      one.sample = sample;
      if (sample.trajectory?.length) { // the whole path, of which a slow reader saw a part
        one.frames = [];
        for (const { steps, gradient_norm, energy, b64_json } of sample.trajectory) push({ steps, norm: gradient_norm, energy, b64: b64_json });
        return;
      }
      const last = one.frames.at(-1);
      if (last?.steps === sample.steps) one.frames.pop(); // the same picture, from before the end was known
      push({ steps: sample.steps, norm: sample.gradient_norm, energy: sample.energy ?? last?.energy ?? null, b64: sample.b64_json });
    },
    /** Says that no more frames come, unless the sample is finished. */
    cancel() { one.cancelled = !one.sample; },
    show(step) {
      const frame = one.at(step);
      const now = [one.frames.length, one.sample, one.cancelled];
      if (!frame || (frame === painted && now.every((value, k) => value === state[k]))) return;
      [painted, state] = [frame, now];
      frame.decoded.then(() => painted === frame && context.putImageData(frame.data, 0, 0));
      const last = frame === one.frames.at(-1);
      const ended = one.sample && last;
      outcome.textContent = ended ? said(one.sample) : `${one.cancelled && last ? "cancelled at " : ""}step ${frame.steps}`;
      outcome.classList.toggle("bad", Boolean(ended && one.sample.outcome === "diverged"));
      outcome.classList.toggle("good", Boolean(ended && one.sample.outcome === "converged"));
      numbers.replaceChildren(...[["gradient norm", frame.norm], ["energy change", frame.energy]]
        .filter(([, value]) => Number.isFinite(value)).map(([name, value]) => el("span", {}, `${name} ${short(value)}`)));
      canvas.setAttribute("aria-label", `${named}, ${outcome.textContent}`);
      if (onSelect) face.setAttribute("aria-label", `${title}, ${note ? `${note}, ` : ""}${outcome.textContent}: details and variations`);
      draw(frame);
    },
    /** Adds a sentence below. */
    remark(sentence) { remark.textContent = sentence; },
    select(on) { face.setAttribute("aria-pressed", String(on)); },
  };

  function push(frame) {
    frame.decoded = decode(frame.b64).then((data) => { frame.data = data; });
    one.frames.push(frame);
  }

  function draw(frame) {
    const name = document.createElementNS(SVG, "title");
    const ends = (key) => [one.frames.find((f) => Number.isFinite(f[key]))?.[key], one.frames.findLast((f) => Number.isFinite(f[key]))?.[key]];
    const [norms, energies] = [ends("norm"), ends("energy")];
    name.textContent = norms[1] === undefined ? "No curves" : `Gradient norm from ${short(norms[0])} to ${short(norms[1])}`
      + (energies[1] === undefined ? "" : `; energy change ${short(energies[1])}`);
    const last = Math.max(one.lastStep, one.sample ? 0 : one.maxSteps, 1);
    const along = (step) => 2 + (step / last) * (WIDTH - 4);
    const children = [name];
    for (const [key, kind] of [["energy", "c1"], ["norm", "c0"]]) {
      const points = one.frames.filter((f) => Number.isFinite(f[key]));
      if (!points.length) continue;
      const [low, high] = [Math.min(0, ...points.map((f) => f[key])), Math.max(0, ...points.map((f) => f[key]))];
      const up = (value) => 3 + (1 - (value - low) / (high - low || 1)) * (HEIGHT - 6);
      const line = document.createElementNS(SVG, "polyline");
      line.setAttribute("points", points.map((f) => `${along(f.steps).toFixed(1)},${up(f[key]).toFixed(1)}`).join(" "));
      line.setAttribute("class", `curve ${kind}`);
      children.push(line);
    }
    const mark = document.createElementNS(SVG, "line");
    for (const [key, value] of Object.entries({ x1: along(frame.steps), x2: along(frame.steps), y1: 0, y2: HEIGHT, class: "film-mark" })) mark.setAttribute(key, value);
    curves.replaceChildren(...children, mark);
  }
  return one;
}

/** How a sample ended, in a few words. */
function said({ outcome, steps }) {
  const count = `${steps} step${steps === 1 ? "" : "s"}`;
  return { converged: `stopped after ${count}`, max_steps: `stopped at the limit of ${count}`, diverged: `diverged after ${count}` }[outcome]
    ?? `${outcome} after ${count}`;
}

/** What the two curves below films are. */
export const legend = () =>
  el("ul", { class: "legend" },
    el("li", {}, el("span", { class: "swatch c0", "aria-hidden": "true" }), "gradient norm"),
    el("li", {}, el("span", { class: "swatch dashed c1", "aria-hidden": "true" }), "energy change since the start"),
    el("li", { class: "muted" }, "from left to right along the path, each on its own scale"));

/**
 * Buttons and a slider to play films, step and rewind: `{element, start(films), update(), end()}`.
 *
 * `start` begins with new films, `update` is called when frames came, `end` when no more will come.
 */
export function player() {
  let films = [];
  let [step, playing, open, timer] = [0, false, false, 0];
  const play = button("Play", () => (playing ? pause() : resume()), { disabled: true });
  const rewind = button("Rewind", () => go(first()), { disabled: true });
  const back = button("Step back", () => go(step - stride()), { disabled: true });
  const on = button("Step on", () => go(step + stride()), { disabled: true });
  const id = freshId("step");
  const slider = el("input", { id, type: "range", min: 0, max: 1, step: 1, value: 0, disabled: true, oninput: () => go(slider.valueAsNumber) });
  const where = el("output", { for: id, class: "shown" }, "no steps yet");
  const element = el("div", { class: "player", role: "group", "aria-label": "Path from noise to picture" },
    el("div", { class: "row" }, play, rewind, back, on),
    el("div", { class: "field" },
      el("span", { class: "line" }, el("label", { for: id, class: "name" }, "Place on the path"), where), slider));

  const first = () => Math.min(...films.map((one) => one.firstStep), newest());
  const newest = () => Math.max(0, ...films.map((one) => one.lastStep));
  const whole = () => Math.max(1, newest(), ...films.map((one) => (one.sample ? 0 : one.maxSteps)));
  const stride = () => Math.max(1, Math.ceil(whole() / 60));

  function show() {
    for (const one of films) one.show(step);
    slider.min = Math.min(first(), whole());
    slider.max = whole();
    slider.value = step;
    where.textContent = `step ${step} of ${whole()}`;
    slider.setAttribute("aria-valuetext", where.textContent);
    play.textContent = playing ? "Pause" : !open && step >= newest() ? "Play again" : "Play";
    back.disabled = step <= first();
    on.disabled = step >= newest();
    rewind.disabled = step <= first();
  }
  function go(next) {
    pause();
    step = Math.max(first(), Math.min(newest(), next));
    show();
  }
  function pause() {
    playing = false;
    clearInterval(timer);
    show();
  }
  function resume() {
    if (!open && step >= newest()) step = first();
    playing = true;
    clearInterval(timer);
    timer = setInterval(tick, Math.max(SHORTEST, Math.min(LONGEST, (1000 * SECONDS * stride()) / whole())));
    show();
  }
  function tick() {
    if (!element.isConnected) return pause();
    if (step < newest()) step = Math.min(newest(), step + stride());
    else if (!open) return pause();
    show();
  }
  return {
    element,
    start(next) {
      clearInterval(timer);
      films = next;
      [step, playing, open] = [0, false, true];
      play.disabled = slider.disabled = true;
      where.textContent = "no steps yet";
    },
    update() {
      if (play.disabled && newest() + films.filter((one) => one.frames.length).length > 0) {
        play.disabled = slider.disabled = false;
        step = first();
        if (calm()) step = newest();
        else resume();
      }
      if (calm() && open && !playing) step = newest();
      show();
    },
    end() {
      open = false;
      for (const one of films) one.cancel();
      if (films.some((one) => one.frames.length)) this.update();
    },
  };
}

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
