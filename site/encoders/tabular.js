/**
 * Rows of a table, as src/tasks/tabular.py encodes them.
 *
 * Text is read as there: numbers as Python's float (digits of ASCII alone), dates as Python's fromisoformat.
 *
 * @typedef {object} Column
 * @property {string} name
 * @property {"numbers" | "dates" | "names"} kind
 * @property {boolean} missing Whether training misses any value.
 * @property {number} median Of the numbers, or of the dates in days since 1970.
 * @property {boolean} hours Whether the dates have times.
 * @property {string[]} categories
 */
import { Problem } from "../errors.js";

export const RAW = "row";
const LARGEST = 3.4028234663852886e38; // of float32
const DAY = 86_400; // seconds
const SPACE = String.raw`[\p{White_Space}\x1c-\x1f]`; // what Python's str.strip takes away
const AROUND = new RegExp(`^${SPACE}+|${SPACE}+$`, "gu");
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const DATE = /^(\d{4})(?:-(\d\d)-(\d\d)|(\d\d)(\d\d)|-?W(\d\d)(?:-?([1-7]))?)$/;
const TIME = /^(\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d+))?)?)?(?:Z|[+-]\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?)?$/;

export class Encoder {
  dtype = "float32";

  /** @param {{options: {missing: (string | number)[]}, columns: Column[]}} saved encoder.json */
  constructor(saved) {
    this.columns = saved.columns;
    this.shape = [this.columns.reduce((sum, column) => sum + size(column), 0)];
    const missing = saved.options.missing;
    this.gaps = new Set([...missing.map((value) => fold(String(value))), ...missing.map(number).filter((value) => value !== null)]);
  }

  /**
   * @param {Record<string, string | number | boolean | null>} raw Column → value; null or blank where it is missing.
   * @returns {Float32Array} (numbers,)
   */
  encode(raw) {
    const values = this.columns.map((column) => {
      if (!Object.hasOwn(raw, column.name)) throw new Problem(`no column “${column.name}”, only ${Object.keys(raw).join(", ")}`);
      const value = raw[column.name];
      return blank(value, column.kind === "names" ? new Set() : this.gaps) ? null : value;
    });
    if (values.every((value) => value === null)) throw new Problem("no value in any column that is used");
    return Float32Array.from(this.columns.flatMap((column, place) => encode(column, values[place])));
  }
}

/** @param {Record<string, any>} saved encoder.json @returns {Promise<Encoder>} */
export async function load(saved) {
  return new Encoder(saved);
}

// ── Values ─────────────────────────────────────────────────────────────────────────────────────────────

const strip = (text) => text.replace(AROUND, "");
const fold = (text) => text.toLowerCase().replaceAll("ß", "ss").replaceAll("ς", "σ");

/** @param {unknown} value @param {Set<string | number>} gaps @returns {boolean} Whether it is missing. */
function blank(value, gaps) {
  if (typeof value === "string") {
    const text = fold(strip(value));
    return !text || gaps.has(text);
  }
  return value === null || Number.isNaN(value) || gaps.has(Number(value));
}

/** @param {unknown} value @returns {number | null} A number, or text that is one; null for anything else. */
export function number(value) {
  if (typeof value === "number") return value;
  if (typeof value !== "string") return null;
  const text = strip(value);
  if (NUMBER.test(text)) return Number(text);
  const [, minus, word] = /^([+-]?)(inf|infinity|nan)$/i.exec(text) ?? [];
  if (!word) return null;
  return word.toLowerCase() === "nan" ? NaN : minus === "-" ? -Infinity : Infinity;
}

/** @param {number | boolean | string} value @returns {string} As Python writes it: 1.0 as 1, and 1e-05 so. */
function name(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return strip(value);
  if (Number.isInteger(value)) return BigInt(value).toString();
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf";
  if (Math.abs(value) >= 1e-4) return String(value);
  return value.toExponential().replace(/e-(\d)$/, "e-0$1");
}

