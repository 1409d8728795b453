// Descents in the plane: the rules of eqm.descent, for many samples at once. Tests compare them.

/** Name, text and what it does in one sentence; `momentum` says whether the rule has one. */
export const RULES = [
  ["gradient-descent", "Gradient descent", "One step straight downhill.", false],
  ["nesterov-lookahead", "Nesterov look-ahead (the paper's)", "Looks one momentum step ahead, and takes the slope from there.", true],
  ["nesterov", "Nesterov", "Keeps a velocity, and takes the slope where it leads.", true],
  ["heavy-ball", "Heavy ball", "Keeps a velocity, like a ball that rolls.", true],
  ["heun", "Heun", "Tries a step, and takes the mean of the slopes at both ends.", false],
];

/** Samples farther away than this count as diverged. */
export const FAR = 1e3;

/** One state of a sample: it moves, has stopped, or has diverged. */
export const MOVING = 0, STOPPED = 1, DIVERGED = 2;

/** Samples before their first step; `starts` is flat: x, y, x, y, ... */
export function samplesAt(starts) {
  const count = starts.length / 2;
  return {
    x: Float64Array.from(starts), // (2 * count)
    moved: new Float64Array(2 * count), // the last move, or the velocity
    norm: new Float64Array(count).fill(NaN), // of the last gradient
    turned: new Uint8Array(count), // whether the last two gradients point in opposite directions
    last: new Float64Array(2 * count), // the last gradient
    steps: new Int32Array(count),
    state: new Uint8Array(count),
    evaluations: 0,
    count,
  };
}

/**
 * One step of every sample that moves. A sample stops where the gradient norm is at most `stopBelow`,
 * after that step, as in eqm.descend; 0 stops none.
 */
export function advance(samples, field, { rule, stepSize, momentum, stopBelow }) {
  const { x, moved, norm, last, turned, steps, state } = samples;
  const g = [0, 0], h = [0, 0];
  const ahead = rule === "nesterov-lookahead" || rule === "nesterov";
  const rolls = rule === "nesterov" || rule === "heavy-ball";
  for (let i = 0; i < samples.count; i++) {
    if (state[i] !== MOVING) continue;
    const a = 2 * i, b = a + 1;
    const look = ahead ? momentum : 0;
    field(x[a] + look * moved[a], x[b] + look * moved[b], g);
    samples.evaluations++;
    let slopeX = g[0], slopeY = g[1];
    if (rule === "heun") {
      field(x[a] - stepSize * g[0], x[b] - stepSize * g[1], h);
      samples.evaluations++;
      slopeX = (g[0] + h[0]) / 2;
      slopeY = (g[1] + h[1]) / 2;
    }
    const keep = rolls ? momentum : 0;
    moved[a] = keep * moved[a] - stepSize * slopeX;
    moved[b] = keep * moved[b] - stepSize * slopeY;
    norm[i] = Math.hypot(g[0], g[1]);
    turned[i] = steps[i] > 0 && g[0] * last[a] + g[1] * last[b] < 0 ? 1 : 0;
    last[a] = g[0];
    last[b] = g[1];
    steps[i]++;
    const nextX = x[a] + moved[a], nextY = x[b] + moved[b];
    if (!(Math.hypot(nextX, nextY) < FAR)) {
      state[i] = DIVERGED;
      continue;
    }
    x[a] = nextX;
    x[b] = nextY;
    if (norm[i] <= stopBelow) state[i] = STOPPED;
  }
}

/** Random numbers in [0, 1) from a seed (mulberry32). */
export function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` points of normal noise, flat. */
export function noise(count, seed) {
  const random = randomFrom(seed);
  const points = new Float64Array(2 * count);
  for (let at = 0; at < points.length; at += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random())), angle = 2 * Math.PI * random();
    points[at] = radius * Math.cos(angle);
    points[at + 1] = radius * Math.sin(angle);
  }
  return points;
}
