// Pictures in the page: decoding, resizing, comparing, saving. Values are 0 to 255.

import { bytes, download, el, short } from "./elements.js";

const MOST_BYTES = 50e6; // of a file of the user
const MOST_PIXELS = 40e6;

/** The pixels of a base64 PNG, as ImageData. */
export async function decode(base64) {
  const blob = new Blob([bytes(base64)], { type: "image/png" });
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const data = toData(canvasOf(bitmap));
  bitmap.close();
  return data;
}

/** The picture in a file of the user, a bitmap. Throws an Error that says what is wrong with the file. */
export async function bitmapOf(file) {
  const name = file.name || "The file";
  if (file.size > MOST_BYTES) {
    throw new Error(`${name} has ${short(file.size / 1e6)} MB: choose a file of at most ${MOST_BYTES / 1e6} MB.`);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} is not a picture that this browser can read: choose a PNG, JPEG, WebP or GIF file.`);
  }
  const { width, height } = bitmap;
  if (width * height <= MOST_PIXELS) return bitmap;
  bitmap.close();
  const most = `${MOST_PIXELS / 1e6} million pixels`;
  throw new Error(`${name} has ${width} × ${height} pixels: choose a picture of at most ${most}.`);
}

/** ImageData as a base64 PNG. */
export const encode = (data) => canvasOf(data).toDataURL("image/png").split(",")[1];

/** ImageData, a bitmap or a canvas on a new canvas of its size. */
export function canvasOf(picture) {
  const [canvas, context] = blank(picture.width, picture.height);
  if (picture instanceof ImageData) context.putImageData(picture, 0, 0);
  else context.drawImage(picture, 0, 0);
  return canvas;
}

/** The pixels of a canvas. */
export const toData = (canvas) =>
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);

function blank(width, height) {
  const canvas = el("canvas", { width, height });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

/** One canvas with all pictures (ImageData) row by row, `scale` times as large, white lines between them. */
export function sheet(pictures, columns, scale) {
  const [width, height, gap] = [pictures[0].width * scale, pictures[0].height * scale, scale];
  const rows = Math.ceil(pictures.length / columns);
  const [canvas, context] = blank(columns * (width + gap) + gap, rows * (height + gap) + gap);
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  pictures.forEach((picture, k) => {
    const left = (k % columns) * (width + gap) + gap;
    const top = Math.floor(k / columns) * (height + gap) + gap;
    context.drawImage(canvasOf(picture), left, top, width, height);
  });
  return canvas;
}

/**
 * The middle of any picture at the size of a model's pictures, as ImageData, grey if `grey`.
 * Transparent places become white.
 */
export function fitted(picture, width, height, { grey = false, inverted = false } = {}) {
  const share = Math.min(picture.width / width, picture.height / height);
  let [w, h] = [share * width, share * height];
  const [left, top] = [(picture.width - w) / 2, (picture.height - h) / 2];
  let canvas = drawn(picture, left, top, w, h, Math.max(1, Math.round(w)), Math.max(1, Math.round(h)));
  while (canvas.width >= 2 * width && canvas.height >= 2 * height) {
    // halving takes means, one jump would skip pixels
    [w, h] = [Math.floor(canvas.width / 2), Math.floor(canvas.height / 2)];
    canvas = drawn(canvas, 0, 0, canvas.width, canvas.height, w, h);
  }
  const data = toData(drawn(canvas, 0, 0, canvas.width, canvas.height, width, height));
  for (let i = 0; i < data.data.length; i += 4) {
    const [r, g, b] = data.data.slice(i, i + 3);
    const luma = 0.299 * r + 0.587 * g + 0.114 * b;
    const values = grey ? [luma, luma, luma] : [r, g, b];
    for (let c = 0; c < 3; c++) data.data[i + c] = inverted ? 255 - values[c] : values[c];
  }
  return data;
}

function drawn(picture, left, top, w, h, width, height) {
  const [canvas, context] = blank(width, height);
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(picture, left, top, w, h, 0, 0, width, height);
  return canvas;
}

/** The peak signal-to-noise ratio of two pictures in dB: 10 log10(255² / mean squared error). */
export function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.data.length; i++) if (i % 4 < 3) sum += (a.data[i] - b.data[i]) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / (0.75 * a.data.length)));
}

/**
 * The mean of pictures and the standard deviation of each pixel among them, as ImageData, and
 * `size`, the mean deviation as a share of the range. White in the deviation is half the range.
 */
export function spread(pictures) {
  const { width, height, data } = pictures[0];
  const [mean, deviation] = [new ImageData(width, height), new ImageData(width, height)];
  let total = 0;
  for (let i = 0; i < data.length; i += 4) {
    let squares = 0;
    for (let c = 0; c < 3; c++) {
      const values = pictures.map((picture) => picture.data[i + c]);
      const middle = values.reduce((a, b) => a + b) / values.length;
      mean.data[i + c] = Math.round(middle);
      squares += values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / values.length / 3;
    }
    const size = Math.sqrt(squares) / 255;
    total += size;
    deviation.data.fill(Math.round(255 * Math.min(1, 2 * size)), i, i + 3);
    mean.data[i + 3] = deviation.data[i + 3] = 255;
  }
  return { mean, deviation, size: total / (width * height) };
}

/** Saves a canvas as a PNG. */
export function savePng(name, canvas) {
  canvas.toBlob((blob) => download(name, blob), "image/png");
}

/** Normal noise from a seed: always the same numbers. */
export function normals(seed) {
  let state = (seed * 2654435761 + 1) >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0; // mulberry32
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
