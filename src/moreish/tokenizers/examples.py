"""The tokenizer of examples: an input, a separator, and a target.

Targets are text like the inputs, or sequences of symbols such as phonemes, or one label each.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Self, final, get_args

import numpy as np
from numpy.typing import NDArray

from moreish.errors import MoreishError
from moreish.tokenizers.base import NO_LIMITS, Ids, Tokenizer, VocabularyLimits, is_valid_text

TargetForm = Literal["text", "words", "label"]
"""Whether a target is text, words of a small vocabulary of their own, or a label as a whole."""

SEPARATOR_TEXT = "\t"


@final
class ExampleTokenizer(Tokenizer):
    """A tokenizer of text with two kinds of tokens more: the separator, and the symbols of targets
    that are not text.

    The stream of an example is `· input separator target ·`, where `·` is the boundary. No text
    encodes to the separator or to a symbol.
    """

    name = "examples"
    needs_text = False

    def __init__(self, base: Tokenizer, form: TargetForm, symbols: Sequence[str]) -> None:
        """
        Args:
            base: the tokenizer of inputs, and of targets that are text; it has a boundary.
            form: what the targets are.
            symbols: the distinct words or labels; empty where targets are text.
        """
        assert base.boundary_id is not None
        extra = [SEPARATOR_TEXT.encode(), *(symbol.encode() for symbol in symbols)]
        super().__init__(
            [*base.tokens, *extra], boundary_id=base.boundary_id, unk_id=base.unk_id
        )
        self.base, self.form, self.symbols = base, form, list(symbols)
        self.line_spaces = base.line_spaces
        self.separator_id = base.vocab_size
        self._first_symbol = base.vocab_size + 1
        self._id_of_symbol = {s: i for i, s in enumerate(symbols, self._first_symbol)}

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        raise NotImplementedError("it is built from the tokenizer of its text")

    # --- examples ---

    def encode_target(self, target: str) -> Ids:
        """Return the tokens of a target.

        Raises:
            MoreishError: it has unknown characters, or a word or label that is not in the training
                data.
        """
        if self.form == "text":
            return self.base.encode(target)
        parts = [target] if self.form == "label" else target.split()
        try:
            return np.array([self._id_of_symbol[part] for part in parts], dtype=np.int64)
        except KeyError as error:
            what = "label" if self.form == "label" else "word of targets"
            raise MoreishError(f"unknown {what}: {error.args[0][:60]!r}") from None

    def encode_example(self, source: str, target: str) -> Ids:
        """Return the tokens of an input and its target, and the boundary after it."""
        end = [self.boundary_id]
        return np.concatenate(
            [self.base.encode(source), [self.separator_id], self.encode_target(target), end]
        )

    def decode_target(self, ids: Ids) -> str:
        """Return the text of the tokens of a target; of others, whatever they are."""
        if self.form == "text":
            return self.base.decode(ids[ids < self.base.vocab_size])
        parts = [self.symbols[i - self._first_symbol] for i in ids if i >= self._first_symbol]
        return "".join(parts) if self.form == "label" else " ".join(parts)

    @property
    def target_ids(self) -> NDArray[np.bool_]:
        """Whether a token can occur in a target, (V,); its end is not part of it."""
        is_target_V = np.zeros(self.vocab_size, dtype=bool)
        if self.form == "text":
            is_target_V[: self.base.vocab_size] = True
            for absent in (self.boundary_id, self.unk_id):
                if absent is not None:
                    is_target_V[absent] = False
        else:
            is_target_V[self._first_symbol :] = True
        return is_target_V

    # --- the text of inputs ---

    def encode(self, text: str, previous: str = "") -> Ids:
        return self.base.encode(text, previous)

    def encode_items(self, items: list[str]) -> Ids:
        return self.base.encode_items(items)

    def implied_spaces(
        self, ids: NDArray[np.integer], previous: int | None = None
    ) -> NDArray[np.bool_]:
        inside = np.where(ids < self.base.vocab_size, ids, self.boundary_id)
        before = None if previous is None or previous >= self.base.vocab_size else previous
        return self.base.implied_spaces(inside, before)

    def safe_cut(self, text: str) -> int:
        return self.base.safe_cut(text)

    def find_unknown(self, text: str) -> list[str]:
        return self.base.find_unknown(text)

    def normalize_prompt(self, text: str) -> str:
        return self.base.normalize_prompt(text)

    def drop_unknown(self, text: str) -> str:
        return self.base.drop_unknown(text)

    def label(self, token: int) -> str:
        if token == self.separator_id:
            return "⇥"
        if token >= self._first_symbol:
            return self.symbols[token - self._first_symbol]
        return self.base.label(token)

    def to_json(self) -> dict[str, Any]:
        own = {"targets": self.form, "symbols": self.symbols}
        return {**super().to_json(), "text": self.base.to_json(), **own}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        raise NotImplementedError("see `examples_from_json`")


def examples_from_json(data: dict[str, Any], base: Tokenizer) -> ExampleTokenizer:
    """Build the tokenizer that `ExampleTokenizer.to_json` described, given that of its text."""
    form, symbols = data.get("targets"), data.get("symbols")
    if (
        form not in get_args(TargetForm)
        or not isinstance(symbols, list)
        or not all(map(is_valid_text, symbols))
        or len(set(symbols)) != len(symbols)
    ):
        raise MoreishError("the tokenizer file is damaged: its targets or symbols are not valid")
    return ExampleTokenizer(base, form, symbols)
