// Find pictures that are unlike the training pictures: scores, p-values, maps, and a decision.

import { button, download, dropZone, el, field, more, pngUrl, section, short } from "./elements.js";
import { bitmapOf, canvasOf, decode, encode, fitted } from "./pictures.js";

export const title = "Find unusual pictures";

const AT_ONCE = 8; // pictures in one request, so that the first results come soon
const MOST = 200; // pictures in the table
const DRAWN = 6; // pictures that the model draws as examples

export function mount(element, context) {
  let items = []; // {name, own, source, input, result}
  let answer = null; // the last answer, for its thresholds
  let rates = []; // [{fpr, threshold}], the lowest rate first
  let stop = null, seed = 1;

  const without = el("p", { class: "notice" });
  const words = el("p", { class: "verdict" });
  const rows = el("tbody");
  const rate = field({
    label: "False-alarm rate", type: "range", min: 0, max: 0, step: 1, value: 0,
    help: "Move it: the decisions change at once. A higher rate finds more anomalies and raises more false alarms.",
    format: (k) => rates[k] ? `${short(100 * rates[k].fpr)} %` : "",
    onInput: () => { show(); context.say(words.textContent); },
  });
  const opacity = field({
    label: "Strength of the map", type: "range", min: 0, max: 100, step: 5, value: 60, unit: "%",
    help: "At 0 % you see the picture alone.",
    onInput: (value) => results.style.setProperty("--map", value / 100),
  });
  const progress = el("progress", { max: 1, value: 0, "aria-label": "Pictures scored", hidden: true });
  const results = section("Results, the most unusual first", null, words,
    el("div", { class: "fields" }, rate.element, opacity.element), mapScale(),
    el("table", { class: "verdicts" },
      el("caption", { class: "unseen" }, "Score, p-value and decision of each picture"),
      el("thead", {}, el("tr", {}, ...["Picture", "Score", "p-value", "Decision"].map((name) => el("th", { scope: "col" }, name)))),
      rows),
    el("div", { class: "row actions" }, button("Download as CSV", saveTable), button("Remove all", clear)));
  const drop = dropZone({
    label: "Your pictures", panel: element, onFiles: (files) => add(() => fromFiles(files, context)),
    help: "Drop, paste or choose several. They are cut to a square, brought to the size of the model, and sent to this server only.",
  });
  const swap = field({
    label: "Swap light and dark in my pictures", type: "checkbox",
    help: "For pictures that are dark on light, where those of the model are light on dark.",
    onInput: () => {
      for (const item of items) if (item.own) item.result = null;
      show();
      if (items.length) add(() => []);
    },
  });
  const examples = el("div", { class: "row" },
    button("Pictures like the training data", () => add(drawn), { kind: "main" }),
    button("Unusual pictures", () => add(unusual)));
  const trial = section("Try it",
    "The model draws pictures like its training data. The unusual ones are noise, and drawn pictures inverted, turned or cut up.",
    examples, drop, swap.element, progress);
  trial.classList.add("spaced");
  const tools = el("div", {},
    trial,
    results);
  element.append(
    el("p", { class: "lead" },
      "The field was trained on one kind of pictures. A picture of another kind surprises it. The detector measures how much, and where."),
    without,
    el("div", { class: "split" }, tools, explanation()));

  /** Reads pictures with `make`, adds them, and asks for their scores. */
  async function add(make) {
    stop?.abort();
    const mine = stop = new AbortController();
    context.clear();
    busy(true);
    try {
      const found = await make(mine.signal);
      if (mine.signal.aborted) return;
      const room = MOST - items.length;
      if (found.length > room) context.alert(`The table takes ${MOST} pictures; ${found.length - Math.max(room, 0)} were left out.`);
      items.push(...found.slice(0, Math.max(room, 0)));
      show();
      await judge(mine.signal);
    } catch (error) {
      context.alert(error);
    }
    if (stop === mine) busy(false);
  }

  function busy(yes) {
    for (const each of examples.children) each.disabled = yes;
    progress.hidden = !yes;
    if (yes) progress.removeAttribute("value");
  }

  /** Asks for the scores of all pictures that have none. */
  async function judge(signal) {
    const model = context.model;
    const waiting = items.filter(({ result }) => !result);
    for (let k = 0; k < waiting.length; k += AT_ONCE) {
      const part = waiting.slice(k, k + AT_ONCE);
      for (const item of part) item.input = toModel(item.source, model, item.own && swap.value);
      const next = await context.api.post("/v1/detect", {
        model: model.id, images: part.map(({ input }) => input), maps: true,
      }, { signal });
      part.forEach((item, index) => { item.result = next.results[index]; });
      setRates(next);
      progress.value = (k + part.length) / waiting.length;
      show();
    }
    context.say(words.textContent);
  }

  function setRates(next) {
    const first = !answer;
    answer = next;
    if (!first) return;
    rates = [...next.thresholds];
    if (!rates.some(({ fpr }) => fpr === next.fpr)) rates.push({ fpr: next.fpr, threshold: next.threshold });
    rates.sort((a, b) => a.fpr - b.fpr);
    rate.input.max = rates.length - 1;
    rate.value = rates.findIndex(({ fpr }) => fpr === next.fpr);
  }

  const isAnomalous = ({ p_value }) => p_value <= rates[rate.value].fpr * (1 + 1e-9);

  function sorted() {
    const size = ({ result }) => result.score ?? Infinity;
    return items.filter(({ result }) => result).sort((a, b) =>
      a.result.p_value - b.result.p_value || (size(b) === size(a) ? 0 : size(b) - size(a)));
  }

  function show() {
    const known = sorted();
    results.hidden = !known.length;
    if (!known.length) return;
    const { fpr, threshold } = rates[rate.value];
    const count = known.filter(({ result }) => isAnomalous(result)).length;
    words.textContent = `${count} of ${known.length} pictures ${count === 1 ? "is" : "are"} called anomalous, ` +
      `at a false-alarm rate of ${short(100 * fpr)} %: those with a score above ${short(threshold)}.`;
    rows.replaceChildren(...known.map((item) => row(item, isAnomalous(item.result))));
  }

  function saveTable() {
    const { fpr, threshold } = rates[rate.value];
    const lines = sorted().map(({ name, result }) => [
      `"${name.replaceAll('"', '""')}"`, result.score ?? "inf", result.p_value, isAnomalous(result), fpr, threshold,
    ].join(","));
    download("scores.csv", ["picture,score,p_value,anomalous,false_alarm_rate,threshold", ...lines, ""].join("\n"), "text/csv");
  }

  function clear() {
    stop?.abort();
    items = [];
    show();
    busy(false);
    drop.querySelector("input").focus();
    context.say("All pictures are removed.");
  }

  /** Pictures that the model draws. */
  async function drawn(signal) {
    const { samples } = await context.api.post("/v1/sample", {
      model: context.model.id, count: DRAWN, seed: 1000 * seed++,
    }, { signal });
    return Promise.all(samples.map(async ({ label, b64_json }) => ({
      name: `${label ?? "sample"}, drawn`, source: canvasOf(await decode(b64_json)),
    })));
  }

  /** Pictures of no kind that the model knows. */
  async function unusual(signal) {
    const known = items.filter(({ name }) => name.endsWith(", drawn"));
    const clothes = known.length >= DRAWN ? known.slice(-DRAWN) : await drawn(signal);
    const { width, height } = clothes[0].source;
    const made = ["inverted", "inverted", "turned", "turned", "cut up", "cut up"];
    return [{ name: "noise", source: noise(width, height) }, ...clothes.map(({ name, source }, k) => ({
      name: `${name.replace(", drawn", "")}, ${made[k]}`, source: changed(source, made[k]),
    }))];
  }

  let scored = null;
  context.onModel((model) => {
    const able = Boolean(model?.eqm?.detector);
    tools.hidden = !able;
    without.hidden = able || !model;
    const others = context.models.filter(({ eqm }) => eqm?.detector).map(({ id }) => id);
    without.textContent = model
      ? `${model.id} has no detector: ${others.length ? `choose ${others.join(" or ")} above, or ` : ""}calibrate one on ` +
        'normal pictures with "eqm detect MODEL PICTURES --normal NORMAL --save", and start this server again.'
      : "";
    stop?.abort();
    busy(false);
    if (!able) return;
    if (scored !== model.id) {
      scored = model.id;
      answer = null;
      for (const item of items) item.result = null;
      show();
    }
    if (items.some(({ result }) => !result)) add(() => []);
  });
  show();
}

