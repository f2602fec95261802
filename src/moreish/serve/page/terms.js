// The options of the Train view, and the server's messages in the terms of that view.

export const MODELS = [["", "automatic"], ["kneser-ney", "n-gram counts (Kneser–Ney)"], ["bigram", "bigram"], ["mlp", "MLP"],
  ["rnn", "RNN"], ["gru", "GRU"], ["lstm", "LSTM"], ["wavenet", "WaveNet"], ["gpt", "GPT"],
  ["hybrid", "hybrid: n-gram counts and a network"]];

/** The built-in data sets that are offered. */
export const DATASETS = [["names", "names"], ["shakespeare", "Shakespeare"]];

export const KINDS = [["", "automatic"], ["lines", "a list, one item per line"], ["text", "running text"],
  ["examples", "examples: inputs with targets"]];

export const ENCODINGS = [["", "UTF-8"], ["cp1252", "Western Europe (Windows-1252)"], ["mac_roman", "Western Europe (Macintosh)"],
  ["cp850", "Western Europe (DOS, 850)"], ["cp1250", "Central Europe (Windows-1250)"],
  ["iso8859-2", "Central Europe (ISO 8859-2)"], ["cp1251", "Cyrillic (Windows-1251)"], ["koi8-r", "Cyrillic (KOI8-R)"],
  ["cp1254", "Turkish (Windows-1254)"], ["gb18030", "Chinese (GB 18030)"], ["big5", "Chinese (Big5)"],
  ["shift_jis", "Japanese (Shift JIS)"], ["utf-16", "UTF-16"]];

/** The fixes of the audit that the page offers: by flag, the option and its label. */
export const CLEANING = { "--dedup": ["dedup", "Remove duplicates"], "--nfc": ["nfc", "Compose accented letters (NFC)"],
  "--clean": ["clean", "Remove control and invisible characters"] };

const MAX_NAME = 60;

/** Turns a file name into one that the server accepts: letters, digits and a few other characters. */
export function plainName(fileName) {
  const plain = fileName.normalize("NFC").replace(/\p{Default_Ignorable_Code_Point}|[^\p{L}\p{M}\p{N} ._()+-]/gu, "_");
  const ending = (/.(\.[\p{L}\p{N}]{1,10})$/u.exec(plain)?.[1] ?? "").replace(/^\.part$/, "");
  const whole = [...plain.slice(0, plain.length - ending.length).replace(/^[^\p{L}\p{N}]+/u, "")];
  const stem = whole.slice(0, MAX_NAME - [...ending].length);
  const name = `${stem.join("").trim() || "text"}${ending}`;
  return name.replace(/\.part$/, "_part").replace(/[. ]+$/, "");
}

/** Returns a file name for a pasted text, after its first words and unlike the others. */
export function pastedName(text, others) {
  const words = text.trim().split("\n", 1)[0].split(/\s+/).slice(0, 4).join(" ").slice(0, 30);
  const stem = plainName(words).replace(/[ .]+/g, " ").trim();
  for (let number = 1; ; number++) {
    const name = `${stem}${number > 1 ? `-${number}` : ""}.txt`;
    if (!others.includes(name)) return name;
  }
}

/** Mentions of the command line in the server's messages, and the fields of the page that do the same. */
const TERMS = [
  [/^it looks like/, "It looks like"],
  [/[;:,.]? *(?:for a closer look: |when that is fixed, resume with |The best weights so far are kept: )?moreish (?:doctor|sample|eval|train) .*$/, ""],
  [/\(if not: --as text\)/g, "(if not, read it as running text)"],
  [/\(if not: --as lines\)/g, "(if not, read it as a list)"],
  [/\(if not: --input COLUMN --target COLUMN, or --as lines or text\)/g, "(if not, choose other columns, or read it as a list or as running text)"],
  [/choose two with --input COLUMN and --target COLUMN/g, "choose the columns of inputs and targets"],
  [/choose the one to learn with --column .*$/g, "choose the one to learn, or the columns of inputs and targets"],
  [/--input and --target are both/g, "inputs and targets are both"],
  [/use --as text/g, "read it as running text"],
  [/use --as lines/g, "read it as a list"],
  [/name its encoding, e\.g\. --encoding/g, "choose its encoding, for example"],
  [/in another encoding \(e\.g\. --encoding ([\w-]+)\)/g, "in another encoding, for example $1"],
  [/name its encoding/g, "choose its encoding"],
  [/--encoding(?= [\w-])/g, "the encoding"],
  [/--model kneser-ney/g, "choose the model “n-gram counts (Kneser–Ney)”"],
  [/--model hybrid/g, "choose the model “hybrid”"],
  [/--clean/g, "removing control characters"],
  [/--dedup/g, "removing duplicates"],
  [/--nfc/g, "composing accented letters (NFC)"],
  [/; try a lower --set train\.lr \(it was ([^)]*)\)/g, " (learning rate $1)"],
  [/: --set train\.accumulate=.*$/g, ": choose another model"],
  [/: (?:--set model\.[\w.]*order=\d+ would fit|give less text)$/g, ": choose another model, or a shorter text"],
  [/: give the model fewer layers, less width or less --context/g, ": choose another model"],
];

/** Rephrases a message of the server for the fields of the page. */
export const inPageTerms = (text) => TERMS.reduce((result, [from, to]) => result.replace(from, to), text);
