// One picture: its curves in large, its files, and variations of it.

import { chart } from "./chart.js";
import { button, el, field, short } from "./elements.js";
import { feed, film, saveGif } from "./film.js";
import { canvasOf, encode, savePng } from "./pictures.js";
import { player } from "./player.js";

const MOST = 32; // variations

/**
 * The part about one picture: `{element, show(model, film, sampling), hide()}`.
 *
 * `film` also has its `seed` and `label`; `sampling` are the settings that it was drawn with.
 */
export function onePicture(context) {
  let model = null;
  let shown = null; // the film
  let sampling = {};
  let abort = null;
  const heading = el("h2", { tabindex: "-1" });
  const outcome = el("p", {});
  const facts = el("dl", { class: "facts" });
  const norm = chart({ title: "Gradient norm along the path", x: "step", y: "gradient norm" });
  const energy = chart({ title: "Energy change along the path", x: "step", y: "energy change" });
  const strength = field({
    label: "Strength", type: "range", value: 0.5, min: 0, max: 1, step: 0.05,
    format: (value) => `${Math.round(100 * value)} % noise`,
    help: "How much of the picture becomes noise before it descends again: 0 keeps it, 100 % is a new picture.",
  });
  const number = field({ label: "Number of variations", value: 5, min: 1, max: MOST, step: 1 });
  const go = button("Draw variations", vary, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const grid = el("div", { class: "films" });
  const controls = player();
  const saves = el("div", { class: "row actions" },
    button("Save picture (PNG)", () => savePng(`${name()}.png`, canvasOf(shown.data))),
    button("Save path (GIF)", () => saveGif(`${name()}.gif`, [shown], 1)));
  const element = el("section", { class: "card", hidden: true }, heading,
    el("div", { class: "two" }, el("div", {}, outcome, facts, saves), el("div", {}, norm.element, energy.element)),
    el("h3", {}, "Variations"), el("div", { class: "fields" }, strength.element, number.element),
    el("div", { class: "row actions" }, go, cancel), controls.element, grid);

  const name = () => [model.id, shown.label, `seed-${shown.seed}`].filter(Boolean).join("-").replace(/[^\w.-]+/g, "-");

  async function vary() {
    const count = number.value;
    if (!Number.isInteger(count) || count < 1 || count > MOST) {
      return context.alert(`The number of variations must be a whole number from 1 to ${MOST}.`);
    }
    context.clear();
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    const seed = shown.seed + 1;
    const films = Array.from({ length: count }, (_, k) =>
      film({ title: `variation ${k + 1}`, note: `seed ${seed + k}`, shape: model.eqm.shape }));
    grid.replaceChildren(...films.map((one) => one.element));
    controls.start(films);
    controls.element.hidden = cancel.disabled = false;
    try {
      const labels = shown.label === null ? null : [shown.label];
      const images = [encode(shown.data)];
      const body = { model: model.id, images, labels, count, seed, sampling, strength: strength.value, preview_every: 1 };
      await feed(context.api, "/v1/vary", body, films, { signal: mine.signal, changed: controls.update });
      context.say(`${count} variations are ready.`);
    } catch (error) {
      if (mine === abort) context.alert(error);
    }
    if (mine !== abort) return;
    controls.end();
    cancel.disabled = true;
  }

  function tell({ sample, frames, lastStep, cancelled }) {
    outcome.textContent = sample?.sentence ?? (cancelled ? "It was cancelled on its way." : "It is still on its way.");
    const number3 = (value) => (isFinite(value) ? short(value) : "unknown");
    const rows = sample
      ? [["Steps", sample.steps], ["Evaluations of the model (NFE)", sample.nfe],
          ["Gradient norm at the end", number3(frames.at(-1).norm)],
          ["Energy change from start to end", number3(frames.at(-1).energy)]]
      : [["Steps so far", lastStep]];
    facts.replaceChildren(...rows.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, String(value))]));
    norm.set([{ name: "gradient norm", points: frames.map((frame) => [frame.steps, frame.norm]) }]);
    energy.set([{ name: "energy change", colour: 1, points: frames.map((frame) => [frame.steps, frame.energy]) }]);
  }
  return {
    element,
    show(ofModel, chosen, withSampling) {
      abort?.abort();
      [model, shown, sampling] = [ofModel, chosen, withSampling];
      heading.textContent = `${shown.title}, seed ${shown.seed}`;
      tell(shown);
      grid.replaceChildren();
      controls.element.hidden = true;
      element.hidden = false;
      heading.focus({ preventScroll: true });
      element.scrollIntoView({ block: "nearest" });
    },
    hide() {
      abort?.abort();
      element.hidden = true;
    },
  };
}
