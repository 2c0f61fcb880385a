/**
 * Images, as src/tasks/image.py encodes them.
 *
 * PNG of every kind gives the same bytes as there. JPEG, WebP, GIF and BMP are decoded by the browser: no format
 * without loss differs, but JPEG and lossy WebP may by a few levels where the browser's decoder is another than
 * Pillow's. TIFF no browser reads but Safari, and CMYK is converted otherwise: both are refused.
 */
import { Problem } from "../errors.js";
import * as png from "./png.js";
import { crop, pad, resize } from "./resample.js";

export const RAW = "file";
export const ACCEPT = "image/png,image/jpeg,image/webp,image/gif,image/bmp";
const MOST_PIXELS = 80_000_000;
const LONGEST_SIDE = 16_384; // of a canvas
const ORIENTATION = 0x0112; // EXIF's tag

/** @typedef {import("./resample.js").Image} Image */

export class Encoder {
  dtype = "uint8";

  /** @param {{size: [number, number], channels: 1 | 3, aspect: "crop" | "pad" | "stretch"}} options Height, width. */
  constructor(options) {
    this.options = options;
    this.shape = [...options.size, options.channels];
  }

  /**
   * @param {Uint8Array} raw The bytes of an image file.
   * @returns {Promise<Uint8Array>} (height, width, channels)
   */
  async encode(raw) {
    const [height, width] = this.options.size;
    const image = convert(await open(raw), this.options.channels);
    if (image.width === width && image.height === height) return image.data;
    const fitted = { crop, pad, stretch: resize }[this.options.aspect](image, width, height);
    return fitted.data;
  }
}

/** @param {Record<string, any>} saved encoder.json @returns {Promise<Encoder>} */
export async function load(saved) {
  return new Encoder(saved);
}

/** @param {Uint8Array} raw @returns {Promise<Image>} Upright, on white where it is transparent. */
async function open(raw) {
  if (!raw.length) throw new Problem("empty");
  const begins = (signature, at = 0) => signature.every((byte, place) => raw[at + place] === byte);
  const text = (word, at = 0) => begins([...word].map((letter) => letter.charCodeAt(0)), at);
  if (begins(png.SIGNATURE)) return fromPng(await png.decode(raw, MOST_PIXELS));
  if (begins([0xff, 0xd8, 0xff])) {
    if (jpegComponents(raw) === 4) throw new Problem("a JPEG in CMYK, which browsers convert in ways of their own; expected RGB or grey");
    return fromBrowser(raw, "image/jpeg");
  }
  if (text("RIFF") && text("WEBP", 8)) {
    const { turned, plain } = withoutExif(raw);
    return turn(await fromBrowser(plain, "image/webp"), turned);
  }
  if (text("GIF8")) return fromBrowser(raw, "image/gif");
  if (text("BM")) return fromBrowser(raw, "image/bmp");
  if (text("II*\0") || text("MM\0*")) throw new Problem("a TIFF, which browsers do not read; expected PNG, JPEG, WebP, GIF or BMP");
  throw new Problem("not an image in a known format; expected PNG, JPEG, WebP, GIF or BMP");
}

// ── PNG ────────────────────────────────────────────────────────────────────────────────────────────────

/** @param {png.Png} file @returns {Image} */
function fromPng(file) {
  const { width, height, type, depth, transparency } = file;
  const count = width * height;
  const grey = type === 0 || type === 4;
  const clear = type === 4 || type === 6 || (transparency !== null && !(grey && depth === 16));
  const channels = grey && !clear ? 1 : 3;
  const data = new Uint8Array(count * channels);
  const colour = reader(file);
  const pixel = new Uint8Array(4);
  for (let place = 0; place < count; place += 1) {
    colour(place, pixel);
    for (let channel = 0; channel < channels; channel += 1) {
      data[place * channels + channel] = clear ? onWhite(pixel[channel], pixel[3]) : pixel[channel];
    }
  }
  return turn({ width, height, channels, data }, file.exif ? orientation(file.exif) : 1);
}

/**
 * Returns what reads a pixel as 8-bit RGBA.
 *
 * Pillow takes the high byte of 16 bits, except of grey without alpha, which is scaled; and it compares the
 * transparent colour's low bytes with the pixels that it has made.
 *
 * @param {png.Png} file
 * @returns {(place: number, out: Uint8Array) => void}
 */
function reader({ type, depth, samples, palette, transparency }) {
  const high = depth === 16 ? 8 : 0;
  const key = transparency && type !== 3 ? transparency : null;
  if (type === 3) {
    const colours = new Uint8Array(768);
    colours.set((palette ?? new Uint8Array()).subarray(0, 768));
    return (place, out) => {
      const entry = samples[place];
      for (let channel = 0; channel < 3; channel += 1) out[channel] = colours[3 * entry + channel];
      out[3] = transparency?.[entry] ?? 255;
    };
  }
  if (type === 0) {
    const scale = depth < 8 ? 255 / ((1 << depth) - 1) : 1;
    let clear = key && depth < 16 ? key[1] : -1;
    if (key && depth === 1) clear = key[0] || key[1] ? 255 : 0;
    return (place, out) => {
      const value = depth === 16 ? Math.trunc(samples[place] / 257) : samples[place] * scale;
      out.fill(value, 0, 3);
      out[3] = value === clear ? 0 : 255;
    };
  }
  if (type === 4) {
    return (place, out) => {
      out.fill(samples[2 * place] >> high, 0, 3);
      out[3] = samples[2 * place + 1] >> high;
    };
  }
  const step = type === 2 ? 3 : 4;
  return (place, out) => {
    for (let channel = 0; channel < step; channel += 1) out[channel] = samples[step * place + channel] >> high;
    if (type === 2) out[3] = key && out[0] === key[1] && out[1] === key[3] && out[2] === key[5] ? 0 : 255;
  };
}

