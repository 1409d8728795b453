// What the landscape says in words: stories to try, and a description of what the samples do.

import { DIVERGED, MOVING } from "./rules.js";

const TRUNCATED = { name: "truncated", scale: 4, start: 0.8, initial: 1.4 };

/** The settings in which the page opens. */
export const DEFAULTS = {
  data: "few", decay: TRUNCATED, rule: "gradient-descent", stepSize: 0.01, momentum: 0.3, stopBelow: 0.1,
  mostSteps: 400, count: 300, speed: 16,
};

/** A button, two sentences, and the settings that differ from the defaults. */
export const STORIES = [
  ["A good descent",
    "Each sample moves downhill and stops by itself where the slope is almost zero. Every one ends at a data point, after about 100 steps.",
    {}],
  ["Too large a step: overshoot",
    "Near the data the slope is steep, and a step of 0.11 jumps to the other side of the valley. The next step jumps back, so no sample stops; here a step must be below 0.1.",
    { stepSize: 0.11, speed: 8 }],
  ["Far too large: divergence",
    "Each jump ends higher on the other side than it began. The samples fly away to infinity, and are counted as diverged.",
    { stepSize: 0.6, speed: 6, mostSteps: 60 }],
  ["Constant c: no stop at the data",
    "With a constant c(γ) the gradient is as large at the data as far away, as in flow matching. The samples reach the data but jump around them, and only a few stop, by chance.",
    { decay: { ...TRUNCATED, name: "constant", scale: 1 }, speed: 40 }],
  ["Linear c: a slow arrival",
    "With a linear c(γ) the gradient shrinks on the whole way, so samples are slow long before they arrive. They need about three times as many steps as in the first story.",
    { decay: { ...TRUNCATED, name: "linear" }, speed: 40 }],
  ["A heavy ball",
    "Each sample keeps its velocity, like a ball that rolls. It is fast, but it runs through the valley and swings around the data before it rests.",
    { rule: "heavy-ball", momentum: 0.9, stepSize: 0.005 }],
  ["Collapse: too long a walk",
    "Without a stop, samples that have reached the moons go on, and slide along them into a few places. Most of the data points then have no sample near: the variety is lost.",
    { data: "moons", stopBelow: 0, count: 200, speed: 40 }],
];

/** Numbers about the samples: how many move, have stopped, have diverged, are near data, jump back and forth. */
export function tally(samples, points, near = 0.15) {
  const found = { moving: 0, stopped: 0, diverged: 0, atData: 0, jumping: 0, steps: 0, meanNorm: NaN };
  const reached = new Set();
  let norms = 0;
  for (let i = 0; i < samples.count; i++) {
    const state = samples.state[i];
    found[["moving", "stopped", "diverged"][state]]++;
    found.steps = Math.max(found.steps, samples.steps[i]);
    if (state === MOVING) {
      norms += samples.norm[i];
      found.jumping += samples.turned[i] && samples.norm[i] > 0.1 ? 1 : 0;
    }
    if (state === DIVERGED) continue;
    let best = near, which = -1;
    for (let p = 0; p < points.length / 2; p++) {
      const distance = Math.hypot(samples.x[2 * i] - points[2 * p], samples.x[2 * i + 1] - points[2 * p + 1]);
      if (distance < best) [best, which] = [distance, p];
    }
    if (which >= 0) {
      found.atData++;
      reached.add(which);
    }
  }
  found.meanNorm = norms / found.moving;
  found.reached = reached.size;
  found.points = points.length / 2;
  return found;
}

const some = (count, all, what) => (count === all ? `All ${all} ${what}` : `${count} of ${all} ${what}`);

/** One to three sentences about the tally, for the settings; `ended` says that no more steps follow. */
export function describe(found, { count, stopBelow, decay, ended }) {
  const { moving, stopped, diverged, atData, jumping, steps, reached, points, meanNorm } = found;
  if (steps === 0) return "The samples are noise. Press Play, or take one step.";
  const said = [];
  const jump = jumping > 0.3 * count;
  if (diverged) {
    said.push(`${some(diverged, count, "samples")} diverged: each step ended higher than it began. Use a smaller step.`);
  }
  if (jump) {
    const reason = decay.name === "constant"
      ? "The gradient does not shrink there, so no step is small enough."
      : "The step is too large for the slope there.";
    said.push(`Overshoot: ${some(jumping, count, "samples").toLowerCase()} jump back and forth over the data. ${reason}`);
  } else if (moving && !ended) {
    said.push(`${some(moving, count, "samples")} move downhill${
      meanNorm < 0.3 ? ", very slowly" : ""}. Their mean gradient norm is ${meanNorm.toPrecision(2)}.`);
  } else if (moving && stopBelow > 0) {
    said.push(`${some(moving, count, "samples")} did not stop within ${steps} steps.`);
  }
  if (stopped) {
    const beside = Math.max(stopped - atData, 0);
    const where = beside ? `, ${beside} of them away from the data` : stopped === count ? `, at data, after at most ${steps} steps` : "";
    said.push(`${some(stopped, count, "samples")} stopped by themselves${where}.`);
  }
  if (diverged || jump || (moving && !(meanNorm < 0.3))) return said.join(" ");
  const covered = reached === points ? `Each of the ${points} data points has` : `${reached} of ${points} data points have`;
  said.push(reached < 0.6 * points ? `Collapse: only ${covered} a sample near.` : `${covered} a sample near.`);
  return said.join(" ");
}
