"""Generates text with the model.onnx in this folder; needs only numpy and onnxruntime.

    python generate.py --prompt "The " --max-tokens 200 --temperature 0.8 --seed 1

To use the model in your own program, copy the two classes: `StandaloneTokenizer` converts text to
token ids and back, and `ONNXModel` returns next-token logits and keeps its state between calls.

B batch, T new tokens, V vocabulary.
"""

import argparse
import json
import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

WHITESPACE = set("\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000")
WHITESPACE |= set(map(chr, range(0x2000, 0x200B)))

GPT2_PATTERN = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)
"""How GPT-2 splits text into words (Radford et al. 2019). Its Unicode classes are not available in
`re`, so the text is first mapped to ASCII by `ascii_class`."""

WORD_PATTERN = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
"""How Moreish's word tokenizer splits text."""

LINE_START = re.compile(r"(?:^|(?<=[^\S ]))(?=[\S ])")
"""Where it adds a space before it splits, so that a word is the same token everywhere."""


def byte_characters() -> dict[int, str]:
    """Return the printable character that a byte-level BPE vocabulary uses for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return dict(zip(printable + others, map(chr, [*printable, *range(256, 512)]), strict=False))


def ascii_class(character: str) -> str:
    """Return an ASCII character of the same class: letter, digit, white space or symbol.

    Letters become "A", which ends no contraction ('s, 'll, …).
    """
    if character in WHITESPACE:
        return " " if character == " " else "\t"
    if character.isascii():
        return character
    return {"L": "A", "N": "0"}.get(unicodedata.category(character)[0], "!")


class StandaloneTokenizer:
    """Reads a tokenizer.json of Moreish: characters, bytes, words or byte-level BPE."""

    def __init__(self, path: Path) -> None:
        """Load the vocabulary.

        Raises:
            ImportError: the file needs the `tokenizers` library, which is not installed.
        """
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        self.kind = data.get("name", "bpe")
        self.unknown_id, self.line_spaces = 0, False
        self.library: Any = None
        boundary = [b""] * int(bool(data.get("boundary")))  # id 0, if the model has one
        if self.kind == "char":
            self.tokens = [*boundary, *(character.encode() for character in data["characters"])]
        elif self.kind == "byte":
            self.tokens = [*boundary, *(bytes([byte]) for byte in range(256))]
        elif self.kind == "word":
            self.unknown_id = len(boundary)
            self.line_spaces = bool(data.get("line_spaces"))
            words = (word.encode() for word in data["words"])
            self.tokens = [*boundary, "\ufffd".encode(), *words]
        else:
            self._load_bpe(data)
        self.ids = {token: i for i, token in enumerate(self.tokens) if token}

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`.

        Raises:
            ValueError: a character is not in the vocabulary. (A word that is not becomes the
                "unknown" token.)
        """
        if self.library:
            ids: list[int] = self.library.encode(text, add_special_tokens=False).ids
            return ids
        if self.kind == "bpe":
            tokens = [token for word in self._split_words(text) for token in self._merge(word)]
        elif self.kind == "word":
            tokens = [word.encode() for word in self._find_words(text)]
        elif self.kind == "byte":
            tokens = [bytes([byte]) for byte in text.encode()]
        else:
            if unknown := self.find_unknown(text):
                raise ValueError(f"{unknown[0]!r} is not in the model's vocabulary")
            tokens = [character.encode() for character in text]
        return [self.ids.get(token, self.unknown_id) for token in tokens]

    def decode(self, ids: list[int], previous: int | None = None) -> str:
        """Return the text of `ids`; bytes that are not valid UTF-8 become U+FFFD.

        Args:
            ids: token ids.
            previous: the token before them; None at the beginning of a text.
        """
        raw = [self.tokens[i] for i in ids]
        if self.line_spaces:
            before = ["" if previous is None else self.tokens[previous].decode()]
            before += [token.decode() for token in raw[:-1]]
            for place, text in enumerate(before[: len(raw)]):
                if not text or (text.isspace() and text != " "):
                    raw[place] = raw[place].removeprefix(b" ")
        return b"".join(raw).decode("utf-8", "replace")

    def find_unknown(self, text: str) -> list[str]:
        """Return the distinct characters or words of `text` that the vocabulary lacks."""
        parts = {"char": list(text), "word": self._find_words(text)}.get(self.kind, [])
        unknown = (p for p in parts if p.encode("utf-8", "surrogatepass") not in self.ids)
        return list(dict.fromkeys(p.strip() or p for p in unknown))

    def _find_words(self, text: str) -> list[str]:
        return WORD_PATTERN.findall(LINE_START.sub(" ", text) if self.line_spaces else text)

    def _load_bpe(self, data: dict[str, Any]) -> None:
        splitter = data["pre_tokenizer"]
        is_gpt2 = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True)
        if data.get("normalizer") or splitter.get("add_prefix_space") or not is_gpt2:
            self._load_library(data)
        byte_of = {character: byte for byte, character in byte_characters().items()}
        vocabulary, added = data["model"]["vocab"], data.get("added_tokens") or []
        special = {token["content"] for token in added}
        largest_id = max([*vocabulary.values(), *(token["id"] for token in added)])
        self.tokens = [b""] * (largest_id + 1)
        for token, i in vocabulary.items():
            if token not in special:
                self.tokens[i] = bytes(byte_of[character] for character in token)
        merges = [
            tuple(bytes(byte_of[character] for character in part) for part in pair.split(" "))
            for pair in data["model"]["merges"]
        ]
        self.merge_ranks = {pair: rank for rank, pair in enumerate(merges)}

    def _load_library(self, data: dict[str, Any]) -> None:
        """Use the `tokenizers` library if the text is not split as GPT-2 splits it."""
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ImportError("this tokenizer needs a library: pip install tokenizers") from None
        bare = {**data, "added_tokens": [], "post_processor": None}
        self.library = Tokenizer.from_str(json.dumps(bare))

    def _split_words(self, text: str) -> list[bytes]:
        classes = "".join(map(ascii_class, text))
        return [text[m.start() : m.end()].encode() for m in GPT2_PATTERN.finditer(classes)]

    def _merge(self, word: bytes) -> list[bytes]:
        """Apply the byte-pair merges to one word, the lowest rank first."""
        parts = [bytes([byte]) for byte in word]
        no_merge = len(self.merge_ranks)
        while len(parts) > 1:
            best = min(self.merge_ranks.get(pair, no_merge) for pair in pairwise(parts))
            if best == no_merge:
                break
            i = 0
            while i < len(parts) - 1:
                if self.merge_ranks.get((parts[i], parts[i + 1])) == best:
                    parts[i : i + 2] = [parts[i] + parts[i + 1]]
                i += 1
        return parts


