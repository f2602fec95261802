"""Writes text with the model.onnx beside it: needs only numpy and onnxruntime.

python generate.py --prompt "The " --tokens 200 --temperature 0.8 --seed 1

To build it into a program of your own, take the two classes: a `Tokenizer` turns text to numbers
and back; a `Model` reads numbers and says, for each, how likely every number is to come next.
"""

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]

SPACES = set("\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000")
SPACES |= set(map(chr, range(0x2000, 0x200B)))

WORDS = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)
"""GPT-2's words (Radford et al. 2019), for letters, digits and spaces that are ASCII."""

PIECES = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
"""Words as Moreish's tokenizer of words has them."""


def byte_characters() -> dict[int, str]:
    """How vocabularies of byte pairs write each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }


def plain(character: str) -> str:
    """A character of the same kind in ASCII: a letter, a digit, white space or a sign."""
    if character in SPACES:
        return " " if character == " " else "\t"
    if character.isascii():
        return character
    return {"L": "A", "N": "0"}.get(unicodedata.category(character)[0], "!")


class Tokenizer:
    """Text to numbers and back, after a tokenizer.json of Moreish."""

    def __init__(self, path: Path) -> None:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        self.kind = data.get("name", "bpe")
        first = int(bool(data.get("boundary")))
        self.unk = 0
        self.library: Any = None
        if self.kind == "char":
            self.tokens = [b""] * first + [c.encode() for c in data["characters"]]
        elif self.kind == "byte":
            self.tokens = [b""] * first + [bytes([byte]) for byte in range(256)]
        elif self.kind == "word":
            self.unk = first
            words = [word.encode() for word in data["words"]]
            self.tokens = [b""] * first + ["\ufffd".encode(), *words]
        else:
            self._read_pairs(data)
        self.ids = {token: place for place, token in enumerate(self.tokens) if token}

    def _read_pairs(self, data: dict[str, Any]) -> None:
        words = data["pre_tokenizer"]
        plain_words = words.get("type") == "ByteLevel" and words.get("use_regex", True)
        if data.get("normalizer") or words.get("add_prefix_space") or not plain_words:
            self._use_library(data)
        byte_of = {character: byte for byte, character in byte_characters().items()}
        special = {token["content"] for token in data.get("added_tokens") or []}
        vocabulary = data["model"]["vocab"]
        ids = [*vocabulary.values(), *(token["id"] for token in data.get("added_tokens") or [])]
        self.tokens = [b""] * (max(ids) + 1)
        for token, place in vocabulary.items():
            if token not in special:
                self.tokens[place] = bytes(byte_of[character] for character in token)
        as_bytes = [
            tuple(bytes(byte_of[character] for character in part) for part in pair.split(" "))
            for pair in data["model"]["merges"]
        ]
        self.ranks = {pair: place for place, pair in enumerate(as_bytes)}

    def _use_library(self, data: dict[str, Any]) -> None:
        """For words that are not GPT-2's."""
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            sys.exit("This tokenizer needs a library: pip install tokenizers")
        bare = {**data, "added_tokens": [], "post_processor": None}
        self.library = Library.from_str(json.dumps(bare))

    def unknown(self, text: str) -> list[str]:
        """What the model never saw: characters, or words with the space before them."""
        pieces = {"char": list(text), "word": PIECES.findall(text)}.get(self.kind, [])
        return [
            piece
            for piece in dict.fromkeys(pieces)
            if piece.encode("utf-8", "surrogatepass") not in self.ids
        ]

    def encode(self, text: str) -> list[int]:
        """A word that the model never saw becomes the one that stands for all of them."""
        if self.library:
            ids: list[int] = self.library.encode(text, add_special_tokens=False).ids
            return ids
        if self.kind == "bpe":
            found = [token for word in self._words(text) for token in self._merged(word)]
        elif self.kind == "word":
            found = [piece.encode() for piece in PIECES.findall(text)]
        elif self.kind == "byte":
            found = [bytes([byte]) for byte in text.encode()]
        else:
            if missing := self.unknown(text):
                raise ValueError(f"the model never saw {missing[0]!r}")
            found = [character.encode() for character in text]
        return [self.ids.get(token, self.unk) for token in found]

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.tokens[place] for place in ids).decode("utf-8", "replace")

    def _words(self, text: str) -> list[bytes]:
        kinds = "".join(map(plain, text))
        # What is no ASCII must not be taken for the end of a contraction: only letters can be.
        return [text[word.start() : word.end()].encode() for word in WORDS.finditer(kinds)]

    def _merged(self, word: bytes) -> list[bytes]:
        parts = [bytes([byte]) for byte in word]
        while len(parts) > 1:
            pairs = [self.ranks.get(pair, len(self.ranks)) for pair in pairwise(parts)]
            best = min(pairs)
            if best == len(self.ranks):
                break
            place = 0
            while place < len(parts) - 1:
                if self.ranks.get((parts[place], parts[place + 1])) == best:
                    parts[place : place + 2] = [parts[place] + parts[place + 1]]
                place += 1
        return parts