/** @param {string} text @returns {string | number | boolean} As a column of nothing but such text would be read. */
function typed(text) {
  const word = strip(text).toLowerCase();
  return word === "true" || word === "false" ? word === "true" : number(text) ?? text;
}

/** @param {unknown} value ISO 8601. @returns {number | null} Days since 1970, the time as their fraction. */
export function days(value) {
  if (typeof value !== "string") return null;
  const text = strip(value);
  const end = [10, 8, 7].find((count) => DATE.test(text.slice(0, count)) && (text.length === count || TIME.test(text.slice(count + 1))));
  if (end === undefined) return null;
  const [, year, ...rest] = DATE.exec(text.slice(0, end));
  const [month, day, plainMonth, plainDay, week, weekday] = rest.map((part) => (part === undefined ? part : Number(part)));
  const date = week === undefined ? calendar(Number(year), month ?? plainMonth, day ?? plainDay) : weeks(Number(year), week, weekday ?? 1);
  const [, hour = 0, minute = 0, second = 0, fraction = ""] = TIME.exec(text.slice(end + 1)) ?? [];
  if (date === null || hour > 23 || minute > 59 || second > 59) return null;
  const seconds = date * DAY + 3600 * Number(hour) + 60 * Number(minute) + Number(second);
  const micros = Number(fraction.padEnd(6, "0").slice(0, 6));
  return micros ? (seconds * 1e6 + micros) / (DAY * 1e6) : seconds / DAY;
}

/** @param {number} year @param {number} month @param {number} day @returns {number | null} Days since 1970. */
function calendar(year, month, day) {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day); // which alone takes years below 100 as they are
  const there = year > 0 && date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
  return there ? date.getTime() / (DAY * 1000) : null;
}

/** @param {number} year @param {number} week @param {number} weekday Monday is 1. @returns {number | null} */
function weeks(year, week, weekday) {
  const first = (which) => {
    const fourth = calendar(which, 1, 4); // it is always in the first week
    return fourth - ((((fourth + 3) % 7) + 7) % 7);
  };
  if (year < 1 || week < 1 || first(year) + 7 * (week - 1) >= first(year + 1)) return null;
  return first(year) + 7 * (week - 1) + weekday - 1;
}

// ── Columns ────────────────────────────────────────────────────────────────────────────────────────────

/** @param {Column} column @returns {number} How many numbers a value becomes. */
function size({ kind, hours, categories, missing }) {
  return { numbers: 1, dates: 4 + hours, names: categories.length + 1 }[kind] + missing;
}

/** @param {Column} column @param {string | number | boolean | null} value @returns {number[]} */
function encode(column, value) {
  if (column.kind === "names") return encodeName(column, value);
  const found = value === null ? column.median : { numbers: number, dates: days }[column.kind](value);
  if (found === null || !(Math.abs(found) <= LARGEST)) {
    const expected = column.kind === "numbers" ? "a finite number" : "a date such as 2024-12-31";
    throw new Problem(`column “${column.name}”: found ${JSON.stringify(value)}, expected ${expected}`);
  }
  const indicator = column.missing ? [Number(value === null)] : [];
  if (column.kind === "numbers") return [found, ...indicator];
  const whole = Math.floor(found);
  const date = new Date(whole * DAY * 1000);
  const parts = [date.getUTCFullYear(), date.getUTCMonth() + 1, (date.getUTCDay() + 6) % 7, whole, (found - whole) * 24];
  return [...parts.slice(0, 4 + column.hours), ...indicator];
}

/** @param {Column} column @param {string | number | boolean | null} value @returns {number[]} */
function encodeName(column, value) {
  const { categories, missing } = column;
  let found = value === null ? null : name(value);
  if (typeof value === "string" && !categories.includes(found)) found = name(typed(value));
  let place = categories.indexOf(found);
  if (place < 0) place = categories.length;
  if (found === null && missing) place += 1;
  return Array.from({ length: size(column) }, (_, position) => Number(position === place));
}
