// The panel Landscape: what Equilibrium Matching does, in two dimensions.

import { chart } from "./chart.js";
import { DATASETS } from "./datasets.js";
import { bytes, button, calm, el, field, more, section, short } from "./elements.js";
import { between, decay, EXTENT, exactField } from "./plane.js";
import { advance, MOVING, noise, RULES, samplesAt } from "./rules.js";
import { view } from "./landscape_view.js";
import { DEFAULTS, describe, STORIES, tally } from "./landscape_words.js";

export const title = "What is a landscape?";

const SIDE = 81, LEARNED_SIDE = 65;
const DECAYS = [
  ["truncated", "Truncated (the default)"], ["linear", "Linear"], ["piecewise", "Piecewise"], ["constant", "Constant (flow matching)"],
];

export function mount(element, { api, say, alert, clear }) {
  const settings = structuredClone(DEFAULTS);
  let points = pointsOf(settings.data);
  let start = [2.6, 2.6];
  let seed = 1;
  let samples = samplesAt([]);
  let gradientAt = null; // the field that samples descend
  let learned = null; // a trained field on the grid, while it is shown
  let map = null;
  let path = [];
  let history = [];
  let playing = false;
  let training = null;

  // ---- the picture ----
  const scene = view("Samples descend on a landscape with data points in its valleys.");
  const startHandle = handle("start", "Start", (x, y) => moveStart(x, y));
  scene.element.append(startHandle);
  let pointHandles = [];

  function handle(kind, name, move, remove = null) {
    const node = el("button", { type: "button", class: `handle ${kind}` });
    node.rename = (x, y) => node.setAttribute("aria-label",
      `${name} at ${x.toFixed(1)}, ${y.toFixed(1)}. Drag it or press the arrow keys${remove ? "; Delete removes it" : ""}.`);
    const to = (x, y) => move(clamp(x), clamp(y));
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      node.onpointermove = (moved) => to(...scene.toPlane(moved));
    });
    const release = () => { node.onpointermove = null; };
    node.addEventListener("pointerup", release);
    node.addEventListener("pointercancel", release);
    node.addEventListener("keydown", (event) => {
      const by = event.shiftKey ? 0.5 : 0.1;
      const [dx, dy] = { ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by] }[event.key] ?? [0, 0];
      if (dx || dy) {
        event.preventDefault();
        to(node.at[0] + dx, node.at[1] + dy);
      } else if (remove && (event.key === "Delete" || event.key === "Backspace")) {
        event.preventDefault();
        remove();
      }
    });
    node.put = (x, y) => {
      node.at = [x, y];
      scene.place(node, x, y);
      node.rename(x, y);
    };
    return node;
  }

  function showPoints() {
    for (const node of pointHandles) node.remove();
    const editable = settings.data === "few";
    pointHandles = !editable ? [] : Array.from({ length: points.length / 2 }, (_, index) => {
      const node = handle("point", `Data point ${index + 1}`, (x, y) => {
        points[2 * index] = x;
        points[2 * index + 1] = y;
        node.put(x, y);
        fieldChanged();
      }, () => removePoint(index));
      node.put(points[2 * index], points[2 * index + 1]);
      node.addEventListener("focus", () => { selected = index; });
      return node;
    });
    scene.element.append(...pointHandles);
    edit.hidden = !editable;
    removeButton.disabled = points.length <= 2;
  }

  let selected = -1;
  function addPoint(x, y) {
    if (settings.data !== "few" || points.length >= 60) return;
    points.push(x, y);
    pointsChanged();
    pointHandles.at(-1).focus();
  }
  function removePoint(index) {
    if (points.length <= 2) return;
    points.splice(2 * index, 2);
    pointsChanged();
    pointHandles[Math.min(index, pointHandles.length - 1)].focus();
  }
  function pointsChanged() {
    selected = Math.min(selected, points.length / 2 - 1);
    showPoints();
    fieldChanged();
  }
  function moveStart(x, y) {
    start = [x, y];
    startHandle.put(x, y);
    tracePath();
    redraw();
  }
  scene.element.addEventListener("click", (event) => {
    if (event.target.closest(".handle")) return;
    moveStart(...scene.toPlane(event).map(clamp));
  });
  scene.element.addEventListener("dblclick", (event) => {
    if (!event.target.closest(".handle")) addPoint(...scene.toPlane(event).map(clamp));
  });

  const redraw = () => scene.drawSamples({ samples, points: settings.data === "few" ? null : points, path });
  const redrawMap = () => map && scene.drawMap(map, contours.value, arrows.value);

  // ---- the field, and its map from a worker ----
  const worker = new Worker(new URL("landscape_worker.js", import.meta.url), { type: "module" });
  let computing = false, stale = false;

  function askForMap() {
    stale = computing;
    if (computing) return;
    computing = true;
    const side = learned ? LEARNED_SIDE : SIDE;
    worker.postMessage({ points: Float64Array.from(points), decay: settings.decay, side, learned });
  }
  worker.onmessage = ({ data }) => {
    map = data;
    computing = false;
    if (stale) askForMap();
    redrawMap();
    tracePath();
    redraw();
    element.dataset.ready = "true";
    if (learned) showDifference(data.difference);
  };
  worker.onerror = (event) => alert(`The map cannot be computed: ${event.message}`);

  /** After a change of the data or of c: the exact field again. */
  function fieldChanged() {
    training?.abort();
    learned = null;
    trained.textContent = "";
    gradientAt = exactField(Float64Array.from(points), settings.decay, { nodes: 65 });
    askForMap();
    showDecay();
    restart();
  }

  // ---- the descent ----
  const rule = () => ({
    rule: settings.rule, stepSize: settings.stepSize, momentum: settings.momentum, stopBelow: settings.stopBelow,
  });

  function restart() {
    samples = samplesAt(noise(settings.count, seed));
    history = [];
    tracePath();
    redraw();
    showNumbers();
  }

  const ended = () => history.length >= settings.mostSteps || (history.length > 0 && !samples.state.includes(MOVING));

  function step() {
    if (ended()) return;
    advance(samples, gradientAt, rule());
    history.push([history.length, samples.norm.reduce((sum, norm) => sum + norm, 0) / samples.count]);
  }

  /** The whole descent of the one start. */
  function tracePath() {
    const one = samplesAt(start);
    const read = map && between(map.energy, map.side, 1), out = [NaN];
    const norms = [], energies = [];
    path = [...start];
    for (let k = 0; k < settings.mostSteps && one.state[0] === MOVING; k++) {
      if (read && Math.max(Math.abs(one.x[0]), Math.abs(one.x[1])) <= EXTENT) {
        read(one.x[0], one.x[1], out);
        energies.push([k, out[0]]);
      }
      advance(one, gradientAt, rule());
      norms.push([k, one.norm[0]]);
      if (Math.hypot(one.x[0], one.x[1]) < 4 * EXTENT) path.push(one.x[0], one.x[1]);
    }
    const how = ["did not stop within", "stopped after", "diverged after"][one.state[0]];
    startText.textContent = `The start at ${start.map((part) => part.toFixed(1)).join(", ")} ${how} ${one.steps[0]} steps. `
      + `Its last gradient norm was ${short(one.norm[0])}.`;
    pathNorms = norms;
    showCharts();
    energyChart.set([{ name: "start", points: energies }]);
  }

  let pathNorms = [];
  function showCharts() {
    normChart.set([
      { name: "the start", points: pathNorms },
      { name: "mean of all samples", points: history },
      ...(settings.stopBelow > 0 ? [{ name: "stop", colour: 2, points: [[0, settings.stopBelow], [Math.max(pathNorms.length, history.length, 2), settings.stopBelow]] }] : []),
    ]);
  }

  function showNumbers() {
    const found = tally(samples, points);
    const all = samples.count;
    for (const [name, part] of Object.entries(bar)) part.style.width = `${(100 * found[name]) / all}%`;
    numbers.replaceChildren(...[
      ["Steps so far", String(history.length)],
      ["Moving", `${found.moving} of ${all}`],
      ["Stopped by themselves", `${found.stopped} of ${all}`],
      ["Diverged", `${found.diverged} of ${all}`],
      ["Near a data point", `${found.atData} of ${all}`],
      ["Data points with a sample near", `${found.reached} of ${found.points}`],
    ].flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
    words.textContent = describe(found, { ...settings, count: all, ended: ended() });
    return words.textContent;
  }

  let lastFrame = 0, due = 0, lastNumbers = 0, frame = 0;
  let hurry = false; // to the end, as fast as the machine can
  function animate(now) {
    frame = 0;
    if (!playing) return;
    due = hurry ? Infinity : due + Math.min(now - lastFrame, 100) * settings.speed / 1000;
    lastFrame = now;
    const begun = performance.now();
    for (; due >= 1 && !ended() && performance.now() - begun < (hurry ? 40 : 14); due--) step();
    due = Math.min(due, 3); // a slow machine shows fewer steps a second
    redraw();
    if (now - lastNumbers > 250 || ended()) {
      lastNumbers = now;
      showCharts();
      const sentence = showNumbers();
      if (ended()) {
        setPlaying(false);
        say(sentence);
      }
    }
    if (playing) frame = requestAnimationFrame(animate);
  }

  function setPlaying(next, inHurry = false) {
    playing = next;
    hurry = inHurry;
    playButton.textContent = playing ? "Pause" : "Play";
    if (playing && !frame) {
      lastFrame = performance.now();
      due = 0;
      frame = requestAnimationFrame(animate);
    }
  }

  const playButton = button("Play", () => {
    if (!playing && ended()) restart();
    setPlaying(!playing);
  }, { kind: "main" });
  const controls = el("div", { class: "row" },
    playButton,
    button("One step", () => { setPlaying(false); step(); redraw(); showCharts(); say(showNumbers()); }),
    button("To the end", () => setPlaying(true, true)),
    button("Restart", () => { restart(); say("The samples are noise again."); }),
    button("New noise", () => { seed++; restart(); say("New noise."); }));

  const contours = field({
    label: "The map shows", type: "select", options: [["energy", "height (energy)"], ["norm", "steepness (gradient norm)"]],
    onInput: redrawMap,
  });
  const arrows = field({ label: "Arrows that point downhill", type: "checkbox", value: false, onInput: redrawMap });

  const bar = Object.fromEntries(["moving", "stopped", "diverged"].map((name) => [name, el("span", { class: name })]));
  const words = el("p", { class: "words" });
  const numbers = el("dl", { class: "facts" });
  const startText = el("p", { class: "muted" });

  // ---- settings ----
  const stepSize = field({
    label: "Step size η", help: "How far one step goes: the gradient times this number.", type: "range",
    min: -3.3, max: 0, step: 0.02, format: (power) => short(10 ** power), onInput: (power) => change({ stepSize: Number((10 ** power).toPrecision(3)) }),
  });
  const ruleField = field({
    label: "Rule", help: " ", type: "select", options: RULES.map(([name, text]) => [name, text]), onInput: (name) => change({ rule: name }),
  });
  const momentum = field({
    label: "Momentum μ", help: "How much of the last move goes on: 0 is none.", type: "range", min: 0, max: 0.98, step: 0.01,
    onInput: (value) => change({ momentum: value }),
  });
  const stopBelow = field({
    label: "Stop below a gradient norm of", help: "A sample stops where the slope is smaller. At 0 it never stops.", type: "range",
    min: 0, max: 1, step: 0.05, onInput: (value) => change({ stopBelow: value }),
  });
  const mostSteps = field({
    label: "Most steps", help: "After so many steps all is over.", type: "range", min: 20, max: 1000, step: 20, onInput: (value) => change({ mostSteps: value }),
  });
  const count = field({
    label: "Samples", help: "How many begin as noise.", type: "range", min: 20, max: 600, step: 20, onInput: (value) => change({ count: value }),
  });
  const speed = field({
    label: "Speed", help: "Steps a second on the page.", type: "range", min: 1, max: 60, step: 1, onInput: (value) => { settings.speed = value; },
  });
  function change(changes) {
    Object.assign(settings, changes);
    showRule();
    restart();
  }

  const data = field({
    label: "Data", type: "select", options: DATASETS.map(([name, text]) => [name, text]),
    onInput: (name) => { settings.data = name; points = pointsOf(name); pointsChanged(); },
  });
  const removeButton = button("Remove the last chosen", () => removePoint(selected < 0 ? points.length / 2 - 1 : selected));
  const edit = el("div", {},
    el("p", { class: "help" }, "Drag the circles. A double click on the map adds a point. With the keyboard: Tab to a circle, then arrow keys or Delete."),
    el("div", { class: "row" }, button("Add a point", () => addPoint(...freePlace())), removeButton));
  function freePlace() {
    const angle = points.length * 1.2;
    return [Number((1.2 * Math.cos(angle)).toFixed(1)), Number((1.2 * Math.sin(angle)).toFixed(1))];
  }

  const decayName = field({ label: "c(γ)", help: "How large the gradient is on the way from noise (γ = 0) to data (γ = 1).", type: "select", options: DECAYS, onInput: (name) => changeDecay({ name }) });
  const scale = field({ label: "Multiplier λ", help: "Multiplies the whole gradient. 4 is the default.", type: "range", min: 0.5, max: 8, step: 0.5, onInput: (value) => changeDecay({ scale: value }) });
  const from = field({ label: "Falls from γ =", help: "Here c(γ) begins to fall to 0.", type: "range", min: 0.05, max: 0.95, step: 0.05, onInput: (value) => changeDecay({ start: value }) });
  const initial = field({ label: "Value at γ = 0", help: "Where a piecewise c(γ) begins.", type: "range", min: 0.2, max: 3, step: 0.1, onInput: (value) => changeDecay({ initial: value }) });
  function changeDecay(changes) {
    settings.decay = { ...settings.decay, ...changes };
    showRule();
    fieldChanged();
  }

  const decayChart = chart({ title: "The chosen c(γ)", x: "γ: the share of data", y: "c(γ)", height: 150 });
  const normChart = chart({ title: "Gradient norm: how steep it is under a sample", x: "step", y: "gradient norm", log: true });
  const energyChart = chart({ title: "Energy: how high the start still is", x: "step", y: "energy" });

  function showDecay() {
    decayChart.set([{ name: "c", points: Array.from({ length: 101 }, (_, k) => [k / 100, decay(settings.decay, k / 100)]) }]);
  }

  /** Brings all inputs to the settings. */
  function showRule() {
    const { decay: chosen } = settings;
    data.value = settings.data;
    decayName.value = chosen.name;
    for (const [part, name] of [[scale, "scale"], [from, "start"], [initial, "initial"]]) part.value = chosen[name];
    from.element.hidden = !["truncated", "piecewise"].includes(chosen.name);
    initial.element.hidden = chosen.name !== "piecewise";
    ruleField.value = settings.rule;
    const [, , sentence, hasMomentum] = RULES.find(([name]) => name === settings.rule);
    ruleField.element.querySelector(".help").textContent = sentence;
    momentum.element.hidden = !hasMomentum;
    stepSize.value = Math.log10(settings.stepSize);
    for (const [part, name] of [[momentum, "momentum"], [stopBelow, "stopBelow"], [mostSteps, "mostSteps"], [count, "count"], [speed, "speed"]]) {
      part.value = settings[name];
    }
  }

  // ---- a trained field ----
  const trained = el("p", { class: "muted", role: "status" });
  const bar2 = el("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress of the training" });
  const trainButton = button("Train a network on these points", () => (training ? training.abort() : train()));
  let trainedText = "";

  function showDifference(difference) {
    trained.textContent = `${trainedText} Its field differs from the exact one by ${Math.round(100 * difference)} % on this map.`;
  }

  async function train() {
    clear();
    training = new AbortController();
    const mine = training;
    trainButton.textContent = "Stop the training";
    bar2.hidden = false;
    bar2.value = 0;
    trained.textContent = "Training begins.";
    let first = true;
    const show = ({ images, total, loss, gradient }) => {
      if (mine.signal.aborted) return;
      const raw = bytes(gradient);
      learned = new Float32Array(raw.buffer);
      gradientAt = between(learned, LEARNED_SIDE, 2);
      bar2.value = images / total;
      trainedText = `The network has seen ${images.toLocaleString("en")} noisy points; its mean loss is ${short(loss)}.`;
      askForMap();
      if (first) {
        first = false;
        restart();
        if (!calm()) setPlaying(true);
      }
    };
    const body = { points: pairs(points), decay: settings.decay, extent: EXTENT, side: LEARNED_SIDE };
    try {
      await api.stream("/studio/landscape", body, { onProgress: show, onDone: show, signal: mine.signal });
      say("The network is trained.");
      restart();
      if (!calm()) setPlaying(true);
    } catch (error) {
      alert(error);
      if (!learned) trained.textContent = "";
    } finally {
      if (training === mine) training = null;
      trainButton.textContent = "Train a network on these points";
      bar2.hidden = true;
    }
  }

  // ---- stories ----
  const storyText = el("p", { class: "story", role: "status" });
  const stories = STORIES.map(([name, sentences, changes]) => button(name, () => tell(name, sentences, changes), { "aria-pressed": "false" }));
  const trainedStory = button("A trained network", () => {
    tell("A trained network", "A small network learns the field from noisy points, and the map changes while it learns. Nobody tells it how noisy a point is.", {}, false);
    if (!training) train();
  }, { "aria-pressed": "false" });

  function tell(name, sentences, changes, play = true) {
    Object.assign(settings, structuredClone(DEFAULTS), structuredClone(changes));
    points = pointsOf(settings.data);
    for (const each of [...stories, trainedStory]) each.setAttribute("aria-pressed", String(each.textContent === name));
    storyText.textContent = sentences;
    showRule();
    pointsChanged();
    if (play) setPlaying(true);
  }

  // ---- the page ----
  const key = (kind, text) => el("li", {}, el("span", { class: `key ${kind}`, "aria-hidden": "true" }), text);
  element.append(
    el("p", { class: "lead" }, "Think of a landscape with hills and valleys. Equilibrium Matching learns its slope, so that every valley lies at data. ",
      "To make something new, put a ball anywhere and let it walk downhill. Where the ground is flat, it stops: that is a sample."),
    el("section", { class: "card", "aria-label": "Stories to try" },
      el("h2", {}, "Stories to try"),
      el("div", { class: "row stories" }, stories, trainedStory), storyText),
    el("div", { class: "split" },
      el("div", {},
        el("section", { class: "card", "aria-label": "The landscape" },
          scene.element,
          el("ul", { class: "keys" }, key("data", "data point"), key("moving", "sample that moves"), key("stopped", "sample that has stopped"), key("start", "one start and its path: drag it")),
          controls,
          el("div", { class: "tally", "aria-hidden": "true" }, bar.moving, bar.stopped, bar.diverged),
          words,
          numbers),
        section("The way of one start", "Drag the large dot on the map, or click anywhere.", startText,
          el("div", { class: "charts" }, normChart.element, energyChart.element))),
      el("div", {},
        section("Picture", null, el("div", { class: "inputs" }, contours.element, arrows.element, speed.element)),
        section("Data", null, el("div", { class: "inputs" }, data.element, edit)),
        section("Field", "The field is the slope that training teaches. Here it is computed exactly, without training.",
          el("div", { class: "inputs" }, decayName.element, scale.element, from.element, initial.element, decayChart.element, trainButton, bar2, trained)),
        section("Descent", "How the samples walk.",
          el("div", { class: "inputs" }, ruleField.element, stepSize.element, momentum.element, stopBelow.element, mostSteps.element, count.element)))),
    explanation(),
  );

  showRule();
  startHandle.put(...start);
  storyText.textContent = STORIES[0][1];
  stories[0].setAttribute("aria-pressed", "true");
  pointsChanged();
  if (!calm()) setPlaying(true);

  new ResizeObserver(() => { if (!element.hidden) { redrawMap(); redraw(); } }).observe(scene.element);
  document.addEventListener("theme", () => { scene.forgetColours(); redrawMap(); redraw(); });
  let wasPlaying = false;
  element.addEventListener("hide", () => { wasPlaying = playing; setPlaying(false); });
  element.addEventListener("show", () => { redrawMap(); redraw(); setPlaying(wasPlaying); });
}

