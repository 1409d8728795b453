// The settings of a descent: how many pictures, from which seeds, by which steps.

import { el, field, more, short } from "./elements.js";

/** Update rules that can be chosen, with whether they have a momentum. */
export const RULES = {
  "nesterov-lookahead": true, "gradient-descent": false, nesterov: true, "heavy-ball": true, adam: false,
  rmsprop: false, "barzilai-borwein": false, anderson: false, heun: false, "runge-kutta-4": false,
  "adams-bashforth": false, langevin: false,
};

const MOST_GUIDANCE = 6;

/**
 * Fields for a request: `{element, show(model), read(), next()}`.
 *
 * `read` returns {count, seed, sampling}, the last with changes only, and throws an Error that says what
 * is wrong. `next` moves the seed on by the count. `fitted` says whether fitted steps apply.
 */
export function settings({ count = 10, most = 64, fitted = true } = {}) {
  let stored = {};
  let unchanged = 1; // the guidance that is stored, as the slider shows it
  const number = field({ label: "Number of pictures", type: "number", value: count, min: 1, max: most, step: 1 });
  const seed = field({ label: "Seed", type: "number", value: 0, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 });
  const guidance = field({
    label: "Guidance", type: "range", value: 1, min: 0, max: MOST_GUIDANCE, step: 0.1, onInput: explain,
    format: (value) => value.toFixed(1),
    help: "How strongly pictures follow their class; 1 is as trained.",
  });
  const steps = field({
    label: "Steps", type: "select", onInput: explain,
    options: [["stored", "as stored with the model"], ["own", "chosen below"]],
  });
  const about = el("p", { class: "help", "aria-live": "polite" });
  const rule = field({ label: "Rule", type: "select", options: Object.keys(RULES), onInput: explain });
  const size = field({ label: "Step size", type: "number", value: 0.08, min: 0.0001, max: 10, onInput: explain });
  const path = field({
    label: "Path length", type: "number", value: 2, min: 0.0001, max: 1000, onInput: explain,
    help: "The sum of all step sizes after which a picture stops.",
  });
  const momentum = field({ label: "Momentum", type: "number", value: 0.3, min: 0, max: 0.99 });
  const ratio = field({
    label: "Stop early below", type: "number", value: 0.1, min: 0, max: 1,
    help: "Each picture stops by itself when its gradient norm is below this share of its first; 0 turns it off.",
  });
  for (const part of [rule, ratio]) part.element.classList.add("whole");
  const own = el("div", { class: "fields narrow" }, [rule, size, path, momentum, ratio].map((part) => part.element));
  const element = el("div", {},
    el("div", { class: "fields narrow" }, number.element, seed.element),
    el("p", { class: "help" }, "The seed of the first picture. Each further picture has the next seed."), guidance.element,
    more("How it descends", steps.element, about, own));
  const names = { count: number, seed, guidance, step_size: size, path_length: path, momentum, gradient_ratio: ratio };

  function explain() {
    own.hidden = steps.value === "stored";
    momentum.element.hidden = !RULES[rule.value];
    const coefficients = fitted ? stored.multistep_coefficients?.length : 0;
    if (steps.value === "own") {
      const most = Math.max(1, Math.ceil(path.value / size.value - 1e-4));
      about.textContent = isFinite(most) ? `At most ${short(most)} steps a picture.` : "";
    } else if (coefficients && guidance.value === unchanged) {
      about.textContent = `${coefficients} steps whose weights were fitted to this model.`;
    } else {
      const most = Math.max(1, Math.ceil(stored.path_length / stored.step_size - 1e-4));
      about.textContent = `${stored.rule}, step size ${stored.step_size}, path length ${stored.path_length}: `
        + `at most ${most} steps.`
        + (coefficients ? ` The ${coefficients} fitted steps hold for guidance ${stored.guidance} only.` : "");
    }
  }
  function checked(name, whole) {
    const { input } = names[name];
    const value = names[name].value;
    const [low, high] = [Number(input.min), Number(input.max)];
    if (!(value >= low && value <= high) || (whole && !Number.isInteger(value))) {
      input.focus();
      const label = name === "count" ? "number of pictures" : name.replace("_", " ");
      const kind = whole ? "a whole number" : "a number";
      throw new Error(`The ${label} must be ${kind} from ${low} to ${high}; got ${input.value || "nothing"}.`);
    }
    return value;
  }
  return {
    element,
    /** Takes the defaults of a model, an item of /v1/models. */
    show({ eqm }) {
      stored = eqm.sampling;
      guidance.element.hidden = !eqm.num_classes;
      guidance.input.max = Math.max(MOST_GUIDANCE, stored.guidance);
      guidance.value = stored.guidance;
      unchanged = guidance.value; // the slider may have rounded it
      for (const name of ["step_size", "path_length", "momentum"]) names[name].value = stored[name];
      if (stored.rule in RULES) rule.value = stored.rule;
      explain();
    },
    read() {
      const sampling = {};
      if (!guidance.element.hidden && guidance.value !== unchanged) sampling.guidance = checked("guidance");
      if (steps.value === "own") {
        sampling.rule = rule.value; // naming the rule drops the fitted steps
        for (const name of ["step_size", "path_length", "gradient_ratio"]) sampling[name] = checked(name);
        if (RULES[rule.value]) sampling.momentum = checked("momentum");
      }
      return { count: checked("count", true), seed: checked("seed", true), sampling };
    },
    /** The steps between two previews, for about 50 frames a picture. */
    previewEvery() {
      const now = steps.value === "own" ? { step_size: size.value, path_length: path.value } : stored;
      return Math.max(1, Math.ceil(now.path_length / now.step_size / 50) || 1);
    },
    next() { seed.value = Math.min(seed.value + number.value, Number.MAX_SAFE_INTEGER); },
    setCount(value) { number.value = value; },
  };
}
