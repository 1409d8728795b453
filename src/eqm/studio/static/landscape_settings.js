// The inputs of the landscape: data, c(gamma), and how the samples walk.

import { chart } from "./chart.js";
import { DATASETS } from "./datasets.js";
import { el, field } from "./elements.js";
import { decay } from "./plane.js";
import { RULES } from "./rules.js";

const DECAYS = [
  ["truncated", "Truncated (the default)"], ["linear", "Linear"], ["piecewise", "Piecewise"],
  ["constant", "Constant (flow matching)"],
];

const ofPower = (power) => Number((10 ** power).toPrecision(2));

/**
 * The inputs for `settings`, which they change: `{data, decay, descent, speed, show()}`, elements but for `show`,
 * which brings the inputs to the settings. `onData`, `onDecay` and `onDescent` are called after a change.
 */
export function inputs(settings, { onData, onDecay, onDescent }) {
  const range = (label, help, min, max, step, onInput, rest = {}) =>
    field({ label, help, type: "range", min, max, step, onInput, ...rest });
  const set = (name) => (value) => { settings[name] = value; onDescent(); };
  const setDecay = (name) => (value) => { settings.decay = { ...settings.decay, [name]: value }; show(); onDecay(); };

  const data = field({
    label: "Data set", type: "select", options: DATASETS.map(([name, text]) => [name, text]),
    onInput: (name) => { settings.data = name; onData(); },
  });
  const speed = range("Speed", "Steps a second on the page.", 1, 60, 1, (value) => { settings.speed = value; });

  const decayName = field({
    label: "c(γ)", help: "How large the gradient is on the way from noise (γ = 0) to data (γ = 1).", type: "select",
    options: DECAYS, onInput: setDecay("name"),
  });
  const scale = range("Multiplier λ", "Multiplies the whole gradient. 4 is the default.", 0.5, 8, 0.5, setDecay("scale"));
  const start = range("Falls from γ =", "Here c(γ) begins to fall to 0.", 0.05, 0.95, 0.05, setDecay("start"));
  const initial = range("Value at γ = 0", "Where a piecewise c(γ) begins, before the multiplier.", 0.2, 3, 0.1, setDecay("initial"));
  const decayChart = chart({ title: "The chosen c(γ)", x: "γ: the share of data", y: "c(γ)", height: 150 });

  const rule = field({
    label: "Rule", help: " ", type: "select", options: RULES.map(([name, text]) => [name, text]),
    onInput: (name) => { settings.rule = name; show(); onDescent(); },
  });
  const stepSize = range("Step size η", "How far one step goes: the gradient times this number.", -3.3, 0, 0.02,
    (power) => set("stepSize")(ofPower(power)), { format: (power) => String(ofPower(power)) });
  const momentum = range("Momentum μ", "How much of the last move goes on: 0 is none.", 0, 0.98, 0.01, set("momentum"));
  const stopBelow = range("Stop below a gradient norm of", "A sample stops where the slope is smaller. At 0 it never stops.",
    0, 1, 0.05, set("stopBelow"));
  const mostSteps = range("Most steps", "No sample takes more steps than this.", 20, 1000, 20, set("mostSteps"));
  const count = range("Samples", "How many begin as noise.", 20, 600, 20, set("count"));

  function show() {
    const chosen = settings.decay;
    data.value = settings.data;
    decayName.value = chosen.name;
    scale.value = chosen.scale;
    start.value = chosen.start;
    initial.value = chosen.initial;
    start.element.hidden = !["truncated", "piecewise"].includes(chosen.name);
    initial.element.hidden = chosen.name !== "piecewise";
    const curve = Array.from({ length: 101 }, (_, k) => [k / 100, decay(chosen, k / 100)]);
    decayChart.set([{ name: "c", points: curve }]);

    const [, , sentence, hasMomentum] = RULES.find(([name]) => name === settings.rule);
    rule.value = settings.rule;
    rule.element.querySelector(".help").textContent = sentence;
    momentum.element.hidden = !hasMomentum;
    stepSize.value = Math.log10(settings.stepSize);
    momentum.value = settings.momentum;
    stopBelow.value = settings.stopBelow;
    mostSteps.value = settings.mostSteps;
    count.value = settings.count;
    speed.value = settings.speed;
  }

  const group = (...parts) => el("div", { class: "inputs" }, parts.map((part) => part.element));
  return {
    data: group(data),
    decay: group(decayName, scale, start, initial, decayChart),
    descent: group(rule, stepSize, momentum, stopBelow, mostSteps, count),
    speed: speed.element,
    show,
  };
}
