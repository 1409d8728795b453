// Points in the plane for the landscape; flat lists x, y, x, y, ...

import { randomFrom } from "./rules.js";

const around = (count, place) => Array.from({ length: count }, (_, index) => place(index / count, index)).flat();

function moons() {
  const random = randomFrom(2);
  const shake = () => 0.16 * (random() - 0.5);
  return around(56, (share, index) => {
    const upper = index % 2 === 0, angle = Math.PI * share * (56 / 55);
    const x = upper ? Math.cos(angle) : 1 - Math.cos(angle);
    const y = upper ? Math.sin(angle) : 0.5 - Math.sin(angle);
    return [1.55 * (x - 0.5) + shake(), 1.75 * (y - 0.25) + shake()];
  });
}

const spiral = () => around(60, (share) => {
  const angle = 3.6 * Math.PI * Math.sqrt(0.03 + share), radius = 0.22 * angle;
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
});

const ring = () => around(36, (share) => [2 * Math.cos(2 * Math.PI * share), 2 * Math.sin(2 * Math.PI * share)]);

// strokes of the letters E, q and M, from the left, in a box of 3 by 1
const LETTERS = [
  [0, 0, 0, 1], [0, 1, 0.6, 1], [0, 0.5, 0.5, 0.5], [0, 0, 0.6, 0],
  [1.55, 0.62, 1.55, -0.4], [1.3, 0.66, 1.5, 0.6], [1.06, 0.5, 1.2, 0.64], [1, 0.3, 1.03, 0.45], [1.06, 0.1, 1, 0.3],
  [1.2, 0, 1.06, 0.1], [1.2, 0, 1.5, 0.06],
  [2, 0, 2, 1], [2, 1, 2.4, 0.4], [2.4, 0.4, 2.8, 1], [2.8, 1, 2.8, 0],
];

const letters = () => LETTERS.flatMap(([x0, y0, x1, y1]) => {
  const count = Math.max(1, Math.round(Math.hypot(x1 - x0, y1 - y0) / 0.14));
  return Array.from({ length: count }, (_, index) => {
    const share = (index + 0.5) / count;
    return [1.75 * (x0 + share * (x1 - x0) - 1.4), 1.75 * (y0 + share * (y1 - y0) - 0.4)];
  }).flat();
});

/** Name, text and points. */
export const DATASETS = [
  ["few", "A few points", () => [2.1, 0.9, -0.3, 2.1, -2.2, 0.5, -1.2, -1.8, 1.4, -1.7]],
  ["moons", "Two moons", moons],
  ["spiral", "Spiral", spiral],
  ["ring", "Ring", ring],
  ["letters", "Letters", letters],
];