/** A row of the table. */
function row({ name, input, result }, anomalous) {
  const map = result.map
    ? el("img", { class: "pixels over", src: pngUrl(result.map), alt: `Where ${name} is unusual` }) : null;
  return el("tr", { class: anomalous ? "anomalous" : null },
    el("th", { scope: "row" }, el("figure", { class: "picture" },
      el("span", { class: "stack" }, el("img", { class: "pixels", src: pngUrl(input), alt: name }), map),
      el("figcaption", {}, name))),
    el("td", {}, result.score === null ? "infinite" : short(result.score)),
    el("td", {}, result.p_value < 0.01 ? result.p_value.toFixed(4) : result.p_value.toFixed(3)),
    el("td", {}, el("span", { class: `badge ${anomalous ? "stopped" : "complete"}` }, anomalous ? "anomalous" : "normal")));
}

function mapScale() {
  return el("figure", { class: "scale" },
    el("div", { class: "ramp", "aria-hidden": "true" }),
    el("div", { class: "line", "aria-hidden": "true" }, ...["1", "2", "4", "8 or more"].map((text) => el("span", {}, text))),
    el("figcaption", { class: "help" },
      "Red on a picture: how many times the error of the field is larger there than on normal pictures, from 1 (no colour) to 8 (full red)."));
}

