// Ways to damage a picture. Pictures are ImageData; the values of pixels lie in -1..1 for a model.

import { normals } from "./pictures.js";

/** A picture whose pixel i has the value `value(i, channel)`, 0 to 255, rounded and cut off. */
function made(width, height, value) {
  const picture = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = Math.round(value(i, c)); // clamps
    picture.data[4 * i + 3] = 255;
  }
  return picture;
}

/**
 * A picture plus normal noise of standard deviation `sigma` (values in -1..1) from a seed.
 *
 * Noise leaves -1..1, where pictures end. So `sent` holds values in -range..range, from black to
 * white, and `seen` is cut off at -1 and 1.
 */
export function noisy(picture, sigma, seed, grey) {
  const { width, height, data } = picture;
  const normal = normals(seed);
  const values = new Float32Array(width * height * 3);
  let range = 1;
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      values[3 * i + c] = c && grey ? values[3 * i] : data[4 * i + c] / 127.5 - 1 + sigma * normal();
      range = Math.max(range, Math.abs(values[3 * i + c]));
    }
  }
  range = Math.ceil(100 * range) / 100;
  const seen = made(width, height, (i, c) => (values[3 * i + c] + 1) * 127.5);
  const sent = made(width, height, (i, c) => (values[3 * i + c] / range + 1) * 127.5);
  return { seen, sent, range };
}

/** A picture that is grey where `mask` is 1. */
export function holed(picture, mask) {
  return made(picture.width, picture.height, (i, c) => (mask[i] ? 127.5 : picture.data[4 * i + c]));
}

/** The means of blocks of `factor` x `factor` pixels. */
export function smaller({ width, height, data }, factor) {
  const [wide, high] = [width / factor, height / factor];
  return made(wide, high, (i, c) => {
    let sum = 0;
    for (let k = 0; k < factor * factor; k++) {
      const row = Math.floor(i / wide) * factor + Math.floor(k / factor);
      sum += data[4 * (row * width + (i % wide) * factor + (k % factor)) + c];
    }
    return sum / factor ** 2;
  });
}

/** A picture blurred by a Gaussian with a standard deviation of `sigma` pixels, edges repeated. */
export function blurred(picture, sigma) {
  const { width, height } = picture;
  const reach = Math.ceil(3 * sigma);
  const bell = Array.from({ length: 2 * reach + 1 }, (_, k) => Math.exp(-(((k - reach) / sigma) ** 2) / 2));
  const total = bell.reduce((a, b) => a + b);
  let values = Float32Array.from(picture.data);
  for (const [along, across] of [[1, 0], [0, 1]]) {
    const next = new Float32Array(values.length);
    for (let i = 0; i < width * height; i++) {
      for (let k = -reach; k <= reach; k++) {
        const column = Math.max(0, Math.min(width - 1, (i % width) + k * along));
        const row = Math.max(0, Math.min(height - 1, Math.floor(i / width) + k * across));
        for (let c = 0; c < 3; c++) next[4 * i + c] += (bell[k + reach] / total) * values[4 * (row * width + column) + c];
      }
    }
    values = next;
  }
  return made(width, height, (i, c) => values[4 * i + c]);
}

/** A picture with the mean of its channels. */
export function grey({ width, height, data }) {
  return made(width, height, (i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3);
}
