// Draw: pictures come out of noise, each with its curves; variations of a picture.

import { chart } from "./chart.js";
import { classBoxes, classNames } from "./classes.js";
import { button, download, el, field, section, short } from "./elements.js";
import { feed, film, legend, player } from "./film.js";
import { encodeGif } from "./gif.js";
import { canvasOf, encode, savePng, sheet } from "./pictures.js";
import { settings } from "./settings.js";

export const title = "Draw";

const ENLARGED = 4;
const MOST_ANSWER = 1.6e7; // pixels of all pictures that are asked for at once
const MOST_PIXELS = 4e6; // of a GIF, all frames together: more would keep the page busy for seconds

export function mount(element, context) {
  const { api } = context;
  let [model, films, selected, abort, asked] = [null, [], null, null, null];
  const classes = classBoxes();
  const options = settings();
  const go = button("Draw", () => run(), { kind: "main" });
  const next = button("Again with the next seeds", () => { options.next(); run(); });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const grid = el("div", { class: "films" });
  const controls = player();
  const summary = el("p", { class: "muted" }, "Press Draw: pictures come out of noise by descending the landscape of the model.");
  const saves = el("div", { class: "row actions", hidden: true },
    button("Save sheet (PNG)", saveSheet), button("Save paths (GIF)", () => saveGif(films, columns(films), `${model.id}-paths.gif`)),
    button("Save seeds (JSON)", saveSeeds), button("Copy seeds", copySeeds));
  const results = section("Pictures", null, summary, controls.element, grid, legend(), saves);
  controls.element.hidden = true;
  const one = details(context, () => model, (body) => ({ model: model.id, sampling: asked.sampling, ...body }));

  element.append(
    el("p", { class: "lead" }, "Each picture starts as noise and moves downhill, step by step. The model knows no time: a picture can stop by itself, when its gradient is small."),
    el("div", { class: "split form-first" },
      el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } },
        classes.element, options.element, el("div", { class: "row actions" }, go, cancel, next)),
      el("div", {}, results, one.element)));
  element.addEventListener("hide", () => abort?.abort());
  context.onModel((chosen) => {
    if (!chosen || chosen.id === model?.id) return;
    abort?.abort();
    model = chosen;
    classes.show(model);
    options.show(model);
    options.setCount(model.eqm.num_classes > 1 && model.eqm.num_classes <= 12 ? model.eqm.num_classes : 8);
    films = [];
    grid.replaceChildren();
    controls.element.hidden = saves.hidden = true;
    one.hide();
  });

  async function run() {
    if (!model) return context.alert("No model is loaded yet.");
    let wanted;
    try {
      wanted = options.read();
    } catch (error) {
      return context.alert(error);
    }
    context.clear();
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    one.hide();
    const names = classes.chosen().length ? classes.chosen() : classNames(model);
    const labels = names.length ? Array.from({ length: wanted.count }, (_, k) => names[k % names.length]) : null;
    const text = (name) => (name === "none" ? "no class" : name);
    films = Array.from({ length: wanted.count }, (_, k) => film({
      title: labels ? text(labels[k]) : `picture ${k + 1}`, note: `seed ${wanted.seed + k}`, shape: model.eqm.shape, onSelect: select,
    }));
    films.forEach((each, k) => Object.assign(each, { label: labels?.[k] ?? null, seed: wanted.seed + k }));
    grid.replaceChildren(...films.map((each) => each.element));
    controls.start(films);
    controls.element.hidden = false;
    saves.hidden = true;
    busy(true);
    summary.textContent = "Drawing…";
    asked = { model: model.id, labels, count: wanted.count, seed: wanted.seed, sampling: wanted.sampling };
    try {
      const body = { ...asked, preview_every: options.previewEvery(), trajectory: moments(wanted.count, model) };
      const done = await feed(api, "/v1/sample", body, films, { signal: mine.signal, changed: controls.update });
      const nfe = films.reduce((sum, each) => sum + (each.sample?.nfe ?? 0), 0);
      summary.textContent = [`${count(films.length)} in ${short(done.seconds)} s, ${short(nfe)} evaluations of the model. Choose a picture for more.`, ...(done.notes ?? [])].join(" ");
      context.say(`${count(films.length)} ready.`);
    } catch (error) {
      summary.textContent = api.wasStopped(error) ? "Cancelled. Pictures stay where they were." : "No more pictures came.";
      if (mine === abort) context.alert(error);
    }
    if (mine !== abort) return;
    await Promise.all(films.map((each) => each.ready()));
    controls.end();
    saves.hidden = !films.some((each) => each.data);
    busy(false);
  }

  function busy(on) {
    cancel.disabled = !on;
    results.setAttribute("aria-busy", String(on));
  }
  function select(chosen) {
    if (!chosen.data) return;
    for (const each of films) each.select(each === chosen && selected !== chosen);
    selected = selected === chosen ? null : chosen;
    if (selected) one.show(selected);
    else one.hide();
  }
  function finished() {
    return films.filter((each) => each.data);
  }
  function saveSheet() {
    savePng(`${model.id}-sheet.png`, sheet(finished().map((each) => each.data), columns(finished()), ENLARGED));
  }
  function seeds() {
    return films.filter((each) => each.sample).map(({ seed, label, sample }) =>
      ({ seed, label, steps: sample.steps, nfe: sample.nfe, gradient_norm: sample.gradient_norm, outcome: sample.outcome }));
  }
  function saveSeeds() {
    download(`${model.id}-seeds.json`, `${JSON.stringify({ request: asked, samples: seeds() }, null, 2)}\n`, "application/json");
  }
  async function copySeeds() {
    const text = seeds().map(({ seed, label }) => (label === null ? seed : `${seed} ${label}`)).join("\n");
    try {
      await navigator.clipboard.writeText(text);
      context.say("The seeds are copied.");
      summary.textContent = "The seeds are copied: one line a picture, seed and class.";
    } catch {
      context.alert("The browser does not let this page copy: save the seeds as JSON.");
    }
  }
}

