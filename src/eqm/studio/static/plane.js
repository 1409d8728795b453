// Fields in the plane: decays c(gamma), the exact field of points, fields on a grid, and their energy.
//
// The same mathematics as eqm.corruption and eqm.OptimalField; tests compare them.

/** The grid and the picture cover -EXTENT..EXTENT in both directions. */
export const EXTENT = 3.4;

/** c(gamma) for `{name, scale, start, initial}`. */
export function decay({ name, scale, start, initial }, gamma) {
  const fall = (1 - gamma) / (1 - start);
  switch (name) {
    case "constant": return scale;
    case "linear": return scale * (1 - gamma);
    case "truncated": return scale * Math.min(1, fall);
    case "piecewise": return scale * (gamma <= start ? initial - ((initial - 1) / start) * gamma : fall);
    default: throw new Error(`unknown decay ${name}`);
  }
}

/**
 * The exact field of `points` (flat: x, y, x, y, ...): a function `field(x, y, out)` that writes the gradient
 * into out[0] and out[1]. It is what perfect training would learn:
 *
 *   f(z) = E[ c(gamma) / (1 - gamma) * (z - point) | z ]
 *
 * The mean is over points and gamma, given that gamma * point + (1 - gamma) * noise = z. The integral over gamma
 * is Simpson's rule, on both sides of the corner of c(gamma) at `start`.
 */
export function exactField(points, settings, { nodes = 97, floor = 1e-4 } = {}) {
  const count = points.length / 2;
  const { level, weight } = quadrature(settings.start, nodes, floor);
  nodes = level.length;
  const gamma = level.map((s) => 1 - s);
  const pull = level.map((s) => decay(settings, 1 - s) / s);
  const precision = level.map((s) => 0.5 / (s * s));
  const length = new Float64Array(count);
  for (let i = 0; i < count; i++) length[i] = Math.hypot(points[2 * i], points[2 * i + 1]);
  const logs = new Float64Array(count * nodes);
  const ends = new Int32Array(count);

  return (x, y, out) => {
    const square = x * x + y * y;
    let highest = -Infinity;
    for (let i = 0; i < count; i++) {
      const px = points[2 * i], py = points[2 * i + 1];
      const along = px * x + py * y, own = length[i] * length[i];
      // Beyond this node |z - gamma point| is above 7 (1 - gamma): such nodes weigh nothing.
      const least = Math.min(Math.hypot(x - px, y - py) / (7 + length[i]), 0.5);
      let q = 0;
      for (let at = i * nodes; q < nodes && level[q] >= least; q++, at++) {
        const g = gamma[q];
        const log = weight[q] - (square - 2 * along * g + own * g * g) * precision[q];
        logs[at] = log;
        if (log > highest) highest = log;
      }
      ends[i] = q;
    }
    let total = 0, all = 0, sumX = 0, sumY = 0;
    for (let i = 0; i < count; i++) {
      let mine = 0;
      for (let q = 0, at = i * nodes, end = ends[i]; q < end; q++, at++) {
        const log = logs[at] - highest;
        if (log < -22) continue;
        const posterior = Math.exp(log);
        total += posterior;
        mine += posterior * pull[q];
      }
      all += mine;
      sumX += mine * points[2 * i];
      sumY += mine * points[2 * i + 1];
    }
    out[0] = (all * x - sumX) / total;
    out[1] = (all * y - sumY) / total;
  };
}

/**
 * The nodes 1 - gamma = floor^(w^2), w from 0 to 1, and the logarithms of their weights times 1 / (1 - gamma)^2, the
 * size of the density of noise. The square puts more nodes near gamma 0, where points far outside have all their weight.
 */
function quadrature(start, nodes, floor) {
  const corner = Math.min(Math.max(1 - start, floor * 1.01), 0.99);
  const middle = Math.sqrt(Math.log(corner) / Math.log(floor));
  const level = [], weight = [];
  for (const [from, to] of [[0, middle], [middle, 1]]) {
    const intervals = 2 * Math.max(Math.round(((to - from) * (nodes - 1)) / 2), 4);
    const spacing = (to - from) / intervals;
    for (let q = 0; q <= intervals; q++) {
      const w = from + spacing * q, s = floor ** (w * w);
      const simpson = q === 0 || q === intervals ? 1 : q % 2 ? 4 : 2;
      level.push(s);
      weight.push(Math.log(simpson * spacing * w) - Math.log(s));
    }
  }
  return { level: Float64Array.from(level), weight: Float64Array.from(weight) };
}