class ONNXModel:
    """Runs model.onnx and keeps the state of the sequences it has read.

    Attributes:
        boundary: the token that begins and ends every text; None if there is none.
        suppressed: a token that must not be generated; None if there is none.
        context: how many tokens the model can attend to; None if unlimited.
        slides: whether the oldest tokens may simply be dropped from the state when the context is
            full. If not, the newer half is read again from an empty state.
    """

    state: list[Array]

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.boundary, self.suppressed, self.context = (
            int(metadata[name]) if metadata[name] else None
            for name in ("boundary_token", "suppressed_token", "context_length")
        )
        self.slides = metadata["context_overflow"] == "slide"
        self.state_inputs = self.session.get_inputs()[1:]  # the first input is the tokens
        self.reset()

    def reset(self, batch_size: int = 1) -> None:
        """Discard everything read so far and start `batch_size` empty sequences."""
        self.history_BT = np.zeros((batch_size, 0), np.int64)
        self._clear_state(batch_size)

    def forward(self, tokens: ArrayLike) -> Array:
        """Read more tokens of each sequence.

        Args:
            tokens: (B, T) token ids, which follow those of earlier calls.

        Returns:
            (B, T, V) the logits of the token after each of them.
        """
        tokens_BT = np.asarray(tokens, np.int64)
        new = tokens_BT.shape[1]
        self.history_BT = np.concatenate([self.history_BT, tokens_BT], axis=1)
        if self.context and not self.slides and self.past_length + new > self.context:
            tokens_BT = self._restart(max(new, self.context // 2))
        names = [state_input.name for state_input in self.state_inputs]
        logits_BTV, *self.state = self.session.run(
            None, {"tokens": tokens_BT, **dict(zip(names, self.state, strict=True))}
        )
        self.past_length += tokens_BT.shape[1]
        if self.context and self.slides:
            for i, state_input in enumerate(self.state_inputs):
                if "past" in state_input.shape:  # keys and values, (B, heads, past, width)
                    first = max(0, self.state[i].shape[2] - (self.context - 1))
                    self.state[i] = self.state[i][:, :, first:]
        return logits_BTV[:, -new:]

    def _clear_state(self, batch_size: int) -> None:
        """Set every state tensor to zeros of its declared shape, with `past` = 0."""
        sizes = {"batch": batch_size, "past": 0}
        self.past_length = 0
        self.state = [
            np.zeros(
                [sizes.get(size, size) for size in state_input.shape],
                np.int64 if state_input.type == "tensor(int64)" else np.float32,
            )
            for state_input in self.state_inputs
        ]

    def _restart(self, kept: int) -> Array:
        """Clear the state and return the last `kept` tokens, which are to be read again."""
        older_BT, newer_BT = self.history_BT[:, :-kept], self.history_BT[:, -kept:]
        self._clear_state(len(newer_BT))
        for state_input, state in zip(self.state_inputs, self.state, strict=True):
            # The last tokens that n-gram counts look up, stored as id + 1, may be older.
            if state_input.name.endswith("last_tokens"):
                last_BT = older_BT[:, -state.shape[1] :] + 1
                state[:, state.shape[1] - last_BT.shape[1] :] = last_BT
        return newer_BT


def encode_prompt(tokenizer: StandaloneTokenizer, model: ONNXModel, prompt: str) -> list[int]:
    """Return the token ids to continue: those of `prompt`, after the boundary if there is one."""
    ids = tokenizer.encode(prompt)
    if model.boundary is not None:
        return [model.boundary, *ids]
    if not ids:  # the model needs some token to start from
        return tokenizer.encode("\n") if b"\n" in tokenizer.ids else [0]
    return ids


def generate(
    model: ONNXModel,
    ids: list[int],
    max_tokens: int = 200,
    temperature: float = 1.0,
    seed: int | None = None,
) -> Iterator[int]:
    """Yield the token ids that continue `ids`, until the boundary token or `max_tokens`.

    Args:
        ids: the prompt, at least one token.
        temperature: 0 always picks the most likely token.
        seed: makes the output reproducible.
    """
    rng = np.random.default_rng(seed)
    model.reset()
    ids = ids if model.context is None else ids[-model.context :]
    for _ in range(max_tokens):
        logits_V = model.forward([ids])[0, -1].astype(np.float64)
        if model.suppressed is not None:
            logits_V[model.suppressed] = -np.inf
        if ids[-1] == model.boundary:  # no item is empty
            logits_V[model.boundary] = -np.inf
        if temperature:
            logits_V = (logits_V - logits_V.max()) / temperature
            probabilities_V = np.exp(logits_V) / np.exp(logits_V).sum()
            token = int(rng.choice(len(probabilities_V), p=probabilities_V))
        else:
            token = int(logits_V.argmax())
        if token == model.boundary:
            return
        yield token
        ids = [token]


def main() -> None:
    parser = argparse.ArgumentParser(description="Generates text with the model.onnx beside it.")
    parser.add_argument("--prompt", default="", help="Text to continue (default: none).")
    parser.add_argument("--max-tokens", type=int, default=200, help="Default 200.")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="0 picks the most likely token (default 1)."
    )
    parser.add_argument("--seed", type=int, help="Random seed (default: a new one every time).")
    args = parser.parse_args()
    if args.temperature < 0:
        parser.error("--temperature must be 0 or more")
    folder = Path(__file__).parent
    try:
        tokenizer = StandaloneTokenizer(folder / "tokenizer.json")
    except ImportError as error:
        parser.error(str(error))
    model = ONNXModel(folder / "model.onnx")
    if unknown := tokenizer.find_unknown(args.prompt):
        parser.error(f"--prompt: not in the vocabulary: {' '.join(map(repr, unknown))}")
    ids = encode_prompt(tokenizer, model, args.prompt)
    generated = generate(model, ids, args.max_tokens, args.temperature, args.seed)
    print(args.prompt + tokenizer.decode(list(generated), ids[-1]))


if __name__ == "__main__":
    main()
