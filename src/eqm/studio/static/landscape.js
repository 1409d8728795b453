// The panel Landscape: what Equilibrium Matching does, in two dimensions.

import { chart } from "./chart.js";
import { DATASETS } from "./datasets.js";
import { button, calm, el, field, section, short } from "./elements.js";
import { clamp, handle } from "./landscape_handles.js";
import { questions } from "./landscape_questions.js";
import { inputs } from "./landscape_settings.js";
import { LEARNED_SIDE, training } from "./landscape_training.js";
import { view } from "./landscape_view.js";
import { DEFAULTS, describe, STORIES, tally } from "./landscape_words.js";
import { between, EXTENT, exactField } from "./plane.js";
import { advance, MOVING, noise, samplesAt } from "./rules.js";

export const title = "What is a landscape?";

const SIDE = 81; // nodes a side of the map

export function mount(element, { api, say, alert, clear }) {
  const settings = structuredClone(DEFAULTS);
  let points = pointsOf(settings.data);
  let start = [2.6, 2.6];
  let seed = 1;
  let samples = samplesAt([]);
  let gradientAt = null; // the field that samples descend
  let learned = null; // the field of the network on a grid, if there is one
  let map = null;
  let path = [];
  let history = [];
  let playing = false;

  // ---- the picture ----
  const scene = view("Samples descend on a landscape with data points in its valleys.");
  const startHandle = handle(scene, { kind: "start", name: "Start", move: moveStart });
  scene.element.append(startHandle);
  let pointHandles = [];

  function showPoints() {
    for (const node of pointHandles) node.remove();
    const editable = settings.data === "few";
    pointHandles = !editable ? [] : Array.from({ length: points.length / 2 }, (_, index) => {
      const move = (x, y) => {
        points[2 * index] = x;
        points[2 * index + 1] = y;
        node.put(x, y);
        fieldChanged();
      };
      const remove = () => removePoint(index);
      const node = handle(scene, { kind: "point", name: `Data point ${index + 1}`, move, remove });
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
  let startBefore = start; // the first click of a double click moves the start: it goes back
  scene.element.addEventListener("click", (event) => {
    if (event.target.closest(".handle")) return;
    if (event.detail < 2) startBefore = start;
    moveStart(...scene.toPlane(event).map(clamp));
  });
  scene.element.addEventListener("dblclick", (event) => {
    if (settings.data !== "few") return;
    moveStart(...startBefore);
    addPoint(...scene.toPlane(event).map(clamp));
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
    const gradient = shown.value === "learned" ? learned : null;
    const side = gradient ? LEARNED_SIDE : SIDE;
    worker.postMessage({ points: Float64Array.from(points), decay: settings.decay, side, learned: gradient });
  }
  worker.onmessage = ({ data }) => {
    map = data;
    computing = false;
    if (stale) askForMap();
    redrawMap();
    tracePath();
    redraw();
    element.dataset.ready = "true";
    if (data.difference && learned) trainer.compare(data.difference);
  };
  worker.onerror = (event) => alert(`The map cannot be computed: ${event.message}`);

  /** After a change of the data or of c: the exact field again. */
  function fieldChanged() {
    trainer.forget();
    learned = null;
    shown.value = "exact";
    useField(true);
  }

  // ---- the descent ----
  const rule = () => ({
    rule: settings.rule, stepSize: settings.stepSize, momentum: settings.momentum, stopBelow: settings.stopBelow,
  });

  /** New samples; they begin to move if the ones before had all ended. */
  function restart() {
    if (ended() && !calm()) setPlaying(true);
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
    const end = Math.max(pathNorms.length, history.length, 2), level = settings.stopBelow;
    normChart.set([
      { name: "the start", points: pathNorms },
      { name: "mean of all samples", points: history },
      { name: "stop", points: level > 0 ? [[0, level], [end, level]] : [] },
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
      ["Nearer to a data point than 0.15", `${found.atData} of ${all}`],
      ["Data points with a sample so near", `${found.reached} of ${found.points}`],
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
        scene.describe(`A map with ${points.length / 2} data points. ${sentence}`);
      }
    }
    if (playing) frame = requestAnimationFrame(animate);
  }

  let wasPlaying = false; // while the panel is hidden: whether it goes on when it is shown
  function setPlaying(next, inHurry = false) {
    if (element.hidden && next) {
      wasPlaying = true;
      return;
    }
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
  const form = inputs(settings, {
    onData() { points = pointsOf(settings.data); leaveStory(); pointsChanged(); },
    onDecay() { leaveStory(); fieldChanged(); },
    onDescent() { leaveStory(); restart(); },
  });
  const removeButton = button("Remove the chosen point", () => removePoint(selected < 0 ? points.length / 2 - 1 : selected));
  const edit = el("div", { class: "edit" },
    el("p", { class: "help" }, "Drag the circles. A double click on the map adds a point. With the keyboard: Tab to a circle, then arrow keys or Delete."),
    el("div", { class: "row" }, button("Add a point", () => addPoint(...freePlace())), removeButton));
  function freePlace() {
    const angle = points.length * 1.2;
    return [Number((1.2 * Math.cos(angle)).toFixed(1)), Number((1.2 * Math.sin(angle)).toFixed(1))];
  }

  const normChart = chart({ title: "Gradient norm: how steep it is", x: "step", y: "gradient norm", log: true });
  const energyChart = chart({ title: "Energy: how high the start still is", x: "step", y: "energy" });

  // ---- a learned field ----
  const shown = field({
    label: "Field to descend", type: "select", options: [["exact", "exact: computed"], ["learned", "learned by the network"]],
    help: "Both fields of these points. The exact one is what perfect training would learn.",
    onInput: () => useField(true),
  });
  const trainer = training({
    api, say, alert, clear,
    problem: () => ({ points, decay: settings.decay }),
    onField(gradient, { first, last }) {
      learned = gradient;
      shown.value = "learned";
      useField(first || last);
      if ((first || last) && !calm()) setPlaying(true);
    },
  });

  /** Shows the chosen field, and descends it; `again` begins with new samples. */
  function useField(again) {
    shown.element.hidden = !learned;
    const exact = exactField(Float64Array.from(points), settings.decay, { nodes: 65 });
    gradientAt = shown.value === "learned" ? between(learned, LEARNED_SIDE, 2) : exact;
    askForMap();
    if (again) restart();
  }

  // ---- stories ----
  const storyText = el("p", { class: "story", role: "status" });
  const stories = STORIES.map(([name, sentences, changes]) => button(name, () => tell(name, sentences, changes), { "aria-pressed": "false" }));
  const trainedStory = button("A trained network", () => {
    tell("A trained network", "A small network learns the field from noisy points, and the map changes while it learns. Nobody tells it how noisy a point is.", {}, false);
    trainer.start();
  }, { "aria-pressed": "false" });

  /** The settings are the user's own now. */
  function leaveStory() {
    for (const each of [...stories, trainedStory]) each.setAttribute("aria-pressed", "false");
    storyText.textContent = "These are settings of your own. A story brings its settings back.";
  }

  function tell(name, sentences, changes, play = true) {
    Object.assign(settings, structuredClone(DEFAULTS), structuredClone(changes));
    points = pointsOf(settings.data);
    for (const each of [...stories, trainedStory]) each.setAttribute("aria-pressed", String(each.textContent === name));
    storyText.textContent = sentences;
    form.show();
    pointsChanged();
    if (play) setPlaying(true);
    const hidden = scene.element.getBoundingClientRect().bottom > innerHeight;
    if (hidden) storyText.scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  }

  // ---- the page ----
  const key = (kind, text) => el("li", {}, el("span", { class: `key ${kind}`, "aria-hidden": "true" }), text);
  element.append(
    el("p", { class: "lead" }, "Think of a landscape with hills and valleys. Equilibrium Matching learns its slope, so that every valley lies at a data point. ",
      "To make something new, put a ball anywhere and let it walk downhill. Where the ground is flat, it stops: that is a sample."),
    el("section", { class: "card", "aria-label": "Stories to try" },
      el("h2", {}, "Stories to try"),
      el("div", { class: "row stories" }, stories, trainedStory), storyText),
    el("div", { class: "split" },
      el("div", { class: "world" },
        el("section", { class: "card", "aria-label": "The landscape" },
          scene.element,
          el("ul", { class: "keys" }, key("data", "data point"), key("moving", "sample that moves"), key("stopped", "sample that has stopped"), key("start", "one start and its path: drag it")),
          controls,
          el("div", { class: "tally", "aria-hidden": "true" }, bar.moving, bar.stopped, bar.diverged),
          words,
          numbers),
        section("The path of one start", "Drag the large dot on the map, or click anywhere.", startText,
          el("div", { class: "charts" }, normChart.element, energyChart.element))),
      el("div", { class: "choices" },
        section("Data", null, form.data, edit),
        section("Descent", "How the samples walk.", form.descent),
        section("Field", "The field is the slope that training teaches. Here it is computed exactly, without training.",
          form.decay, el("div", { class: "inputs" }, shown.element, trainer.element)),
        section("Picture", null, el("div", { class: "inputs" }, contours.element, arrows.element, form.speed)))),
    questions(),
  );

  form.show();
  startHandle.put(...start);
  storyText.textContent = STORIES[0][1];
  stories[0].setAttribute("aria-pressed", "true");
  pointsChanged();
  if (!calm()) setPlaying(true);

  new ResizeObserver(() => { if (!element.hidden) { redrawMap(); redraw(); } }).observe(scene.element);
  document.addEventListener("theme", () => { scene.forgetColours(); redrawMap(); redraw(); });
  element.addEventListener("hide", () => { wasPlaying = playing; setPlaying(false); });
  element.addEventListener("show", () => { redrawMap(); redraw(); setPlaying(wasPlaying); });
}

const pointsOf = (name) => [...DATASETS.find(([known]) => known === name)[2]()];
