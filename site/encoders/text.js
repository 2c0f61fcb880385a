/**
 * Sentences, as src/tasks/text.py encodes them with Hugging Face's tokenizers.
 *
 * It reads the tokenizer.json that src/tasks/text.py writes, and says so where it finds another. Normalisation and
 * classes of letters are the browser's Unicode, which may know newer letters than the tokenizers' does.
 */
import { Problem } from "../errors.js";

export const RAW = "text";
const LARGEST = 1_000_000; // bytes: a long novel
// In src/tasks/text.py, where \w and \s are Oniguruma's for Unicode.
const WORDS = String.raw`(?i)\w+(?=n't\b)|n't\b|'(?:s|re|ve|ll|d|m)\b|\w+|[^\w\s]`;
const LETTER = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼½¾`;
const ENDS = `(?![${LETTER}])`; // \b behind a letter
const SPLIT = new RegExp(
  `[${LETTER}]+(?=n't${ENDS})|n't${ENDS}|'(?:s|re|ve|ll|d|m)${ENDS}|[${LETTER}]+|[^${LETTER}\\p{White_Space}]`,
  "giu",
);
const SPACE = "▁";
const BLANK = /^[\p{White_Space}\x1c-\x1f]*$/u; // what Python's str.strip takes away
const RANK = 2 ** 32; // above every position in a text

export class Encoder {
  dtype = "int32";

  /** @param {{length: number}} options @param {Record<string, any>} tokenizer tokenizer.json */
  constructor(options, tokenizer) {
    this.length = options.length;
    this.shape = [this.length];
    const { normalizer, pre_tokenizer: split, model } = check(tokenizer);
    this.steps = normalizer.normalizers;
    this.pieces = split.type === "Split" ? words : spaced;
    this.vocabulary = new Map(Object.entries(model.vocab));
    this.unknown = this.vocabulary.get(model.unk_token);
    this.merges = model.type === "BPE" ? ranked(model.merges, this.vocabulary) : null;
  }

  /**
   * @param {string | Uint8Array} raw Text, or the bytes of a text file in UTF-8.
   * @returns {Int32Array} (length,)
   */
  encode(raw) {
    const out = new Int32Array(this.length);
    let place = 0;
    for (const piece of this.pieces(this.normalize(text(raw)))) {
      for (const token of this.tokens(piece)) {
        if (place === this.length) return out;
        out[place++] = token;
      }
    }
    return out;
  }

  /** @param {string} sentence @returns {string} */
  normalize(sentence) {
    let result = sentence;
    for (const { type, pattern, content } of this.steps) {
      if (type === "NFKC") result = result.normalize("NFKC");
      else if (type === "Replace") result = result.replaceAll(pattern.String, () => content);
      else result = Array.from(result, (letter) => letter.toLowerCase()).join(""); // each alone: Σ is σ at the end too
    }
    return result;
  }

  /** @param {string} piece @returns {number[]} */
  tokens(piece) {
    if (!this.merges) return [this.vocabulary.get(piece) ?? this.unknown];
    return merge(Array.from(piece, (letter) => this.vocabulary.get(letter) ?? this.unknown), this.merges);
  }
}

/** @param {Record<string, any>} saved encoder.json @param {(name: string) => Promise<any>} json @returns {Promise<Encoder>} */
export async function load(saved, json) {
  return new Encoder(saved, await json("tokenizer.json"));
}

/** @param {Record<string, any>} tokenizer @returns {Record<string, any>} The same, if it is one that this file knows. */
function check(tokenizer) {
  const { normalizer, pre_tokenizer: split, model, added_tokens: added, post_processor: post } = tokenizer;
  const steps = normalizer?.normalizers?.every(({ type, pattern }) => type === "NFKC" || type === "Lowercase" || (type === "Replace" && pattern?.String));
  const word = split?.type === "Split" && split.pattern?.Regex === WORDS && split.behavior === "Removed" && split.invert && model?.type === "WordLevel";
  const pairs = split?.type === "Metaspace" && split.replacement === SPACE && split.prepend_scheme === "always" && split.split
    && model?.type === "BPE" && !model.fuse_unk && !model.byte_fallback && !model.ignore_merges && !model.dropout
    && !model.continuing_subword_prefix && !model.end_of_word_suffix;
  if (steps && (word || pairs) && !added?.length && !post && model.vocab?.[model.unk_token] !== undefined) return tokenizer;
  throw new Problem("tokenizer.json: expected one that src/tasks/text.py of this version writes, found another");
}