const pointsOf = (name) => [...DATASETS.find(([known]) => known === name)[2]()];
const clamp = (coordinate) => Math.min(Math.max(coordinate, -EXTENT), EXTENT);
const pairs = (flat) => Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index], flat[2 * index + 1]]);

function explanation() {
  return section("Questions", null,
    more("What has this to do with pictures?",
      el("p", {}, "A picture of 28 × 28 pixels is a point too: in a space of 784 dimensions instead of two. Noise is a random point there, far away from all pictures. ",
        "The panel Draw does the same walk downhill in that space; each step changes the pixels a little, until a picture is left.")),
    more("How is the slope learned?",
      el("p", {}, "Take a data point and a random point (noise), and a place between them: γ = 0 is the noise, γ = 1 the data. ",
        "The network sees only the place, and must answer with the arrow from the data to the noise, times c(γ). It cannot know which data point was meant, so it learns the mean of all arrows. That mean is the field.")),
    more("Why is there no clock?",
      el("p", {}, "Diffusion models and flow matching tell the network how noisy its input is, and follow a schedule. Here the network sees only the place. ",
        "So a sample may take large or small steps, begin anywhere, and stop by itself when the gradient is almost zero. Samples at different progress can share one batch.")),
    more("What does c(γ) do?",
      el("p", {}, "It sets how large the gradient is on the way. It must reach zero at the data, so that the ground is flat there and samples stop. ",
        "A constant c(γ) does not: this is flow matching without a clock. A truncated c(γ) is constant for most of the way, and falls only at the end: samples stay fast for long.")),
    more("What can go wrong?",
      el("p", {}, "A step that is too large overshoots the valley; a much larger one diverges. Without a stop, samples slide on to places between the data, and variety is lost: collapse. ",
        "In two dimensions this is stronger than for pictures, because data points lie close together.")),
    more("Is this really an energy?",
      el("p", {}, "Almost. The exact field is not quite the slope of any landscape. The map shows the energy whose slope is nearest to it. ",
        "A model can also be trained so that its field is the exact gradient of an energy; it is then a little less good at pictures.")));
}