/** Lays a byte over white, in Pillow's fixed-point numbers. @param {number} value @param {number} alpha @returns {number} */
function onWhite(value, alpha) {
  if (alpha === 0) return 255;
  const sum = (value * alpha + 255 * (255 - alpha)) * 128 + (128 << 7);
  return ((sum >> 8) + sum) >> 15;
}

// ── What the browser decodes ───────────────────────────────────────────────────────────────────────────

/** @param {Uint8Array} raw @param {string} type @returns {Promise<Image>} */
async function fromBrowser(raw, type) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([raw], { type }), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Problem(`damaged image: this browser cannot decode it as ${type}`);
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Problem(`${width} × ${height} pixels, expected at most ${MOST_PIXELS.toLocaleString("en")} in all`);
  if (Math.max(width, height) > LONGEST_SIDE) throw new Problem(`${width} × ${height} pixels, expected at most ${LONGEST_SIDE.toLocaleString("en")} a side`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let source = 0, target = 0; target < data.length; source += 4) {
    data[target++] = pixels[source];
    data[target++] = pixels[source + 1];
    data[target++] = pixels[source + 2];
  }
  return { width, height, channels: 3, data };
}

/** @param {Uint8Array} raw A JPEG. @returns {number} Its components; 0 if its header is not found. */
function jpegComponents(raw) {
  for (let place = 2; place + 9 < raw.length && raw[place] === 0xff; ) {
    const marker = raw[place + 1];
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) return raw[place + 9];
    place += marker === 0xff ? 1 : 2 + (raw[place + 2] << 8) + raw[place + 3];
  }
  return 0;
}

/**
 * All browsers turn a JPEG by its EXIF, but not all a WebP: none does without it.
 *
 * @param {Uint8Array} raw A WebP.
 * @returns {{turned: number, plain: Uint8Array}} EXIF's orientation, and the file with that chunk renamed.
 */
function withoutExif(raw) {
  const plain = raw.slice();
  const view = new DataView(plain.buffer);
  for (let place = 12; place + 8 <= plain.length; ) {
    const size = view.getUint32(place + 4, true);
    if (view.getUint32(place) === 0x45584946) {
      view.setUint32(place, 0x4a554e4b); // JUNK
      return { turned: orientation(plain.subarray(place + 8, place + 8 + size)), plain };
    }
    place += 8 + size + (size & 1);
  }
  return { turned: 1, plain };
}

// ── Both ───────────────────────────────────────────────────────────────────────────────────────────────

/** @param {Uint8Array} exif TIFF's header and tags. @returns {number} 1 to 8; 1 where it says nothing. */
function orientation(exif) {
  const prefix = String.fromCharCode(...exif.subarray(0, 6)) === "Exif\0\0" ? 6 : 0;
  const view = new DataView(exif.buffer, exif.byteOffset + prefix, exif.byteLength - prefix);
  try {
    const little = view.getUint16(0) === 0x4949;
    const start = view.getUint32(4, little);
    const count = view.getUint16(start, little);
    for (let entry = 0; entry < count; entry += 1) {
      const place = start + 2 + 12 * entry;
      if (view.getUint16(place, little) === ORIENTATION) return view.getUint16(place + 8, little);
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

/** @param {Image} image @param {number} turned EXIF's orientation. @returns {Image} Upright. */
function turn(image, turned) {
  if (!(turned >= 2 && turned <= 8)) return image;
  const { width, height, channels, data } = image;
  const swapped = turned >= 5;
  const [wide, high] = swapped ? [height, width] : [width, height];
  const out = new Uint8Array(data.length);
  for (let row = 0; row < high; row += 1) {
    for (let column = 0; column < wide; column += 1) {
      let [x, y] = swapped ? [row, column] : [column, row];
      if ([2, 3, 7, 8].includes(turned)) x = width - 1 - x;
      if ([3, 4, 6, 7].includes(turned)) y = height - 1 - y;
      for (let channel = 0; channel < channels; channel += 1) {
        out[(row * wide + column) * channels + channel] = data[(y * width + x) * channels + channel];
      }
    }
  }
  return { width: wide, height: high, channels, data: out };
}

/** @param {Image} image @param {1 | 3} channels @returns {Image} Grey by ITU-R BT.601, in 16 bits. */
function convert(image, channels) {
  if (image.channels === channels) return image;
  const count = image.width * image.height;
  const { data } = image;
  const out = new Uint8Array(count * channels);
  for (let place = 0; place < count; place += 1) {
    if (channels === 3) out.fill(data[place], 3 * place, 3 * place + 3);
    else out[place] = (data[3 * place] * 19595 + data[3 * place + 1] * 38470 + data[3 * place + 2] * 7471 + 0x8000) >> 16;
  }
  return { ...image, channels, data: out };
}
