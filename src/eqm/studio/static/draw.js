// Draw: pictures come out of noise, each with its curves, and stop by themselves.

import { classBoxes, classNames } from "./classes.js";
import { button, download, el, section, short } from "./elements.js";
import { feed, film, legend, saveGif } from "./film.js";
import { savePng, sheet } from "./pictures.js";
import { player } from "./player.js";
import { settings } from "./settings.js";
import { onePicture } from "./variations.js";

export const title = "Draw";

const LEAD =
  "Each picture starts as noise and moves downhill, step by step. To see each one stop by itself when its gradient " +
  "is small, open “How it descends” and choose the steps yourself.";
const INTRO = "Press Draw: pictures come out of noise by descending the landscape of the model.";
const FEW_CLASSES = 12; // up to so many classes, one picture of each is drawn at first
const MOST_PIXELS = 1.6e7; // of all pictures that are asked for at once

export function mount(element, context) {
  const { api } = context;
  let model = null;
  let films = [];
  let selected = null;
  let asked = null; // the request of these films
  let abort = null;
  const classes = classBoxes();
  const options = settings();
  const go = button("Draw", run, { kind: "main" });
  const cancel = button("Cancel", () => abort?.abort(), { disabled: true });
  const next = button("Again with the next seeds", () => { options.next(); run(); });
  const summary = el("p", { class: "muted" }, INTRO);
  const controls = player();
  const grid = el("div", { class: "films" });
  const saves = el("div", { class: "row actions", hidden: true },
    button("Save sheet (PNG)", saveSheet),
    button("Save paths (GIF)", () => saveGif(`${model.id}-paths.gif`, drawn(), columns())),
    button("Save seeds (JSON)", () => download(`${model.id}-seeds.json`, seedsFile(), "application/json")),
    button("Copy seeds", copySeeds));
  const results = section("Pictures", null, summary, controls.element, grid, legend(), saves);
  const one = onePicture(context);
  const form = el("form", { class: "card", onsubmit: (event) => { event.preventDefault(); run(); } },
    classes.element, options.element, el("div", { class: "row actions" }, go, cancel, next));
  element.append(el("p", { class: "lead" }, LEAD),
    el("div", { class: "split form-first" }, form, el("div", {}, results, one.element)));
  element.addEventListener("hide", stop);
  context.onModel((chosen) => {
    if (!chosen || chosen.id === model?.id) return;
    stop();
    abort = null; // what was asked of the other model has no say any more
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
    model = chosen;
    classes.show(model);
    options.show(model);
    const number = model.eqm.num_classes;
    options.setCount(number > 1 && number <= FEW_CLASSES ? number : 8);
    films = [];
    controls.start(films);
    grid.replaceChildren();
    controls.element.hidden = saves.hidden = true;
    summary.textContent = INTRO;
    one.hide();
  });

  function stop() {
    abort?.abort();
  }

  async function run() {
    if (!model) return context.alert("No model is loaded yet.");
    let wanted;
    try {
      wanted = options.read();
    } catch (error) {
      return context.alert(error);
    }
    const names = classes.chosen().length ? classes.chosen() : classNames(model);
    const labels = names.length ? Array.from({ length: wanted.count }, (_, k) => names[k % names.length]) : null;
    asked = { model: model.id, labels, ...wanted };
    begin(asked);
    stop();
    abort = new AbortController();
    const mine = abort;
    try {
      const body = { ...asked, preview_every: options.previewEvery(), trajectory: moments(wanted.count, model) };
      const done = await feed(api, "/v1/sample", body, films, { signal: mine.signal, changed: controls.update });
      const evaluations = films.reduce((sum, each) => sum + (each.sample?.nfe ?? 0), 0);
      summary.textContent = `${count(films.length)} in ${short(done.seconds)} s, ${short(evaluations)} evaluations of `
        + ["the model. Choose a picture for more.", ...done.notes].join(" ");
      context.say(`${count(films.length)} ready.`);
    } catch (error) {
      if (mine !== abort) return;
      context.alert(error);
      const stopped = api.wasStopped(error);
      summary.textContent = stopped ? "Cancelled. Pictures stay where they were." : "No more pictures came.";
    }
    if (mine === abort) await end();
  }

  function begin({ labels, count: number, seed }) {
    context.clear();
    one.hide();
    selected = null;
    summary.textContent = "Drawing…";
    films = Array.from({ length: number }, (_, k) => {
      const label = labels?.[k] ?? null;
      const text = label === "none" ? "no class" : label ?? `picture ${k + 1}`;
      const made = film({ title: text, note: `seed ${seed + k}`, shape: model.eqm.shape, onSelect: select });
      return Object.assign(made, { label, seed: seed + k });
    });
    grid.replaceChildren(...films.map((each) => each.element));
    controls.start(films);
    controls.element.hidden = cancel.disabled = false;
    saves.hidden = true;
    results.setAttribute("aria-busy", "true");
  }
  async function end() {
    await Promise.all(films.map((each) => each.ready()));
    controls.end();
    saves.hidden = drawn().length === 0;
    cancel.disabled = true;
    results.setAttribute("aria-busy", "false");
  }
  function select(chosen) {
    if (!chosen.data) return;
    selected = selected === chosen ? null : chosen;
    for (const each of films) each.select(each === selected);
    if (selected) one.show(model, selected, asked.sampling);
    else one.hide();
  }

  function saveSheet() {
    savePng(`${model.id}-sheet.png`, sheet(drawn().map(({ data }) => data), columns(), 4));
  }
  const drawn = () => films.filter(({ data }) => data);
  const columns = () => Math.min(drawn().length, drawn().length <= 10 ? 5 : 8);

  /** What draws the same pictures again, and how each ended, as JSON. */
  function seedsFile() {
    const samples = films.filter(({ sample }) => sample).map(({ seed, label, sample }) => {
      const { steps, nfe, gradient_norm, outcome } = sample;
      return { seed, label, steps, nfe, gradient_norm, outcome };
    });
    return `${JSON.stringify({ request: asked, samples }, null, 2)}\n`;
  }
  async function copySeeds() {
    try {
      const lines = films.map(({ seed, label }) => (label === null ? seed : `${seed} ${label}`));
      await navigator.clipboard.writeText(lines.join("\n"));
    } catch {
      return context.alert("The browser does not let this page copy: save the seeds as JSON.");
    }
    summary.textContent = "The seeds are copied: one line a picture, seed and class.";
    context.say(summary.textContent);
  }
}

const count = (number) => `${number} picture${number === 1 ? "" : "s"}`;

/** How many moments of its path to ask for with each picture: fewer of many or large pictures. */
function moments(number, { eqm: { shape: [, height, width] } }) {
  const most = Math.floor(MOST_PIXELS / (number * height * width)) - 1;
  return most < 1 ? null : Math.min(50, most);
}
