// Watch training runs: a list, and the curves, sample sheets and settings of the chosen one.

import { chart } from "./chart.js";
import { el, field, more, pngUrl, section, short } from "./elements.js";

export const title = "Watch a training run";

const EVERY = 2000; // milliseconds between two looks
const LONG = 600; // seconds without a new line that are worth a word
const EARLIER = 3; // older curves that are drawn faintly beside the newest
const KEPT = 200; // sample sheets in memory
const STATES = {
  waiting: "Waiting for the first line of the log",
  running: "Running",
  complete: "Complete",
  stopped: "Stopped before its end",
};

export function mount(element, context) {
  const list = el("ul", { class: "runs" });
  const empty = el("p", { class: "muted" });
  const place = el("div", { class: "run" });
  element.append(
    el("p", { class: "lead" }, "Training writes its numbers into a log. This page reads the log while the run goes on."),
    el("div", { class: "watch" },
      section("Runs", null, list, empty),
      place));

  let runs = [], view = null, timer = null, shown = "", failed = false;

  function choose(id) {
    view = view?.id === id ? view : runView(id, context);
    place.replaceChildren(view.element);
    showList();
    view.update(runs.find((run) => run.id === id)).catch(fail);
  }

  function showList() {
    const items = runs.map((run) => [run.id, run.state, run.images, run.total, run.id === view?.id]);
    if (JSON.stringify(items) === shown) return;
    shown = JSON.stringify(items);
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.run : null;
    list.replaceChildren(...runs.map((run) => el("li", {}, el("button", {
      type: "button", class: "run-item", "data-run": run.id, "aria-pressed": String(run.id === view?.id),
      onclick: () => choose(run.id),
    }, el("strong", {}, run.id), badge(run.state), el("span", { class: "help" }, seen(run))))));
    [...list.querySelectorAll("button")].find((button) => button.dataset.run === focused)?.focus();
  }

  function showEmpty(watched) {
    empty.hidden = runs.length > 0;
    empty.replaceChildren(...(watched
      ? ["There is no run in the folder yet. A run that begins shows up here by itself."]
      : ["This server watches no runs. Start it with the folder of your runs: ", el("code", {}, "eqm studio --runs runs")]));
  }

  async function look() {
    clearTimeout(timer);
    const began = performance.now();
    try {
      const answer = await context.api.get("/v1/runs");
      for (const run of answer.data) {
        const before = runs.find(({ id }) => id === run.id)?.state;
        if (before && before !== run.state) context.say(`${run.id}: ${STATES[run.state]}.`);
      }
      runs = answer.data;
      const here = runs.find(({ id }) => id === view?.id);
      if (view && !here) { view = null; place.replaceChildren(); }
      showEmpty(answer.watched);
      if (!view && runs.length) choose(runs[0].id);
      showList();
      if (view && here) await view.update(here);
      if (failed) context.clear();
      failed = false;
    } catch (error) {
      fail(error);
    }
    if (!element.hidden) timer = setTimeout(look, Math.max(EVERY, 4 * (performance.now() - began)));
  }

  function fail(error) {
    if (!failed) context.alert(error);
    failed = true;
  }

  element.addEventListener("show", look);
  element.addEventListener("hide", () => clearTimeout(timer));
  return look();
}

