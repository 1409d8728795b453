// A player for several films at once: play, pause, step, rewind.

import { button, calm, el, freshId } from "./elements.js";

const SECONDS = 2.4; // the time of a whole path, unless it has few steps
const [SHORTEST, LONGEST] = [40, 160]; // milliseconds a frame

/**
 * Buttons and a slider to play films, step and rewind: `{element, start(films), update(), end()}`.
 *
 * `start` takes new films; call `update` when frames came, and `end` when no more will come. `element` is hidden
 * at first.
 */
export function player() {
  let films = [];
  let step = 0;
  let playing = false;
  let open = false; // whether more frames may come
  let following = false; // whether the newest frame is shown at once: for who asked for less motion
  let timer = 0;
  const play = button("Play", () => (playing ? pause() : resume()), { disabled: true });
  const rewind = button("Rewind", () => go(first()), { disabled: true });
  const back = button("Step back", () => go(step - stride()), { disabled: true });
  const on = button("Step on", () => go(step + stride()), { disabled: true });
  const id = freshId("step");
  const slider = el("input", {
    id, type: "range", min: 0, max: 1, step: 1, value: 0, disabled: true, oninput: () => go(slider.valueAsNumber),
  });
  const where = el("output", { for: id, class: "shown" }, "no steps yet");
  const line = el("span", { class: "line" }, el("label", { for: id, class: "name" }, "Place on the path"), where);
  const element = el("div", { class: "player", hidden: true, role: "group", "aria-label": "Path from noise to picture" },
    el("div", { class: "row" }, play, rewind, back, on), el("div", { class: "field" }, line, slider));

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
    following = false;
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
      step = 0;
      playing = false;
      open = true;
      following = calm();
      for (const part of [play, rewind, back, on, slider]) part.disabled = true;
      where.textContent = "no steps yet";
    },
    update() {
      if (!films.some((one) => one.frames.length)) return;
      if (play.disabled) {
        play.disabled = slider.disabled = false;
        step = first();
        if (!following) resume();
      }
      if (following) step = newest();
      show();
    },
    end() {
      open = false;
      for (const one of films) one.cancel();
      this.update();
      following = false;
    },
  };
}
