/**
 * Reads PNG (ISO/IEC 15948) to the samples that are stored: no colour management, no gamma, no alpha multiplied in.
 * A canvas would do all three.
 *
 * @typedef {object} Png
 * @property {number} width
 * @property {number} height
 * @property {number} type Colour type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
 * @property {number} depth Bits of a sample: 1, 2, 4, 8 or 16.
 * @property {Uint8Array | Uint16Array} samples (height, width, samples of a pixel), not scaled.
 * @property {Uint8Array | null} palette RGB of each entry.
 * @property {Uint8Array | null} transparency Content of the chunk tRNS.
 * @property {Uint8Array | null} exif Content of the chunk eXIf.
 */
import { Problem } from "../errors.js";

export const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
// Adam7: first column and row, and steps, of each pass.
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** @param {Uint8Array} bytes @returns {number} CRC-32 */
function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = (value >>> 8) ^ CRC[(value ^ byte) & 255];
  return ~value >>> 0;
}

/** @param {Uint8Array} bytes @returns {Map<string, Uint8Array>} Name → content; the parts of IDAT are joined. */
function chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = new Map();
  const data = [];
  for (let place = 8; place + 12 <= bytes.length && !found.has("IEND"); ) {
    const length = view.getUint32(place);
    const name = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
    if (place + 12 + length > bytes.length) break;
    const content = bytes.subarray(place + 8, place + 8 + length);
    const critical = name[0] === name[0].toUpperCase();
    if (critical && crc(bytes.subarray(place + 4, place + 8 + length)) !== view.getUint32(place + 8 + length)) {
      throw new Problem(`damaged image: the checksum of its chunk ${name} is wrong`);
    }
    if (name === "IDAT") data.push(content);
    else if (!found.has(name)) found.set(name, content);
    place += 12 + length;
  }
  const whole = new Uint8Array(data.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of data) {
    whole.set(part, place);
    place += part.length;
  }
  return found.set("IDAT", whole);
}

/**
 * @param {Uint8Array} content Deflated, with zlib's header.
 * @param {number} size Bytes that are wanted; reading ends with them.
 * @returns {Promise<Uint8Array>}
 */
async function inflate(content, size) {
  const out = new Uint8Array(size);
  const reader = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let place = 0;
  try {
    while (place < size) {
      const { done, value } = await reader.read();
      if (done) break;
      out.set(value.subarray(0, size - place), place);
      place += Math.min(value.length, size - place);
    }
  } catch {
    throw new Problem("damaged image: its pixels cannot be unpacked");
  }
  reader.cancel().catch(() => {});
  if (place < size) throw new Problem("damaged image: it ends early");
  return out;
}

/**
 * Undoes the filters of a pass, in place.
 *
 * @param {Uint8Array} lines Each begins with its filter's number.
 * @param {number} stride Bytes of a line without that number.
 * @param {number} height Lines.
 * @param {number} step Bytes from a pixel to the next, at least 1.
 */
function unfilter(lines, stride, height, step) {
  for (let row = 0; row < height; row += 1) {
    const start = row * (stride + 1) + 1;
    const filter = lines[start - 1];
    if (filter > 4) throw new Problem(`damaged image: found filter ${filter}, expected 0 to 4`);
    const above = row ? lines.subarray(start - stride - 1, start - 1) : new Uint8Array(stride);
    const line = lines.subarray(start, start + stride);
    if (filter === 2) for (let place = 0; place < stride; place += 1) line[place] += above[place];
    if (filter !== 1 && filter < 3) continue;
    for (let place = 0; place < stride; place += 1) {
      const left = place < step ? 0 : line[place - step];
      if (filter === 1) line[place] += left;
      else if (filter === 3) line[place] += (left + above[place]) >> 1;
      else line[place] += paeth(left, above[place], place < step ? 0 : above[place - step]);
    }
  }
}

/** @param {number} left @param {number} up @param {number} corner @returns {number} Which of them is nearest. */
function paeth(left, up, corner) {
  const a = Math.abs(up - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + up - 2 * corner);
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/**
 * @param {Uint8Array} bytes Of the file.
 * @param {number} most Pixels.
 * @returns {Promise<Png>}
 */
export async function decode(bytes, most) {
  const found = chunks(bytes);
  const header = found.get("IHDR");
  if (!header || header.length < 13 || !found.get("IDAT").length) throw new Problem("damaged image: it ends early");
  const view = new DataView(header.buffer, header.byteOffset, 13);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, type, interlaced] = [header[8], header[9], header[12]];
  if (!DEPTHS[type]?.includes(depth) || !width || !height) throw new Problem("damaged image: its header makes no sense");
  if (width * height > most) throw new Problem(`${width} × ${height} pixels, expected at most ${most.toLocaleString("en")} in all`);

  const count = SAMPLES[type];
  const passes = (interlaced ? PASSES : [[0, 0, 1, 1]])
    .map(([left, top, across, down]) => {
      const [wide, high] = [Math.ceil((width - left) / across), Math.ceil((height - top) / down)];
      return { left, top, across, down, wide, high, stride: Math.ceil((wide * count * depth) / 8) };
    })
    .filter(({ wide, high }) => wide > 0 && high > 0);
  const size = passes.reduce((sum, { high, stride }) => sum + high * (stride + 1), 0);
  const lines = await inflate(found.get("IDAT"), size);

  const samples = new (depth === 16 ? Uint16Array : Uint8Array)(width * height * count);
  let begin = 0;
  for (const pass of passes) {
    const part = lines.subarray(begin, (begin += pass.high * (pass.stride + 1)));
    unfilter(part, pass.stride, pass.high, Math.max(1, (count * depth) >> 3));
    spread(part, pass, depth, count, width, samples);
  }
  const optional = (name) => found.get(name) ?? null;
  return { width, height, type, depth, samples, palette: optional("PLTE"), transparency: optional("tRNS"), exif: optional("eXIf") };
}

/** Puts the samples of a pass where they belong. */
function spread(lines, pass, depth, count, width, samples) {
  const mask = (1 << depth) - 1;
  for (let row = 0; row < pass.high; row += 1) {
    const start = row * (pass.stride + 1) + 1;
    for (let column = 0; column < pass.wide; column += 1) {
      const target = ((pass.top + row * pass.down) * width + pass.left + column * pass.across) * count;
      for (let each = 0; each < count; each += 1) {
        const place = column * count + each;
        if (depth === 8) samples[target + each] = lines[start + place];
        else if (depth === 16) samples[target + each] = (lines[start + 2 * place] << 8) | lines[start + 2 * place + 1];
        else {
          const bit = place * depth;
          samples[target + each] = (lines[start + (bit >> 3)] >> (8 - depth - (bit & 7))) & mask;
        }
      }
    }
  }
}