function explanation() {
  return el("div", {},
    section("What the numbers mean", null,
      el("dl", { class: "terms" },
        el("dt", {}, "Score"), el("dd", {}, "How unlike the training pictures. Higher is more unusual. It has no unit."),
        el("dt", {}, "p-value"), el("dd", {}, "The share of normal pictures with a score at least as high. At 0.02, 2 of 100 normal pictures look as unusual as this one."),
        el("dt", {}, "False-alarm rate"), el("dd", {}, "You choose it. At 5 %, about 5 of 100 normal pictures are called anomalous by mistake. A picture is called anomalous if its p-value is at most this rate."))),
    section("What the detector cannot know", null,
      el("ul", { class: "plain" },
        el("li", {}, "It knows its training pictures and nothing else. Unusual is not the same as wrong."),
        el("li", {}, "A p-value is not the probability that a picture is an anomaly. That depends on how rare anomalies are."),
        el("li", {}, "An anomaly that looks like a training picture passes."),
        el("li", {}, "The rate holds for pictures taken like the training pictures. With another camera, background or size, all may look unusual.")),
      more("How to adapt it to your pictures", el("p", {},
        "Calibrate the detector on 1,000 normal pictures of yours: ",
        el("code", {}, "eqm detect MODEL PICTURES --normal NORMAL --save"), ". No anomalies are needed."))));
}

/** Items of files of the user. Says what is wrong with the files that are left out. */
async function fromFiles(files, { alert }) {
  const found = [];
  const wrong = [];
  for (const file of files) { // one after the other: several large pictures would fill the memory
    try {
      found.push({ name: file.name, own: true, source: await bitmapOf(file) });
    } catch (error) {
      wrong.push(error.message);
    }
  }
  if (wrong.length) alert(wrong.length > 1 ? `${wrong[0]} ${wrong.length} files were left out.` : wrong[0]);
  return found;
}

/** A picture as the model takes it: a base64 PNG. */
function toModel(source, model, inverted) {
  const [channels, height, width] = model.eqm.shape;
  return encode(fitted(source, width, height, { grey: channels === 1, inverted }));
}

function noise(width, height) {
  const data = new ImageData(width, height);
  for (let i = 0; i < data.data.length; i += 4) data.data.fill(256 * Math.random(), i, i + 3).fill(255, i + 3, i + 4);
  return canvasOf(data);
}

/** A drawn picture, "inverted", "turned" by a quarter, or "cut up" into quarters that change places. */
function changed(source, how) {
  const { width, height } = source;
  const canvas = el("canvas");
  [canvas.width, canvas.height] = [width, height];
  const to = canvas.getContext("2d");
  if (how === "cut up") {
    const [w, h] = [width / 2, height / 2];
    for (const [x, y] of [[0, 0], [w, 0], [0, h], [w, h]]) to.drawImage(source, x, y, w, h, w - x, h - y, w, h);
    return canvas;
  }
  if (how === "inverted") to.filter = "invert(1)";
  else {
    to.translate(width / 2, height / 2);
    to.rotate(Math.PI / 2);
    to.translate(-width / 2, -height / 2);
  }
  to.drawImage(source, 0, 0);
  return canvas;
}
