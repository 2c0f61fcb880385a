/**
 * Time series of a CSV file, as src/tasks/time_series.py encodes them: a row for each step, whose first row may name
 * the channels. A value is the nearest number in float64, then in float32.
 */
import { Problem } from "../errors.js";
import { number } from "./tabular.js";

export const RAW = "file";
export const ACCEPT = ".csv,text/csv";
const TIMES = ["time", "t", "timestamp", "step"]; // a column of that name is no channel
const PADDING = -1e9;
const LARGEST = 50_000_000; // bytes

export class Encoder {
  dtype = "float32";

  /** @param {{length: number, cut: "end" | "start", channels: string[] | null, mean: number[]}} saved encoder.json */
  constructor(saved) {
    this.saved = saved;
    this.shape = [saved.length, saved.mean.length];
  }

  /** @param {Uint8Array} raw The bytes of a CSV file. @returns {Float32Array} (length, channels) */
  encode(raw) {
    const { length, cut, channels, mean } = this.saved;
    const { names, steps } = open(raw);
    const count = steps[0].length;
    if (count !== mean.length) throw new Problem(`${count} channels, expected ${mean.length} as in the first series to train on`);
    if (names && channels && names.join("\n") !== channels.join("\n")) {
      throw new Problem(`channels ${names.join(", ")}, expected ${channels.join(", ")}`);
    }
    const kept = cut === "end" ? steps.slice(0, length) : steps.slice(-length);
    const out = new Float32Array(length * count).fill(PADDING);
    kept.forEach((step, place) => out.set(step, place * count));
    return out;
  }
}

/** @param {Record<string, any>} saved encoder.json @returns {Promise<Encoder>} */
export async function load(saved) {
  return new Encoder(saved);
}

/** @param {Uint8Array} raw @returns {{names: string[] | null, steps: Float32Array[]}} */
function open(raw) {
  if (!raw.length) throw new Problem("empty");
  if (raw[0] === 0x93) throw new Problem("a .npy file; expected CSV on this page, a row for each step");
  if (raw.length > LARGEST) throw new Problem(`${raw.length.toLocaleString("en")} bytes, expected at most ${LARGEST.toLocaleString("en")}`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(raw);
  } catch {
    throw new Problem("expected CSV in UTF-8, found something else");
  }
  const lines = text.split(/\r\n|\n|\r/).filter((line) => line.trim());
  if (text.includes('"')) throw new Problem("expected numbers without quotes");
  const rows = lines.map((line) => line.split(",").map((cell) => cell.trim()));
  const named = rows.length > 0 && rows[0].every((cell) => number(cell) === null);
  const names = named ? rows.shift() : null;
  if (!rows.length) throw new Problem("no steps, expected at least one");
  const width = (names ?? rows[0]).length;
  const used = Array.from({ length: width }, (_, place) => place).filter((place) => !names || !TIMES.includes(names[place].toLowerCase()));
  const steps = rows.map((row, step) => {
    if (row.length !== width) throw new Problem(`step ${step + 1}: ${row.length} values, expected ${width} as in the first row`);
    return Float32Array.from(used, (place) => {
      const value = Math.fround(number(row[place]) ?? NaN);
      if (Number.isFinite(value) && value !== PADDING) return value;
      const channel = names ? `“${names[place]}”` : place + 1;
      throw new Problem(`step ${step + 1} of ${rows.length}, channel ${channel}: found “${row[place]}”, expected a finite number`);
    });
  });
  if (!used.length) throw new Problem("0 channels, expected at least one");
  return { names: names && used.map((place) => names[place]), steps };
}
