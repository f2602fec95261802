// Formats texts and numbers for display.

/** The abbreviations of invisible and bidirectional format characters. */
const NAMES = new Map([
  [0x85, "NEL"], [0xad, "SHY"], [0x61c, "ALM"], [0x180e, "MVS"], [0x200b, "ZWSP"], [0x200c, "ZWNJ"],
  [0x200d, "ZWJ"], [0x200e, "LRM"], [0x200f, "RLM"], [0x2028, "LS"], [0x2029, "PS"], [0x202a, "LRE"],
  [0x202b, "RLE"], [0x202c, "PDF"], [0x202d, "LRO"], [0x202e, "RLO"], [0x2060, "WJ"], [0x2066, "LRI"],
  [0x2067, "RLI"], [0x2068, "FSI"], [0x2069, "PDI"], [0xfeff, "BOM"],
]);

const HIDDEN =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** Scripts and emoji need these between characters. */
const JOINER = /[\u200c\u200d]/;

/** Replaces invisible characters by visible ones, except line breaks and tabs. */
export function shown(text) {
  return text.replace(HIDDEN, (character, at) => {
    const inside = at > 0 && at + character.length < text.length;
    return inside && JOINER.test(character) ? character : picture(character.codePointAt(0));
  });
}

function picture(code) {
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `⟨${NAMES.get(code) ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}⟩`;
}

const WHITE = new Map([[" ", "␣"], ["\n", "↵"], ["\t", "⇥"]]);

const MAX_LABEL = 24;

/** Formats a token by itself: with visible white space, in at most 24 characters. */
export function labeled(text) {
  const characters = [...text];
  const short = characters.length > MAX_LABEL ? `${characters.slice(0, MAX_LABEL - 1).join("")}…` : text;
  const visible = shown(short).replace(/[ \n\t]/g, (white) => WHITE.get(white));
  return /^\p{M}/u.test(visible) ? `◌${visible}` : visible; // a combining mark needs a base character
}

/** Returns the last characters of a text in one line. */
export function ending(text, length) {
  const characters = [...text];
  const last = shown(characters.slice(-length).join("")).replaceAll("\n", "↵");
  return characters.length > length ? `…${last}` : last;
}

/** The label of a token that is part of a character, for example ‹e282›. */
const BYTES = /^‹((?:[0-9a-f]{2})+)›$/;

/** Returns a function that decodes the tokens of a text in order. Of a character in several bytes, the last returns it. */
export function makeDecoder() {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return ({ text, label }) => {
    // An incomplete character becomes a replacement character, as in the server's text.
    if (text !== null) return decoder.decode() + text;
    const hex = BYTES.exec(label)?.[1];
    if (!hex) return label;
    const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
    return decoder.decode(bytes, { stream: true });
  };
}

const SMALL = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const FINE = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 0.2345 → "23 %", 0.00123 → "0.12 %", 0.9983 → "99.8 %": only all is 100 %. */
export function percent(share) {
  if (share > 0 && share < 0.0001) return "<0.01 %";
  if (share >= 0.9995 && share < 1) return ">99.9 %";
  return `${(share > 0.99 ? FINE : SMALL).format(100 * share)} %`;
}

/** 12345.6 → "12,346". */
export const whole = (number) => WHOLE.format(number);

/** 12345678 → "12.3 million". */
export function large(number) {
  if (number >= 1e9) return `${(number / 1e9).toPrecision(3)} billion`;
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)} million`;
  return whole(number);
}

const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 252345 → "252k", 1115394 → "1.12M". */
export const compact = (number) => COMPACT.format(number).replace("K", "k");

/** "3 tokens", "1 token". */
export const counted = (number, noun, format = whole) => `${format(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A name in a sentence. */
export const quoted = (text) => `“${text}”`;

/** 75 → "1 min 15 s". */
export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [h, min, s] = [Math.floor(all / 3600), Math.floor((all % 3600) / 60), all % 60];
  if (h) return `${h} h ${min} min`;
  return min ? `${min} min ${s} s` : `${s} s`;
}
