"""Arithmetic coding with the probabilities of a model (Witten, Neal and Cleary 1987).

A text of N tokens takes the sum of their losses, in bits, and one or two bytes: the length of the
code proves the loss, since decoding it needs nothing but the model.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate.adaptive import AdaptiveModel
from moreish.models import Model, State, Votes
from moreish.tokenizers import Ids

PRECISION = 48
"""Bits of the interval's bounds."""

PROGRESS = 256
"""Tokens between two reports of progress."""

WHOLE, HALF, QUARTER = 1 << PRECISION, 1 << (PRECISION - 1), 1 << (PRECISION - 2)

TOTAL = 1 << 32
"""Sum of the frequencies, but for rounding. No frequency is zero."""


def frequencies(probability_V: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return (V + 1,) the cumulative frequencies of the tokens."""
    frequency_V = (probability_V * TOTAL).astype(np.int64) + 1
    return np.concatenate([[0], frequency_V.cumsum()])


class Interval:
    """The interval of the numbers that stand for a text; encoding narrows it."""

    def __init__(self) -> None:
        self.low, self.high = 0, WHOLE - 1

    def narrow(self, low: int, high: int, total: int) -> None:
        """Keep the part from `low` to before `high` of `total`."""
        size = self.high - self.low + 1
        self.high = self.low + size * high // total - 1
        self.low += size * low // total

    def shifts(self) -> Iterator[int]:
        """Double the interval while it lies in one half, or in the middle, of all numbers; yield
        what was subtracted from its bounds each time."""
        while True:
            if self.high < HALF:
                offset = 0
            elif self.low >= HALF:
                offset = HALF
            elif self.low >= QUARTER and self.high < HALF + QUARTER:
                offset = QUARTER
            else:
                return
            self.low = 2 * (self.low - offset)
            self.high = 2 * (self.high - offset) + 1
            yield offset


class Encoder:
    """Writes tokens as bits."""

    def __init__(self) -> None:
        self._interval = Interval()
        self._bits: list[int] = []
        self._pending = 0  # bits that are the opposite of the next one

    def encode(self, token: int, cumulative: NDArray[np.int64]) -> None:
        """Write one token, given the cumulative frequencies of all."""
        low, high, total = (int(cumulative[index]) for index in (token, token + 1, -1))
        self._interval.narrow(low, high, total)
        for offset in self._interval.shifts():
            if offset == QUARTER:
                self._pending += 1
            else:
                self._write(int(offset == HALF))

    def _write(self, bit: int) -> None:
        self._bits += [bit, *[1 - bit] * self._pending]
        self._pending = 0

    def finish(self) -> bytes:
        """Return all that was written."""
        self._pending += 1
        self._write(int(self._interval.low >= QUARTER))
        return np.packbits(self._bits).tobytes()


class Decoder:
    """Reads the tokens that an `Encoder` wrote."""

    def __init__(self, code: bytes) -> None:
        self._interval = Interval()
        self._bits = iter(np.unpackbits(np.frombuffer(code, dtype=np.uint8)).tolist())
        self._value = 0
        for _ in range(PRECISION):
            self._value = 2 * self._value + next(self._bits, 0)

    def decode(self, cumulative: NDArray[np.int64]) -> int:
        """Return the next token, given the cumulative frequencies of all."""
        interval, total = self._interval, int(cumulative[-1])
        size = interval.high - interval.low + 1
        place = ((self._value - interval.low + 1) * total - 1) // size
        token = int(np.searchsorted(cumulative, place, side="right")) - 1
        interval.narrow(int(cumulative[token]), int(cumulative[token + 1]), total)
        for offset in interval.shifts():
            self._value = 2 * (self._value - offset) + next(self._bits, 0)
        return token


class Predictor:
    """Gives the distribution of every next token of a text that is read token by token."""

    def __init__(self, model: Model, adaptive: AdaptiveModel | None, boundary: int | None) -> None:
        """
        Args:
            model: the model; not used with `adaptive`.
            adaptive: a fresh adaptive model.
            boundary: the token between the items of a list, which are independent.
        """
        self._adaptive, self._boundary = adaptive, boundary
        self._model = model if adaptive is None else adaptive.model
        self._state: State = None
        self._segment: list[int] = []
        self._votes: list[Votes] = []

    def read(self, token: int) -> NDArray[np.int64]:
        """Read a token; return the cumulative frequencies of the next."""
        votes: tuple[Votes, ...] = ()
        if token == self._boundary:
            self._state = None
        if self._adaptive is not None:
            self._segment.append(token)
            if len(self._segment) > self._adaptive.segment:
                known = (Votes.of_positions(self._votes),) if self._votes else ()
                self._adaptive.learn(torch.tensor(self._segment), known)
                self._state = self._adaptive.state
                self._segment, self._votes = [token], []
            votes = self._adaptive.recall(torch.tensor([token]))
            self._votes += votes
        ids_11 = torch.tensor([[token]], device=self._model.device)
        with torch.inference_mode():
            logits_11V, self._state = self._model(ids_11, self._state, *votes)
        return frequencies(logits_11V[0, 0].double().softmax(-1).cpu().numpy())


def encode_tokens(
    model: Model,
    tokens: TokenDataset,
    *,
    adaptive: AdaptiveModel | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """Return the code of all tokens of a split but the first.

    Args:
        model: the trained model.
        tokens: the split.
        adaptive: a fresh adaptive model to use in place of the model.
        progress: called with the finished share.
    """
    encoder = Encoder()
    predictor = Predictor(model, adaptive, tokens.boundary if tokens.items else None)
    ids = tokens.ids_N[:].astype(np.int64).tolist()
    for place, token in enumerate(ids[:-1]):
        encoder.encode(ids[place + 1], predictor.read(token))
        if progress is not None and place % PROGRESS == 0:
            progress(place / tokens.num_predictions)
    return encoder.finish()


def decode_tokens(
    model: Model,
    code: bytes,
    first: int,
    number: int,
    *,
    adaptive: AdaptiveModel | None = None,
    boundary: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Ids:
    """Return the tokens of a code, the first included.

    Args:
        model, adaptive, progress: as in `encode_tokens`.
        code: what it returned.
        first: the first token.
        number: number of the others.
        boundary: the token between items, if the split is a list.
    """
    decoder, predictor = Decoder(code), Predictor(model, adaptive, boundary)
    ids = [first]
    for place in range(number):
        ids.append(decoder.decode(predictor.read(ids[-1])))
        if progress is not None and place % PROGRESS == 0:
            progress(place / number)
    return np.array(ids)


def coded_bytes(
    model: Model,
    tokens: TokenDataset,
    adaptive: Callable[[], AdaptiveModel | None],
    progress: Callable[[float], None] | None = None,
) -> int:
    """Return the length of the code of all tokens of a split but the first, which is decoded again.

    Args:
        model, tokens, progress: as in `encode_tokens`.
        adaptive: makes a fresh adaptive model, if one is used in place of the model.

    Raises:
        MoreishError: the decoded tokens differ.
    """
    code = encode_tokens(model, tokens, adaptive=adaptive(), progress=progress)
    ids = decode_tokens(
        model,
        code,
        int(tokens.ids_N[0]),
        tokens.num_predictions,
        adaptive=adaptive(),
        boundary=tokens.boundary if tokens.items else None,
        progress=progress,
    )
    if not np.array_equal(ids, tokens.ids_N[:]):
        raise MoreishError(
            "the decoded split differs from the original: the model computed other numbers the "
            "second time, as with another number of threads; try again"
        )
    return len(code)