class Model:
    """model.onnx, and what it has read."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        about = self.session.get_modelmeta().custom_metadata_map
        self.boundary, self.never, self.context = (
            int(about[name]) if about[name] else None for name in ("boundary", "never", "context")
        )
        self.slides = about["past"] == "slides"
        self.inputs = self.session.get_inputs()[1:]  # after the tokens: what it has read
        self.start()

    def start(self, batch: int = 1) -> None:
        """Forget what it has read; `batch` texts are to be read side by side."""
        self.seen = np.zeros((batch, 0), np.int64)
        self.past = 0
        self.state = [self._zeros(given, batch) for given in self.inputs]

    def _zeros(self, given: Any, batch: int) -> Array:
        sizes = {"batch": batch, "past": 0}
        kind = np.int64 if given.type == "tensor(int64)" else np.float32
        return np.zeros([sizes.get(size, size) for size in given.shape], kind)

    def read(self, tokens: ArrayLike) -> Array:
        """Logits after each of these tokens, (batch, length, vocabulary), which follow what was
        read before; one array of numbers a text, all of the same length."""
        tokens = np.asarray(tokens, np.int64)
        new = tokens.shape[1]
        self.seen = np.concatenate([self.seen, tokens], axis=1)
        if self.context and not self.slides and self.past + new > self.context:
            # It cannot hold more: the newer half is read again.
            tokens = self._begin_anew(max(new, self.context // 2))
        names = [given.name for given in self.inputs]
        logits, *self.state = self.session.run(
            None, {"tokens": tokens, **dict(zip(names, self.state, strict=True))}
        )
        self.past += tokens.shape[1]
        if self.context and self.slides:
            for place, given in enumerate(self.inputs):
                if "past" in given.shape:
                    first = max(0, self.state[place].shape[2] - (self.context - 1))
                    self.state[place] = self.state[place][:, :, first:]
        return logits[:, -new:]

    def _begin_anew(self, kept: int) -> Array:
        older, newer = self.seen[:, :-kept], self.seen[:, -kept:]
        self.state = [self._zeros(given, len(newer)) for given in self.inputs]
        for given, state in zip(self.inputs, self.state, strict=True):
            if given.name.endswith("last_tokens"):  # of counts, which look back beyond them
                last = older[:, -state.shape[1] :] + 1
                state[:, state.shape[1] - last.shape[1] :] = last
        self.past = 0
        return newer


def generate(
    model: Model,
    ids: list[int],
    tokens: int = 200,
    temperature: float = 1.0,
    seed: int | None = None,
) -> Iterator[int]:
    """Numbers that go on from `ids`, until a boundary; temperature 0: always the likeliest."""
    random = np.random.default_rng(seed)
    model.start()
    ids = ids if model.context is None else ids[-model.context :]
    for _ in range(tokens):
        logits = model.read([ids])[0, -1].astype(np.float64)
        if model.never is not None:
            logits[model.never] = -np.inf
        if temperature:
            logits = (logits - logits.max()) / temperature
            shares = np.exp(logits) / np.exp(logits).sum()
            token = int(random.choice(len(shares), p=shares))
        else:
            token = int(logits.argmax())
        if token == model.boundary:
            return
        yield token
        ids = [token]


def main() -> None:
    options = argparse.ArgumentParser(description="Writes text with the model.onnx beside it.")
    options.add_argument("--prompt", default="")
    options.add_argument("--tokens", type=int, default=200)
    options.add_argument("--temperature", type=float, default=1.0)
    options.add_argument("--seed", type=int)
    asked = options.parse_args()
    if asked.temperature < 0:
        options.error("--temperature: give 0 or more")
    folder = Path(__file__).parent
    model, tokenizer = Model(folder / "model.onnx"), Tokenizer(folder / "tokenizer.json")
    if unknown := tokenizer.unknown(asked.prompt):
        options.error(f"--prompt: the model never saw {' '.join(map(repr, unknown))}")
    ids = tokenizer.encode(asked.prompt)
    if model.boundary is not None:  # which begins every text
        ids = [model.boundary, *ids]
    elif not ids:
        ids = tokenizer.encode("\n") if b"\n" in tokenizer.ids else [0]
    written = generate(model, ids, asked.tokens, asked.temperature, asked.seed)
    print(asked.prompt + tokenizer.decode(list(written)))


if __name__ == "__main__":
    main()