/** The view of one run: `{id, element, update(run)}`, where `run` is its item in the list. */
function runView(id, context) {
  const address = `/v1/runs/${encodeURIComponent(id)}`;
  const words = el("p", { class: "state" });
  const bar = el("progress", { max: 1, "aria-label": `Progress of ${id}` });
  const facts = el("dl", { class: "tiles" });
  const meanings = el("dl", { class: "terms" });
  const curves = runCurves();
  const sheets = sampleSheets(address, context);
  const settings = runSettings(address, context);
  const element = el("div", {},
    section(id, null, words, bar, facts, more("What these numbers are", meanings)), curves.element, sheets.element, settings.element);
  let lines = [], log = null, at = null, working = null;

  async function read() {
    for (let again = true; again;) {
      const after = lines.at(-1)?.images ?? -1;
      const answer = await context.api.get(`${address}/log?after=${after}`);
      again = answer.more || (answer.log !== log && log !== null);
      lines = answer.log === log || log === null ? lines.concat(answer.lines) : [];
      log = answer.log;
    }
  }

  // One after the other: two at once would add the same lines twice.
  function update(run) {
    working ??= show(run).finally(() => { working = null; });
    return working;
  }

  async function show(run) {
    words.replaceChildren(badge(run.state), ` ${sentence(run)}`);
    bar.hidden = !run.total;
    if (run.total) bar.value = run.images / run.total;
    const now = JSON.stringify([run.changed, run.images, run.state, run.samples]);
    if (now === at) return;
    await read();
    const known = numbers(lines, run);
    facts.replaceChildren(...known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    meanings.replaceChildren(...known.flatMap(([name, , help]) => [el("dt", {}, name), el("dd", {}, `${help}.`)]));
    curves.show(lines);
    await sheets.update(run);
    await settings.update(run);
    at = now;
  }

  return { id, element, update };
}

/** The charts of a log: `{element, show(lines)}`. */
function runCurves() {
  const place = el("div", { class: "charts" });
  const note = el("p", { class: "help" });
  let lines = [], charts = null;
  const smoothing = field({
    label: "Smooth the loss over", type: "range", min: 1, max: 60, step: 1, value: 12, unit: "lines",
    onInput: () => show(lines),
  });
  const log = field({ label: "Logarithmic axis for the loss", type: "checkbox", value: true, onInput: () => { charts = null; show(lines); } });
  const element = section("Curves", null, el("div", { class: "fields" }, smoothing.element, log.element), place, note);

  function build() {
    const x = "images seen";
    charts = {
      loss: chart({ title: "Loss", x, y: "squared error", log: log.value }),
      gamma: chart({ title: "Validation loss by gamma", x: "gamma: 0 is noise, 1 is data", y: "squared error" }),
      norm: chart({ title: "Gradient norm along the descent of samples", x: "part of the path", y: "norm" }),
      rate: chart({ title: "Learning rate", x, y: "rate" }),
      speed: chart({ title: "Speed", x, y: "images a second" }),
      weights: chart({ title: "Gradient norm of the weights", x, y: "norm" }),
    };
    place.replaceChildren(...Object.values(charts).map((each) => each.element));
  }

  function show(next) {
    lines = next;
    if (!charts) build();
    const series = (name) => lines.filter((line) => Number.isFinite(line[name])).map((line) => [line.images, line[name]]);
    const loss = series("loss"), validation = series("val_loss");
    charts.loss.set([
      { name: "each line", points: loss, faint: true, colour: 0 },
      { name: `training, smoothed over ${smoothing.value} lines`, points: smooth(loss, smoothing.value), colour: 0 },
      ...(validation.length ? [{ name: "validation", points: validation, colour: 1 }] : []),
    ]);
    charts.rate.set([{ name: "learning rate", points: series("learning_rate") }]);
    charts.speed.set([{ name: "images a second", points: series("images_per_second") }]);
    charts.weights.set([{ name: "norm", points: series("gradient_norm") }]);
    const missing = [];
    for (const [place, name, what] of [
      ["gamma", "val_loss", "no validation loss yet, and therefore no loss by gamma"],
      ["norm", "descent_gradient_norm", "no gradient norm along the descent of samples yet"],
    ]) {
      const found = profiles(lines, name);
      charts[place].set(found.map(({ images, points }, k) => ({
        name: `${images.toLocaleString("en")} images`, points, faint: k < found.length - 1, colour: 0,
      })));
      charts[place].element.hidden = !found.length;
      if (!found.length) missing.push(what);
    }
    note.textContent = "Faint lines show the single values of the loss and, in other charts, earlier curves." +
      (missing.length ? ` This run has ${missing.join("; ")}.` : "");
  }

  return { element, show };
}

/** The sheets of samples over time: `{element, update(run)}`. */
function sampleSheets(address, context) {
  const image = el("img", { class: "pixels sheet", alt: "" });
  const none = el("p", { class: "muted" }, "There are no samples yet. A run draws the first ones after a minute.");
  let pictures = [], changed = null, asked = 0;
  const kept = new Map();
  const slider = field({
    label: "Samples after", type: "range", min: 0, max: 0, step: 1, value: 0,
    format: (k) => named(pictures[k]), onInput: () => show().catch(context.alert),
  });
  const caption = el("p", { class: "help" });
  const figure = el("div", {}, slider.element, image, caption);
  figure.hidden = true;
  const element = section("Samples over time",
    "Every sheet begins with the same noise and labels, so you see the same pictures become better.",
    none, figure);

  async function show() {
    const chosen = pictures[slider.value], number = ++asked;
    if (!chosen) return;
    const key = `${chosen.name} ${chosen.images ?? changed}`;
    if (!kept.has(key)) {
      const { b64_json } = await context.api.get(`${address}/samples/${chosen.name}`);
      if (kept.size >= KEPT) kept.delete(kept.keys().next().value);
      kept.set(key, b64_json);
    }
    if (number !== asked) return; // the slider has moved on
    image.src = pngUrl(kept.get(key));
    caption.textContent = `Samples after ${named(chosen)}.`;
    image.alt = `A sheet of pictures that the model drew after ${named(chosen)}`;
  }

  async function update(run) {
    none.hidden = run.samples > 0;
    figure.hidden = !run.samples;
    if (!run.samples || (run.samples === pictures.length && pictures.at(-1).images !== null)) return;
    const follows = slider.value >= pictures.length - 1;
    pictures = (await context.api.get(`${address}/samples`)).data;
    changed = run.changed;
    slider.element.hidden = pictures.length < 2;
    slider.input.max = Math.max(pictures.length - 1, 0);
    slider.value = follows ? pictures.length - 1 : slider.value;
    await show();
  }

  return { element, update };
}

const named = (picture) =>
  !picture ? "" : picture.images === null ? "the first minutes" : `${picture.images.toLocaleString("en")} images`;

/** The settings of a run: `{element, update(run)}`. */
function runSettings(address, context) {
  const table = el("dl", { class: "facts settings" });
  const words = el("p", { class: "muted" });
  const element = section("Settings", null, words, more("All settings", table));
  let known = false;

  async function update() {
    if (known) return;
    const { settings } = await context.api.get(address);
    const names = Object.keys(settings);
    known = names.length > 0;
    element.querySelector("details").hidden = !known;
    words.textContent = known
      ? `${settings["data.path"]?.split("/").at(-1) || "own data"}, ${settings.images?.toLocaleString("en")} images, ` +
        `batches of ${settings.batch_size}, ${settings["optimizer.name"]} with a learning rate of ` +
        `${settings["optimizer.learning_rate"]}, decay ${settings["objective.decay"]}, ${settings["objective.energy"]} energy.`
      : "The settings are there after the first checkpoint of the run.";
    table.replaceChildren(...names.flatMap((name) => [
      el("dt", {}, name), el("dd", {}, typeof settings[name] === "string" ? settings[name] || "(empty)" : JSON.stringify(settings[name])),
    ]));
  }

  return { element, update };
}

const badge = (state) => el("span", { class: `badge ${state}` }, state);

const seen = ({ images, total }) =>
  total ? `${images.toLocaleString("en")} of ${total.toLocaleString("en")} images` : `${images.toLocaleString("en")} images`;

function sentence(run) {
  const parts = [`${seen(run)} seen`];
  if (run.total) parts.push(`${(100 * run.images / run.total).toFixed(1)} %`);
  else if (run.images) parts.push("the end is known after the first checkpoint");
  const silent = run.changed ? Math.max(Date.now() / 1000 - run.changed, 0) : 0;
  if (run.state === "running" && silent > LONG) {
    parts.push(`no new line for ${duration(silent)}: it may be paused, compiling or evaluating`);
  } else if (run.state === "running") {
    if (run.seconds_left !== null) parts.push(`about ${duration(run.seconds_left)} left`);
    parts.push(`last line ${duration(silent)} ago`);
  }
  return run.images ? `${parts.join(", ")}.` : `${STATES[run.state]}.`;
}

function numbers(lines, run) {
  const last = lines.at(-1) ?? {};
  const validation = lines.map((line) => line.val_loss).filter(Number.isFinite);
  const recent = lines.slice(-12).map((line) => line.images_per_second).filter(Number.isFinite);
  const mean = recent.reduce((sum, value) => sum + value, 0) / recent.length;
  return [
    ["Loss", last.loss, "Mean squared error of the training images since the line before"],
    ["Validation loss", validation.at(-1), "Mean squared error on images that training does not see"],
    ["Lowest validation loss", validation.length ? Math.min(...validation) : undefined, "The lowest so far; its weights are in the folder best"],
    ["Images a second", recent.length ? mean : undefined, "Mean of the last 12 lines of the log"],
    ["Learning rate", last.learning_rate, "The learning rate of the last step"],
    ["Skipped steps", last.skipped_steps, "Steps left out because the loss or the gradient was not finite"],
    ["Sample sheets", run.samples, "Preview pictures so far"],
  ].filter(([, value]) => Number.isFinite(value)).map(([name, value, help]) => [name, short(value), help]);
}

/** The exponential moving mean of points, as if over the last `count` of them. */
export function smooth(points, count) {
  let sum = 0, weight = 0;
  const keep = 1 - 1 / count;
  return points.map(([x, y]) => {
    [sum, weight] = [sum * keep + y, weight * keep + 1];
    return [x, sum / weight];
  });
}

/** The last curves `name`/place of a log, the newest last: `{images, points}`. */
function profiles(lines, name) {
  const found = [];
  for (let k = lines.length - 1; k >= 0 && found.length <= EARLIER; k--) {
    const points = Object.entries(lines[k])
      .filter(([key, value]) => key.startsWith(`${name}/`) && Number.isFinite(value) && Number.isFinite(Number(key.slice(name.length + 1))))
      .map(([key, value]) => [Number(key.slice(name.length + 1)), value])
      .sort(([a], [b]) => a - b);
    if (points.length) found.unshift({ images: lines[k].images, points });
  }
  return found;
}

function duration(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, each]) => seconds >= each * 1.5) ?? units[3];
  const count = seconds / size;
  const text = count < 10 && size > 1 ? count.toFixed(1) : String(Math.round(count));
  return `${text} ${unit}${text === "1" ? "" : "s"}`;
}