/** Any field on the grid: Float32Array of side * side * 2, rows from below. */
export function onGrid(field, side) {
  const values = new Float32Array(side * side * 2);
  const out = [0, 0];
  for (let row = 0, at = 0; row < side; row++) {
    for (let column = 0; column < side; column++, at += 2) {
      field(tick(column, side), tick(row, side), out);
      values[at] = out[0];
      values[at + 1] = out[1];
    }
  }
  return values;
}

/** The coordinate of a column or row of a grid. */
export const tick = (index, side) => -EXTENT + (2 * EXTENT * index) / (side - 1);

/**
 * `read(x, y, out)` between the grid's values, with `parts` numbers a node: linear in each cell, and beyond the grid
 * as in the outermost cells.
 */
export function between(values, side, parts) {
  const perUnit = (side - 1) / (2 * EXTENT);
  const place = (coordinate) => {
    const position = (coordinate + EXTENT) * perUnit;
    const cell = Math.min(Math.max(Math.floor(position), 0), side - 2);
    return [cell, position - cell];
  };
  return (x, y, out) => {
    const [column, right] = place(x), [row, up] = place(y);
    const at = (row * side + column) * parts, above = at + side * parts;
    for (let part = 0; part < parts; part++) {
      const low = values[at + part] * (1 - right) + values[at + parts + part] * right;
      const high = values[above + part] * (1 - right) + values[above + parts + part] * right;
      out[part] = low * (1 - up) + high * up;
    }
  };
}

/** The length of the gradient at each node. */
export function normsOf(gradient) {
  return Float32Array.from({ length: gradient.length / 2 }, (_, node) =>
    Math.hypot(gradient[2 * node], gradient[2 * node + 1]));
}

/**
 * The energy on the grid whose slope is nearest to the field: weighted least squares over all edges of the
 * grid, by conjugate gradients. The weights make the relative error count. Its lowest value is 0.
 *
 * The field itself is not quite the slope of anything.
 */
export function nearestEnergy(gradient, side, { start = null, iterations = 600, tolerance = 1e-4 } = {}) {
  const count = side * side, spacing = (2 * EXTENT) / (side - 1);
  const across = new Float64Array(count), upward = new Float64Array(count); // weights of the edges
  const diagonal = new Float64Array(count), residual = new Float64Array(count);
  const edge = (from, to, part, weights) => {
    const slope = (gradient[2 * from + part] + gradient[2 * to + part]) / 2;
    const weight = 1 / (0.1 + Math.abs(slope)) ** 2;
    weights[from] = weight;
    diagonal[from] += weight;
    diagonal[to] += weight;
    residual[from] -= weight * slope * spacing;
    residual[to] += weight * slope * spacing;
  };
  for (let node = 0; node < count; node++) {
    if (node % side < side - 1) edge(node, node + 1, 0, across);
    if (node + side < count) edge(node, node + side, 1, upward);
  }
  const apply = (x, result) => {
    for (let node = 0; node < count; node++) result[node] = diagonal[node] * x[node];
    for (let node = 0; node < count; node++) {
      const a = across[node], b = upward[node];
      if (a) { result[node] -= a * x[node + 1]; result[node + 1] -= a * x[node]; }
      if (b) { result[node] -= b * x[node + side]; result[node + side] -= b * x[node]; }
    }
  };
  const energy = start?.length === count ? Float64Array.from(start) : new Float64Array(count);
  const product = new Float64Array(count), direction = new Float64Array(count);
  const goal = tolerance ** 2 * residual.reduce((sum, r, node) => sum + (r * r) / diagonal[node], 0);
  apply(energy, product);
  let size = 0;
  for (let node = 0; node < count; node++) {
    residual[node] -= product[node];
    direction[node] = residual[node] / diagonal[node];
    size += residual[node] * direction[node];
  }
  for (let k = 0; k < iterations && size > goal && size > 0; k++) {
    apply(direction, product);
    let curvature = 0;
    for (let node = 0; node < count; node++) curvature += direction[node] * product[node];
    const step = size / curvature;
    let next = 0;
    for (let node = 0; node < count; node++) {
      energy[node] += step * direction[node];
      residual[node] -= step * product[node];
      next += (residual[node] * residual[node]) / diagonal[node];
    }
    const ratio = next / size;
    for (let node = 0; node < count; node++) {
      direction[node] = residual[node] / diagonal[node] + ratio * direction[node];
    }
    size = next;
  }
  const lowest = energy.reduce((low, value) => Math.min(low, value), Infinity);
  return Float32Array.from(energy, (value) => value - lowest);
}
