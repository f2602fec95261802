// How texts and numbers are shown, whatever is in them.

/** Format characters that turn lines round or cannot be seen. */
const NAMES = new Map([
  [0x85, "NEL"], [0xad, "SHY"], [0x61c, "ALM"], [0x180e, "MVS"], [0x200b, "ZWSP"], [0x200c, "ZWNJ"],
  [0x200d, "ZWJ"], [0x200e, "LRM"], [0x200f, "RLM"], [0x2028, "LS"], [0x2029, "PS"], [0x202a, "LRE"],
  [0x202b, "RLE"], [0x202c, "PDF"], [0x202d, "LRO"], [0x202e, "RLO"], [0x2060, "WJ"], [0x2066, "LRI"],
  [0x2067, "RLI"], [0x2068, "FSI"], [0x2069, "PDI"], [0xfeff, "BOM"],
]);

const HIDDEN =
  /[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** Joiners that scripts and emoji need; between other characters they stay. */
const JOINER = /[\u200c\u200d]/;

/** Text with pictures of what cannot be seen; line ends and tabs stay. */
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

/** Characters of a token that are shown where it stands by itself. */
const LABEL = 24;

/** A token by itself: white space is seen, and a mark has something to sit on. */
export function labelled(text) {
  const seen = shown(shortened(text, LABEL)).replace(/[ \n\t]/g, (white) => WHITE.get(white) ?? white);
  return /^\p{M}/u.test(seen) ? `◌${seen}` : seen;
}

/** One line of at most so many characters. */
function shortened(text, most) {
  const characters = [...text];
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : text;
}

/** The last of a text, in one line. */
export function ending(text, most) {
  const characters = [...text];
  const last = shown(characters.slice(-most).join("")).replaceAll("\n", "↵");
  return characters.length > most ? `…${last}` : last;
}

/** How a label shows bytes: ‹e282›. */
const BYTES = /^‹((?:[0-9a-f]{2})+)›$/;

/**
 * What each token adds to a text. Parts of a character add nothing, but for the last of them, which
 * adds the character.
 * @returns {(token: {text: string | null, label: string}) => string}
 */
export function decoding() {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return ({ text, label }) => {
    // What was begun and never ended is a replacement character, as in the server's text.
    if (text !== null) return decoder.decode() + text;
    const hex = BYTES.exec(label)?.[1];
    if (!hex) return label;
    const bytes = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
    return decoder.decode(bytes, { stream: true });
  };
}

const SMALL = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 0.2345 → "23 %", 0.00123 → "0.12 %". */
export function percent(share) {
  if (share > 0 && share < 0.0001) return "<0.01 %";
  return `${SMALL.format(100 * share)} %`;
}

/** 12345.6 → "12,346". */
export const whole = (number) => WHOLE.format(number);

/** 12345678 → "12.3 million". */
export function large(number) {
  if (number >= 1e9) return `${(number / 1e9).toPrecision(3)} billion`;
  if (number >= 1e6) return `${(number / 1e6).toPrecision(3)} million`;
  return whole(number);
}

/** "3 tokens", "1 token". */
export const counted = (number, one, many = `${one}s`) => `${whole(number)} ${number === 1 ? one : many}`;

/** 75 → "1 min 15 s". */
export function duration(seconds) {
  const all = Math.max(0, Math.round(seconds));
  const [h, min, s] = [Math.floor(all / 3600), Math.floor((all % 3600) / 60), all % 60];
  if (h) return `${h} h ${min} min`;
  return min ? `${min} min ${s} s` : `${s} s`;
}
