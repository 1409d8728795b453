// A network of the server learns the field of the points, and the page shows the field on the way.

import { bytes, button, el, short } from "./elements.js";
import { EXTENT } from "./plane.js";

export const LEARNED_SIDE = 65;

/**
 * The part of the panel that trains: `{element, start(), stop(), forget(), compare(difference)}`.
 *
 * `problem()` returns the points (flat) and the decay. `onField(gradient, {first, last})` gets the field on a
 * grid of LEARNED_SIDE nodes a side, each time that the server sends it.
 */
export function training({ api, say, alert, clear, problem, onField }) {
  const idle = "Train a network on these points";
  const text = el("p", { class: "muted" });
  const progress = el("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress of the training" });
  const switchButton = button(idle, () => (running ? stop() : start()));
  let running = null, seen = "";

  function stop() {
    running?.abort();
    running = null;
    switchButton.textContent = idle;
    progress.hidden = true;
  }

  async function start() {
    stop();
    clear();
    const mine = new AbortController();
    running = mine;
    switchButton.textContent = "Stop the training";
    progress.value = 0;
    progress.hidden = false;
    text.textContent = "Training begins.";
    let first = true;
    const show = (last) => ({ images, total, loss, gradient }) => {
      if (running !== mine) return;
      progress.value = images / total;
      seen = `The network has seen ${images.toLocaleString("en")} noisy points; its mean loss is ${short(loss)}. `
        + "The loss cannot reach 0: a noisy point does not say which data point it came from.";
      text.textContent = seen;
      onField(new Float32Array(bytes(gradient).buffer), { first, last });
      first = false;
    };
    const { points, decay } = problem();
    const pairs = Array.from({ length: points.length / 2 }, (_, index) => [points[2 * index], points[2 * index + 1]]);
    try {
      await api.stream("/studio/landscape", { points: pairs, decay, extent: EXTENT, side: LEARNED_SIDE },
        { onProgress: show(false), onDone: show(true), signal: mine.signal });
      say("The network is trained.");
    } catch (error) {
      if (running === mine) text.textContent = "";
      alert(error);
    } finally {
      if (running === mine) stop();
    }
  }

  return {
    element: el("div", { class: "inputs" }, switchButton, progress, text),
    start,
    stop,
    /** Ends a training and removes its text. */
    forget() {
      stop();
      text.textContent = "";
    },
    /** Adds how far the learned field is from the exact one, as a share. */
    compare(difference) {
      text.textContent = `${seen} Its field differs from the exact one by ${Math.round(100 * difference)} % on this map.`;
    },
  };
}
