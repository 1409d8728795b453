// Computes the map of a field beside the page, so that the page stays smooth.

import { exactField, nearestEnergy, normsOf, onGrid } from "./plane.js";

let energy = null;

onmessage = ({ data: { points, decay, side, learned } }) => {
  const exact = onGrid(exactField(points, decay, { nodes: 65 }), side);
  const gradient = learned ?? exact;
  energy = nearestEnergy(gradient, side, { start: energy });
  const difference = learned ? Math.sqrt(distance(learned, exact) / distance(exact)) : 0;
  postMessage({ side, gradient, energy, norms: normsOf(gradient), difference });
};

function distance(a, b = null) {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += (a[at] - (b ? b[at] : 0)) ** 2;
  return sum;
}
