// Repair: a damaged picture, several answers, their mean and their spread.

import { classSelect } from "./classes.js";
import { damageChoice } from "./damage_choice.js";
import { button, el, field, section, short } from "./elements.js";
import { feed, film } from "./film.js";
import { pictureChoice } from "./original.js";
import { canvasOf, decode, psnr, savePng, sheet, spread } from "./pictures.js";
import { player } from "./player.js";

export const title = "Repair";

const LEAD =
  "What was the picture before it was damaged? Often many pictures fit. The model draws several of them. Where " +
  "they differ, the original cannot be known.";
const INTRO = "Press Repair: the model draws several pictures that fit the damaged one.";
const MOST_ANSWERS = 16;

export function mount(element, context) {
  const { api } = context;
  let model = null;
  let picture = null; // ImageData at the size of the model
  let saved = []; // the pictures of the sheet
  let abort = null;
  const original = pictureChoice(context, element, show);
  const damage = damageChoice(show);
  const count = field({ label: "Number of answers", value: 5, min: 2, max: MOST_ANSWERS, step: 1 });
  const seed = field({ label: "Seed", value: 0, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, onInput: show });
  const label = classSelect({ label: "Class that the model is told", none: "none: it has to find out" });
  const go = button("Repair", run, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const before = el("div", { class: "films" });
  const summary = el("p", { class: "muted" }, INTRO);
  const answers = el("div", { class: "films" });
  const together = el("div", { class: "films" });
  const controls = player();
  const save = button("Save sheet (PNG)", () => {
    savePng(`${model.id}-repaired.png`, sheet(saved, saved.length, 4));
  }, { hidden: true });
  const results = section("Answers", null, summary, controls.element, answers, together,
    el("div", { class: "row actions" }, save));
  const form = el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } },
    el("h2", {}, "3. Repair"), el("div", { class: "fields narrow" }, count.element, seed.element), label.element,
    el("div", { class: "row actions" }, go, cancel));
  element.append(el("p", { class: "lead" }, LEAD),
    el("div", { class: "split form-first" }, el("div", {}, original.element, damage.element),
      el("div", {}, section("Before the repair", null, before), form, results)));
  element.addEventListener("hide", () => {
    abort?.abort();
    original.stop();
  });
  element.addEventListener("show", () => { if (model && original.missing) original.take(); });
  context.onModel((chosen) => {
    if (!chosen || chosen.id === model?.id) return;
    abort?.abort();
    abort = null; // what was asked of the other model has no say any more
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
    controls.start([]);
    answers.replaceChildren();
    together.replaceChildren();
    controls.element.hidden = save.hidden = true;
    summary.textContent = INTRO;
    original.stop();
    model = chosen;
    label.show(model);
    original.show(model);
    damage.show(model);
    if (!element.hidden) original.take();
  });

  /** Shows the picture before and after the damage; what was asked of another one is not wanted any more. */
  function show() {
    if (!model) return;
    abort?.abort();
    if (together.children.length) {
      summary.textContent = "The picture or its damage has changed: press Repair for new answers.";
    }
    picture = original.at(...damage.size());
    damage.setBackground(picture);
    if (!picture) return before.replaceChildren(el("p", { class: "muted" }, "No picture yet."));
    const { seen } = damage.apply(picture, seed.value || 0);
    const alike = !damage.already && seen.width === picture.width;
    before.replaceChildren(...(damage.already ? [] : [still("Original", picture)]),
      still("Damaged", seen, alike ? psnr(seen, picture) : null));
  }

  /** What is wrong with the settings, a sentence, or null. */
  function problem() {
    if (!picture) return "Choose a picture first, or take a sample of the model.";
    for (const [part, name] of [[count, "number of answers"], [seed, "seed"]]) {
      const [low, high] = [Number(part.input.min), Number(part.input.max)];
      if (!Number.isInteger(part.value) || part.value < low || part.value > high) {
        return `The ${name} must be a whole number from ${low} to ${high}; got ${part.input.value || "nothing"}.`;
      }
    }
    return damage.problem();
  }

  async function run() {
    const wrong = problem();
    if (wrong) return context.alert(wrong);
    context.clear();
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    const { signal } = mine;
    const truth = damage.already ? null : picture;
    const damaged = damage.apply(picture, seed.value);
    const labels = label.value === "none" || label.element.hidden ? null : [label.value];
    const body = {
      model: model.id, labels, count: count.value, seed: seed.value, preview_every: 1,
      ...damage.measurement(picture, damaged),
    };
    const films = begin(body);
    try {
      const noise = damage.isNoise ? await denoise(body, signal) : { noise: 0, stills: [], sentence: "" };
      const asked = { ...body, noise: noise.noise };
      const done = await feed(api, "/v1/restore", asked, films, { signal, changed: controls.update });
      await Promise.all(films.map((one) => one.ready()));
      if (mine !== abort) return;
      const { mean, deviation, size } = spread(films.map(({ data }) => data));
      const quality = (data) => truth && psnr(data, truth);
      if (truth) for (const one of films) one.remark(decibels(psnr(one.data, truth)));
      together.replaceChildren(still("Mean of the answers", mean, quality(mean)),
        still("Spread of the answers", deviation, null,
          `on average ${(100 * size).toFixed(1)} % of the range; black: all agree, white: 50 % or more`),
        ...noise.stills.map(([name, data]) => still(name, data, quality(data))));
      saved = [truth, damaged.seen, ...films.map(({ data }) => data), mean, deviation]
        .filter((data) => data?.width === mean.width);
      save.hidden = false;
      summary.textContent = `${films.length} answers in ${short(done.seconds)} s. ${noise.sentence}`
        + (truth ? "PSNR compares with the original: higher is nearer." : "There is no original to compare with.");
      context.say("The answers are ready.");
    } catch (error) {
      if (mine !== abort) return;
      context.alert(error);
      summary.textContent = api.wasStopped(error) ? "Cancelled." : "No answers came.";
    }
    if (mine !== abort) return;
    controls.end();
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
  }

  function begin({ count: number, seed: firstSeed }) {
    summary.textContent = "Repairing…";
    const films = Array.from({ length: number }, (_, k) =>
      film({ title: `answer ${k + 1}`, note: `seed ${firstSeed + k}`, shape: model.eqm.shape, curves: false }));
    answers.replaceChildren(...films.map((one) => one.element));
    together.replaceChildren();
    controls.start(films);
    controls.element.hidden = cancel.disabled = false;
    save.hidden = true;
    results.setAttribute("aria-busy", "true");
    return films;
  }

  /** The two single answers of `/v1/denoise`, and the standard deviation of the noise, estimated if unknown. */
  async function denoise({ model: id, labels, images, range }, signal) {
    const known = damage.sigma;
    const asked = { model: id, labels, images, range, sigma: damage.unknown ? "estimate" : known };
    const about = damage.already ? "" : `; it is ${known}`;
    const [likely, mean] = await Promise.all(["sample", "mmse"].map((aim) =>
      api.post("/v1/denoise", { ...asked, aim }, { signal })));
    const stills = [
      ["One descent (looks real)", await decode(likely.samples[0].b64_json)],
      ["Least squared error (smooth)", await decode(mean.samples[0].b64_json)],
    ];
    if (asked.sigma !== "estimate") return { noise: known, stills, sentence: "" };
    const [noise] = mean.sigma;
    return { noise, stills, sentence: `The noise was estimated: standard deviation ${short(noise)}${about}. ` };
  }
}

const decibels = (value) => (value === Infinity ? "the same as the original" : `PSNR ${value.toFixed(1)} dB`);

/** A picture with its name, its PSNR where the original is known, and a remark. */
function still(name, data, quality = null, remark = "") {
  const canvas = canvasOf(data);
  canvas.className = "pixels";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", name);
  const words = [quality === null ? "" : decibels(quality), remark].filter(Boolean);
  return el("figure", { class: "film" }, el("div", { class: "film-face" }, canvas),
    el("figcaption", {}, el("strong", {}, name), words.map((text) => el("span", { class: "film-numbers" }, text))));
}
