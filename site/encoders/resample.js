/**
 * Resizes as Pillow does: a triangle filter of the output's scale, in fixed-point numbers of 22 bits, along rows and
 * along columns, with 8 bits in between. So it gives the same bytes.
 *
 * @typedef {{width: number, height: number, channels: 1 | 3, data: Uint8Array}} Image
 *   data: (height, width, channels), row by row.
 */

const BITS = 22;
const HALF = 1 << (BITS - 1);

/**
 * Returns, for each output pixel, which input pixels weigh how much.
 *
 * @param {number} size Input pixels.
 * @param {number} begin Where the part that is resized begins, in input pixels; float32 in Pillow.
 * @param {number} end Where it ends.
 * @param {number} out Output pixels.
 * @returns {{first: Int32Array, weights: Int32Array[]}} Of each output pixel: the first input pixel, and the
 *   weights from there on in units of 2⁻²².
 */
function coefficients(size, begin, end, out) {
  const scale = Math.fround(end - begin) / out;
  const support = Math.max(scale, 1); // a triangle is 1 wide on each side, times the scale where it shrinks
  const inverse = 1 / support;
  const first = new Int32Array(out);
  const weights = [];
  for (let place = 0; place < out; place += 1) {
    const center = begin + (place + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(size, Math.trunc(center + support + 0.5));
    const exact = new Float64Array(high - low);
    let total = 0;
    for (let each = 0; each < exact.length; each += 1) {
      exact[each] = Math.max(0, 1 - Math.abs((each + low - center + 0.5) * inverse));
      total += exact[each];
    }
    first[place] = low;
    weights.push(Int32Array.from(exact, (weight) => Math.trunc(0.5 + (total ? weight / total : weight) * 2 ** BITS)));
  }
  return { first, weights };
}

/** @param {number} sum Of weighted bytes. @returns {number} A byte. */
function byte(sum) {
  const rounded = sum >> BITS;
  return rounded < 0 ? 0 : rounded > 255 ? 255 : rounded;
}

/** @param {Image} image @param {number} width @param {number} begin @param {number} end @returns {Image} */
function alongRows(image, width, begin, end) {
  const { height, channels, data } = image;
  const { first, weights } = coefficients(image.width, begin, end, width);
  const out = new Uint8Array(height * width * channels);
  let target = 0;
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const own = weights[column];
      const start = (row * image.width + first[column]) * channels;
      for (let channel = 0; channel < channels; channel += 1) {
        let sum = HALF;
        for (let each = 0, source = start + channel; each < own.length; each += 1, source += channels) {
          sum += data[source] * own[each];
        }
        out[target++] = byte(sum);
      }
    }
  }
  return { width, height, channels, data: out };
}

/** @param {Image} image @param {number} height @param {number} begin @param {number} end @returns {Image} */
function alongColumns(image, height, begin, end) {
  const { width, channels, data } = image;
  const { first, weights } = coefficients(image.height, begin, end, height);
  const stride = width * channels;
  const out = new Uint8Array(height * stride);
  let target = 0;
  for (let row = 0; row < height; row += 1) {
    const own = weights[row];
    for (let place = 0; place < stride; place += 1) {
      let sum = HALF;
      for (let each = 0, source = first[row] * stride + place; each < own.length; each += 1, source += stride) {
        sum += data[source] * own[each];
      }
      out[target++] = byte(sum);
    }
  }
  return { width, height, channels, data: out };
}

/**
 * Resizes an image, or a part of it.
 *
 * @param {Image} image
 * @param {number} width Of the result.
 * @param {number} height Of the result.
 * @param {number[]} box Left, top, right and bottom of the part, in pixels and fractions.
 * @returns {Image}
 */
export function resize(image, width, height, box = [0, 0, image.width, image.height]) {
  const [left, top, right, bottom] = box.map(Math.fround);
  const across = (from) => (width !== image.width || left || right !== width ? alongRows(from, width, left, right) : from);
  const down = (from) => (height !== image.height || top || bottom !== height ? alongColumns(from, height, top, bottom) : from);
  // Pillow from 13.0 on: columns first where far more rows than columns go.
  const lost = image.height - height;
  return lost > 0 && lost > 2 * (image.width - width) ? across(down(image)) : down(across(image));
}

/** Python's round: halves go to the even number. @param {number} value @returns {number} */
function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

/** The middle part of the wanted shape, as ImageOps.fit. @param {Image} image @param {number} width @param {number} height */
export function crop(image, width, height) {
  const ratio = image.width / image.height;
  const wanted = width / height;
  let [across, down] = [image.width, image.height];
  if (ratio > wanted) across = wanted * image.height;
  else if (ratio < wanted) down = image.width / wanted;
  const left = (image.width - across) * 0.5;
  const top = (image.height - down) * 0.5;
  return resize(image, width, height, [left, top, left + across, top + down]);
}

/** All of it, on black, as ImageOps.pad. @param {Image} image @param {number} width @param {number} height */
export function pad(image, width, height) {
  const ratio = image.width / image.height;
  const wanted = width / height;
  let [across, down] = [width, height];
  if (ratio > wanted) down = round((image.height / image.width) * width);
  else if (ratio < wanted) across = round((image.width / image.height) * height);
  const { channels } = image;
  const data = new Uint8Array(height * width * channels);
  if (across && down) {
    const inner = resize(image, across, down);
    const left = across === width ? 0 : round((width - across) * 0.5);
    const top = across === width ? round((height - down) * 0.5) : 0;
    for (let row = 0; row < down; row += 1) {
      const line = inner.data.subarray(row * across * channels, (row + 1) * across * channels);
      data.set(line, ((row + top) * width + left) * channels);
    }
  }
  return { width, height, channels, data };
}