/** The part about one picture: large curves, files, variations. */
function details(context, modelNow, request) {
  let [shown, abort] = [null, null];
  const heading = el("h2", { tabindex: "-1" });
  const facts = el("dl", { class: "facts" });
  const outcome = el("p", {});
  const norm = chart({ title: "Gradient norm along the path", x: "step", y: "gradient norm" });
  const energy = chart({ title: "Energy change along the path", x: "step", y: "energy change" });
  const strength = field({
    label: "Strength", type: "range", value: 0.5, min: 0, max: 1, step: 0.05, format: (value) => `${Math.round(100 * value)} % noise`,
    help: "How much of the picture becomes noise before it descends again: 0 keeps it, 100 % is a new picture.",
  });
  const number = field({ label: "Number of variations", type: "number", value: 5, min: 1, max: 32, step: 1 });
  const go = button("Draw variations", vary, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const grid = el("div", { class: "films" });
  const controls = player();
  controls.element.hidden = true;
  const element = el("section", { class: "card", hidden: true }, heading,
    el("div", { class: "two" }, el("div", {}, outcome, facts, el("div", { class: "row actions" },
      button("Save picture (PNG)", () => savePng(`${name()}.png`, canvasOf(shown.data))),
      button("Save path (GIF)", () => saveGif([shown], 1, `${name()}.gif`)))), el("div", {}, norm.element, energy.element)),
    el("h3", {}, "Variations"), el("div", { class: "fields" }, strength.element, number.element),
    el("div", { class: "row actions" }, go, cancel), controls.element, grid);
  const name = () => [modelNow().id, shown.label, `seed-${shown.seed}`].filter(Boolean).join("-").replace(/[^\w.-]+/g, "-");

  async function vary() {
    const wanted = number.value;
    if (!Number.isInteger(wanted) || wanted < 1 || wanted > 32) return context.alert("The number of variations must be a whole number from 1 to 32.");
    context.clear();
    abort?.abort();
    abort = new AbortController();
    const mine = abort;
    const { shape } = modelNow().eqm;
    const films = Array.from({ length: wanted }, (_, k) => film({ title: `variation ${k + 1}`, note: `seed ${shown.seed + 1 + k}`, shape }));
    grid.replaceChildren(...films.map((each) => each.element));
    controls.start(films);
    controls.element.hidden = false;
    cancel.disabled = false;
    try {
      const body = request({ images: [encode(shown.data)], strength: strength.value, count: wanted, seed: shown.seed + 1, preview_every: 1 });
      if (shown.label !== null) body.labels = [shown.label];
      await feed(context.api, "/v1/vary", body, films, { signal: mine.signal, changed: controls.update });
      context.say(`${wanted} variations are ready.`);
    } catch (error) {
      if (mine === abort) context.alert(error);
    }
    if (mine !== abort) return;
    await Promise.all(films.map((each) => each.ready()));
    controls.end();
    cancel.disabled = true;
  }
  return {
    element,
    show(chosen) {
      abort?.abort();
      shown = chosen;
      heading.textContent = `${shown.title}, seed ${shown.seed}`;
      const { sample, frames } = shown;
      const rows = sample
        ? [["Steps", sample.steps], ["Evaluations of the model (NFE)", sample.nfe], ["Gradient norm at the end", number3(sample.gradient_norm)], ["Energy change from start to end", number3(frames.at(-1).energy)]]
        : [["Steps so far", shown.lastStep]];
      outcome.textContent = sample?.sentence ?? (shown.cancelled ? "It was cancelled on its way." : "It is still on its way.");
      facts.replaceChildren(...rows.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, String(value))]));
      norm.set([{ name: "gradient norm", points: frames.map((frame) => [frame.steps, frame.norm]) }]);
      energy.set([{ name: "energy change", colour: 1, points: frames.map((frame) => [frame.steps, frame.energy]) }]);
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

/** How many moments of its path to ask for with each picture: fewer of many or large pictures. */
function moments(number, { eqm: { shape: [, height, width] } }) {
  const most = Math.floor(MOST_ANSWER / (number * height * width)) - 1;
  return most < 1 ? null : Math.min(50, most);
}

const count = (number) => `${number} picture${number === 1 ? "" : "s"}`;
const number3 = (value) => (Number.isFinite(value) ? short(value) : "unknown");
const columns = (films) => Math.min(films.length, films.length <= 10 ? 5 : 8);

/** Saves the paths of films as one GIF: a frame for each step that was seen, the last one longer. */
async function saveGif(films, wide, name) {
  const shown = films.filter((each) => each.data);
  await Promise.all(shown.map((each) => each.ready()));
  const steps = [...new Set(shown.flatMap((each) => each.frames.map((frame) => frame.steps)))].sort((a, b) => a - b);
  const area = shown.length * shown[0].data.width * shown[0].data.height * steps.length;
  const scale = Math.max(1, Math.min(ENLARGED, Math.floor(Math.sqrt(MOST_PIXELS / area))));
  const frames = steps.map((step) => {
    const canvas = sheet(shown.map((each) => each.at(step).data), wide, scale);
    return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  });
  const delays = steps.map((_, k) => (k === steps.length - 1 ? 1500 : 90));
  download(name, encodeGif(frames, delays), "image/gif");
}
