// GIF files (GIF89a) with one palette for all frames.

const COLOURS = 256;

/**
 * The bytes of an animated GIF that repeats.
 * `frames`: ImageData objects of one size. `delays`: how long each is shown, in milliseconds.
 */
export function encodeGif(frames, delays) {
  const { width, height } = frames[0];
  const palette = paletteOf(frames);
  const nearest = nearestIn(palette);
  const out = [...ascii("GIF89a"), ...word(width), ...word(height), 0xf7, 0, 0];
  for (let i = 0; i < COLOURS; i++) out.push(...(palette[i] ?? [0, 0, 0]));
  out.push(0x21, 0xff, 11, ...ascii("NETSCAPE2.0"), 3, 1, 0, 0, 0); // repeat for ever
  frames.forEach((frame, k) => {
    // viewers slow down frames shorter than two hundredths of a second
    out.push(0x21, 0xf9, 4, 0, ...word(Math.max(2, Math.round(delays[k] / 10))), 0, 0);
    out.push(0x2c, 0, 0, 0, 0, ...word(width), ...word(height), 0, 8);
    const indices = new Uint8Array(width * height);
    for (let i = 0; i < indices.length; i++) {
      indices[i] = nearest(frame.data[4 * i], frame.data[4 * i + 1], frame.data[4 * i + 2]);
    }
    const packed = compress(indices);
    for (let i = 0; i < packed.length; i += 255) {
      const block = packed.slice(i, i + 255);
      out.push(block.length);
      for (const byte of block) out.push(byte);
    }
    out.push(0);
  });
  out.push(0x3b);
  return new Uint8Array(out);
}

const ascii = (text) => [...text].map((letter) => letter.charCodeAt(0));
const word = (number) => [number & 255, number >> 8];

/** Up to 256 colours: all there are, if they are few, otherwise by median cut. */
function paletteOf(frames) {
  const found = new Map();
  for (const { data } of frames) {
    for (let i = 0; i < data.length; i += 4) {
      const key = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
      found.set(key, (found.get(key) ?? 0) + 1);
    }
  }
  const colours = [...found].map(([key, count]) => [key >> 16, (key >> 8) & 255, key & 255, count]);
  const boxes = [colours];
  while (boxes.length < Math.min(COLOURS, colours.length)) {
    const sizes = boxes.map((box) => widest(box));
    const k = sizes.reduce((best, size, i) => (size.range > sizes[best].range ? i : best), 0);
    const box = boxes[k].sort((a, b) => a[sizes[k].channel] - b[sizes[k].channel]);
    boxes.splice(k, 1, box.slice(0, box.length >> 1), box.slice(box.length >> 1));
  }
  return boxes.map((box) => {
    const total = box.reduce((sum, colour) => sum + colour[3], 0);
    return [0, 1, 2].map((c) => Math.round(box.reduce((sum, v) => sum + v[c] * v[3], 0) / total));
  });
}

/** The channel in which the colours of a box differ most, and by how much. */
function widest(box) {
  let best = { channel: 0, range: -1 };
  for (const channel of [0, 1, 2]) {
    let [low, high] = [255, 0];
    for (const colour of box) {
      low = Math.min(low, colour[channel]);
      high = Math.max(high, colour[channel]);
    }
    if (high - low > best.range) best = { channel, range: high - low };
  }
  return best;
}

function nearestIn(palette) {
  const known = new Map();
  return (red, green, blue) => {
    const key = (red << 16) | (green << 8) | blue;
    if (!known.has(key)) {
      let [best, least] = [0, Infinity];
      palette.forEach(([r, g, b], i) => {
        const distance = (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2;
        if (distance < least) [best, least] = [i, distance];
      });
      known.set(key, best);
    }
    return known.get(key);
  };
}

/** LZW with codes of 9 to 12 bits, as GIF has it. */
function compress(indices) {
  const [clear, end] = [COLOURS, COLOURS + 1];
  const out = [];
  const codes = new Uint16Array(4096 * COLOURS); // the code of each (prefix, colour), 0 for none
  let [bits, filled, size, next] = [0, 0, 9, end + 1];
  const emit = (code) => {
    bits |= code << filled;
    for (filled += size; filled >= 8; filled -= 8, bits >>>= 8) out.push(bits & 255);
  };
  emit(clear);
  let prefix = indices[0];
  for (let i = 1; i < indices.length; i++) {
    const key = prefix * COLOURS + indices[i];
    if (codes[key]) {
      prefix = codes[key];
      continue;
    }
    emit(prefix);
    if (next === 4096) {
      emit(clear);
      codes.fill(0);
      [size, next] = [9, end + 1];
    } else {
      if (next === 1 << size) size++;
      codes[key] = next++;
    }
    prefix = indices[i];
  }
  emit(prefix);
  emit(end);
  if (filled) out.push(bits & 255);
  return out;
}