/** @param {string | Uint8Array} raw @returns {string} Text with something in it. */
function text(raw) {
  let found = raw;
  if (raw instanceof Uint8Array) {
    try {
      found = new TextDecoder("utf-8", { fatal: true }).decode(raw);
    } catch {
      throw new Problem("expected text in UTF-8, found something else");
    }
  }
  if (typeof found !== "string") throw new Problem("expected text");
  if (!found) throw new Problem("empty");
  const size = raw instanceof Uint8Array ? raw.length : new Blob([found]).size;
  if (size > LARGEST) throw new Problem(`${size.toLocaleString("en")} bytes, expected at most ${LARGEST.toLocaleString("en")}`);
  if (/\p{Surrogate}/u.test(found)) throw new Problem("expected text, found half of a letter");
  if (BLANK.test(found)) throw new Problem("blank: nothing but white space");
  return found;
}

/** Words, marks and clitics. @param {string} sentence @returns {Generator<string>} */
function* words(sentence) {
  for (const [word] of sentence.matchAll(SPLIT)) yield word;
}

/** What spaces part, each with a mark for the space before it. @param {string} sentence @returns {Generator<string>} */
function* spaced(sentence) {
  if (!sentence) return;
  const marked = sentence.replaceAll(" ", SPACE);
  const [before, ...rest] = marked.split(SPACE);
  if (before) yield SPACE + before;
  for (const piece of rest) yield SPACE + piece;
}

// ── Byte pairs ─────────────────────────────────────────────────────────────────────────────────────────

/**
 * @typedef {Map<number, Map<number, {rank: number, token: number}>>} Merges
 *   Left token → right token → how early the pair was learned, and what it becomes.
 */

/** @param {(string[] | string)[]} pairs @param {Map<string, number>} vocabulary @returns {Merges} */
function ranked(pairs, vocabulary) {
  const merges = new Map();
  pairs.forEach((pair, rank) => {
    const [left, right] = typeof pair === "string" ? pair.split(" ") : pair;
    const [first, second] = [vocabulary.get(left), vocabulary.get(right)];
    if (!merges.has(first)) merges.set(first, new Map());
    merges.get(first).set(second, { rank, token: vocabulary.get(left + right) });
  });
  return merges;
}

/**
 * Merges neighbours, the pair that was learned first and stands first, until no known pair is left.
 *
 * @param {number[]} tokens Of single letters; they are used up.
 * @param {Merges} merges
 * @returns {number[]}
 */
function merge(tokens, merges) {
  const count = tokens.length;
  const next = Int32Array.from({ length: count }, (_, place) => place + 1);
  const previous = Int32Array.from({ length: count }, (_, place) => place - 1);
  const gone = new Uint8Array(count);
  const waiting = new Heap();
  const found = (place) => (next[place] < count ? merges.get(tokens[place])?.get(tokens[next[place]]) : undefined);
  const add = (place) => {
    const pair = place < 0 ? undefined : found(place);
    if (pair) waiting.push(pair.rank * RANK + place);
  };
  for (let place = 0; place < count; place += 1) add(place);
  while (waiting.size) {
    const key = waiting.pop();
    const place = key % RANK;
    const pair = gone[place] ? undefined : found(place);
    if (pair?.rank !== Math.floor(key / RANK)) continue; // a neighbour was merged meanwhile
    tokens[place] = pair.token;
    gone[next[place]] = 1;
    next[place] = next[next[place]];
    if (next[place] < count) previous[next[place]] = place;
    add(previous[place]);
    add(place);
  }
  return tokens.filter((_, place) => !gone[place]);
}

/** Numbers, the least first out. */
class Heap {
  /** @type {number[]} */
  items = [];

  get size() {
    return this.items.length;
  }

  /** @param {number} item */
  push(item) {
    const { items } = this;
    let place = items.push(item) - 1;
    while (place) {
      const parent = (place - 1) >> 1;
      if (items[parent] <= item) break;
      items[place] = items[parent];
      place = parent;
    }
    items[place] = item;
  }

  /** @returns {number} */
  pop() {
    const { items } = this;
    const least = items[0];
    const item = items.pop();
    if (!items.length) return least;
    let place = 0;
    for (let child = 1; child < items.length; child = 2 * place + 1) {
      if (child + 1 < items.length && items[child + 1] < items[child]) child += 1;
      if (items[child] >= item) break;
      items[place] = items[child];
      place = child;
    }
    items[place] = item;
    return least;
  }
}
