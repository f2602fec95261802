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
    """A tokenizer of text with additional tokens: the symbols of targets that are not text, and the
    separator.

    The stream of an example is `· input separator target ·`, where `·` is the boundary. No text
    encodes to a symbol or to the separator. The ids are those of the boundary (if it is 0), the
    symbols, the tokens of text, and the separator, which is the last: so a classifier predicts the
    first tokens only, however many words there are.

    >>> from moreish.tokenizers import CharTokenizer
    >>> text = CharTokenizer.build(["good", "bad"], boundary=True)
    >>> tokenizer = ExampleTokenizer(text, "label", ["yes", "no"])
    >>> tokenizer.encode_example("good", "yes").tolist()
    [6, 7, 7, 5, 8, 1, 0]
    """

    name = "examples"
    needs_text = False

    def __init__(
        self, base: Tokenizer, form: TargetForm, symbols: Sequence[str], *, fold_case: bool = False
    ) -> None:
        """
        Args:
            base: the tokenizer of inputs, and of targets that are text; it has a boundary.
            form: what the targets are.
            symbols: the distinct words or labels; empty where targets are text.
            fold_case: whether inputs are read in lower case.
        """
        assert base.boundary_id is not None
        self._base_boundary = base.boundary_id
        first = [base.tokens[0]] if base.boundary_id == 0 else []
        new = [symbol.encode() for symbol in symbols]
        rest = base.tokens[len(first) :]
        self._first_symbol, self.first_text = len(first), len(first) + len(new)
        shift = np.arange(base.vocab_size) + len(new)
        shift[: len(first)] = 0
        self._id_of_base_V = shift
        super().__init__(
            [*first, *new, *rest, SEPARATOR_TEXT.encode()],
            boundary_id=int(shift[base.boundary_id]),
            unk_id=None if base.unk_id is None else int(shift[base.unk_id]),
        )
        self.base, self.form, self.symbols = base, form, list(symbols)
        self.fold_case, self.line_spaces = fold_case, base.line_spaces
        self.separator_id = self.vocab_size - 1  # models rely on its being the last
        self._id_of_symbol = {s: i for i, s in enumerate(symbols, self._first_symbol)}

    @classmethod
    def build(
        cls, texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> Self:
        raise NotImplementedError("it is built from the tokenizer of its text")

    @property
    def num_outputs(self) -> int | None:
        """Number of tokens that can be predicted, the first ones; None for all of them."""
        return self.first_text if self.form == "label" else None

    # --- examples ---

    def encode_target(self, target: str) -> Ids:
        """Return the tokens of a target.

        Raises:
            MoreishError: it has unknown characters, or a word or label that is not in the training
                data.
        """
        if self.form == "text":
            return self._id_of_base_V[self.base.encode(target)]
        parts = [target] if self.form == "label" else target.split()
        try:
            return np.array([self._id_of_symbol[part] for part in parts], dtype=np.int64)
        except KeyError as error:
            what = "label" if self.form == "label" else "word of targets"
            raise MoreishError(f"unknown {what}: {error.args[0][:60]!r}") from None

    def encode_example(self, source: str, target: str) -> Ids:
        """Return the tokens of an input and its target, and the boundary after it."""
        parts = [self.encode(source), [self.separator_id], self.encode_target(target)]
        return np.concatenate([*parts, [self.boundary_id]])

    def decode_target(self, ids: Ids) -> str:
        """Return the text of the tokens of a target; of others, whatever they are."""
        if self.form == "text":
            return self.base.decode(self._to_base(ids))
        known = ids[(ids >= self._first_symbol) & (ids < self.first_text)]
        parts = [self.symbols[i - self._first_symbol] for i in known.tolist()]
        return "".join(parts) if self.form == "label" else " ".join(parts)

    def decode_input(self, ids: Ids) -> str:
        """Return the text of the tokens of an input."""
        return self.base.decode(self._to_base(ids))

    @property
    def target_ids(self) -> NDArray[np.bool_]:
        """Whether a token can occur in a target, (V,); its end is not part of it."""
        is_target_V = np.zeros(self.vocab_size, dtype=bool)
        is_target_V[self._first_symbol : self.first_text] = True
        if self.form == "text":
            is_target_V[self._id_of_base_V] = True
            for absent in (self.boundary_id, self.unk_id):
                if absent is not None:
                    is_target_V[absent] = False
        return is_target_V

    def _to_base(self, ids: NDArray[np.integer]) -> Ids:
        """Return the ids in the tokenizer of text; the boundary for all that are not text."""
        shift = self.first_text - self._first_symbol
        is_text = (ids >= self.first_text) & (ids < self.separator_id)
        return np.where(is_text, ids.astype(np.int64) - shift, self._base_boundary)

    # --- the text of inputs ---

    def encode(self, text: str, previous: str = "") -> Ids:
        return self._id_of_base_V[self.base.encode(self._fold(text), self._fold(previous))]

    def encode_items(self, items: list[str]) -> Ids:
        return self._id_of_base_V[self.base.encode_items([self._fold(item) for item in items])]

    def _fold(self, text: str) -> str:
        return text.lower() if self.fold_case else text

    def implied_spaces(
        self, ids: NDArray[np.integer], previous: int | None = None
    ) -> NDArray[np.bool_]:
        before = None if previous is None else int(self._to_base(np.array([previous]))[0])
        return self.base.implied_spaces(self._to_base(np.asarray(ids)), before)

    def safe_cut(self, text: str) -> int:
        return self.base.safe_cut(text)

    def find_unknown(self, text: str) -> list[str]:
        return self.base.find_unknown(self._fold(text))

    def normalize_prompt(self, text: str) -> str:
        return self.base.normalize_prompt(self._fold(text))

    def drop_unknown(self, text: str) -> str:
        return self.base.drop_unknown(self._fold(text))

    def label(self, token: int) -> str:
        if token == self.separator_id:
            return "⇥"
        if self._first_symbol <= token < self.first_text:
            return self.symbols[token - self._first_symbol]
        return self.base.label(int(self._to_base(np.array([token]))[0]))

    def to_json(self) -> dict[str, Any]:
        own = {"targets": self.form, "symbols": self.symbols, "fold_case": self.fold_case}
        return {**super().to_json(), "text": self.base.to_json(), **own}

    @classmethod
    def from_json(cls, data: dict[str, Any], *, boundary: bool) -> Self:
        raise NotImplementedError("see `examples_from_json`")


def examples_from_json(data: dict[str, Any], base: Tokenizer) -> ExampleTokenizer:
    """Build the tokenizer that `ExampleTokenizer.to_json` described, given that of its text."""
    form: Any = data.get("targets")
    symbols, fold_case = data.get("symbols"), data.get("fold_case")
    if (
        form not in get_args(TargetForm)
        or not isinstance(symbols, list)
        or not all(map(is_valid_text, symbols))
        or len(set(symbols)) != len(symbols)
        or not isinstance(fold_case, bool)
    ):
        raise MoreishError("the tokenizer file is damaged: its targets or symbols are not valid")
    return ExampleTokenizer(base, form, symbols, fold_case=fold_case)
