"""Whole texts from decoded tokens: lists of items, running text, and streams of text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moreish.errors import MoreishError
from moreish.generate.constrained import (
    Automaton,
    ConstrainedDecoder,
    effective_size,
    resample,
)
from moreish.generate.decode import generate
from moreish.generate.detokenizer import StreamDetokenizer
from moreish.generate.sampling import Sampling
from moreish.models import Model
from moreish.tokenizers import Ids, Tokenizer

MAX_BATCH = 256
"""Streams that run through the model together."""

MAX_TRIES = 200
"""Streams sampled for each requested text before giving up on finding enough accepted ones."""

POOL_FACTORS = 4, 16
"""Minimum and maximum number of constrained texts sampled for each that is chosen by weight: more
than the minimum where few of them have most of the weight."""

POOL_STEP = 64
"""Constrained texts sampled at least, and, like each further `n`, before the weights are looked at
again."""


class TooFewTexts(MoreishError):  # noqa: N818 (what it says)
    """Fewer texts were accepted than requested."""

    def __init__(self, message: str, texts: list[str]) -> None:
        super().__init__(message)
        self.texts = texts
        """Those that were found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightedText:
    """A sampled text, and the log of its importance weight under the constraint."""

    ids: Ids
    log_weight: float


def max_pool(n: int) -> int:
    """Return the largest number of constrained texts that `n` are chosen from."""
    return max(POOL_FACTORS[1] * n, POOL_STEP)


def is_pool_complete(log_weights: Sequence[float], n: int) -> bool:
    """Return whether these constrained texts suffice to choose `n` from: their effective size
    (Kish 1965) is twice that number, or they are as many as are sampled at most."""
    size = len(log_weights)
    if size >= max_pool(n):
        return True
    is_due = size >= POOL_FACTORS[0] * n and size % max(POOL_STEP, n) == 0
    return is_due and effective_size(log_weights) >= 2 * n


@dataclass(frozen=True, kw_only=True)
class TextGenerator:
    """Samples texts from a model."""

    model: Model
    tokenizer: Tokenizer
    prompt: Ids
    """Tokens that begin every text."""
    prefix: Ids
    """Tokens that the model reads before the prompt and that are not part of the text."""
    max_tokens: int
    sampling: Sampling
    seed: int
    automaton: Automaton | None = None
    """The constraint on the texts."""
    stop: tuple[str, ...] = ()
    """A text ends before the first of these strings."""

    def texts(
        self, n: int, accept: Callable[[Ids], bool], *, distinct: bool = False
    ) -> Iterator[str]:
        """Yield `n` texts that `accept` accepts, in the order of their streams.

        Args:
            n: number of texts.
            accept: whether a text is wanted.
            distinct: whether `accept` accepts each text once, so that none may be chosen twice.

        Raises:
            TooFewTexts: too few were accepted after many tries.
        """
        if self.automaton is None:
            texts: Iterator[WeightedText] = self._accepted(n, n, accept)
        else:
            pool = self._pool(n, accept)
            weights = [text.log_weight for text in pool]
            chosen = resample(weights, n, self.seed, distinct=distinct)
            texts = (pool[index] for index in chosen)
        for text in texts:
            yield self.decode(text.ids)

    def decode(self, ids: Ids) -> str:
        """Return the text of a prompt and its continuation, up to the first stop string of the
        continuation."""
        text = self.tokenizer.decode(ids)
        start = len(self.tokenizer.decode(self.prompt))
        ends = [at for stop in self.stop if (at := text.find(stop, start)) >= 0]
        return text[: min(ends)] if ends else text

    def stream(self) -> Iterator[str]:
        """Yield one text in pieces as it is sampled, never half a character."""
        prompt = self.tokenizer.decode_bytes(self.prompt)
        detokenizer = StreamDetokenizer(self.stop, after=prompt)
        yield StreamDetokenizer().add(prompt)
        previous = int(self.prompt[-1]) if len(self.prompt) else None
        for token_B, alive_B in self._generate(range(1)):
            if alive_B[0] and not detokenizer.stopped:
                yield detokenizer.add(self.tokenizer.decode_bytes(token_B.numpy(), previous))
                previous = int(token_B[0])
            if detokenizer.stopped:
                return
        yield detokenizer.finish()

    def weighted_texts(self, streams: range) -> Iterator[WeightedText]:
        """Yield the texts of some streams, accepted or not."""
        constraint = None
        if self.automaton is not None:
            constraint = ConstrainedDecoder(
                self.automaton, self.prompt, len(streams), self.sampling
            )
        tokens, alive = zip(*self._generate(streams, constraint), strict=True)
        tokens_BT = torch.stack(tokens, dim=1).numpy()
        lengths_B = torch.stack(alive, dim=1).sum(1).tolist()
        weights_B = [0.0] * len(streams) if constraint is None else constraint.log_weight_B.tolist()
        for row, length, weight in zip(tokens_BT, lengths_B, weights_B, strict=True):
            ids = np.concatenate([self.prompt, row[:length]])
            yield WeightedText(ids=ids, log_weight=weight)

    def _pool(self, n: int, accept: Callable[[Ids], bool]) -> list[WeightedText]:
        """Return constrained texts to choose `n` from."""
        pool: list[WeightedText] = []
        weights: list[float] = []
        for text in self._accepted(max_pool(n), n, accept):
            pool.append(text)
            weights.append(text.log_weight)
            if is_pool_complete(weights, n):
                break
        return pool

    def _accepted(
        self, n: int, minimum: int, accept: Callable[[Ids], bool]
    ) -> Iterator[WeightedText]:
        """Yield `n` accepted texts, or at least `minimum` of them if many tries find no more."""
        found, first, accepted = 0, 0, list[Ids]()
        while found < n:
            if first >= MAX_TRIES * minimum:
                if found >= minimum:
                    return
                raise TooFewTexts(
                    f"only {found} of {minimum} texts found in {first:,} tries: request fewer "
                    "texts, raise the temperature, or relax the filters",
                    [self.decode(ids) for ids in accepted],
                )
            streams = range(first, first + min(MAX_BATCH, max(32, n - found)))
            for text in self.weighted_texts(streams):
                if found < n and accept(text.ids):
                    found += 1
                    accepted.append(text.ids)
                    yield text
            first = streams.stop

    def _generate(
        self, streams: range, constraint: ConstrainedDecoder | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return generate(
            self.model,
            np.concatenate([self.prefix, self.prompt]),
            streams=streams,
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            seed=self.seed,
            eos_token=self.tokenizer.boundary_id,
            suppressed_token=self.tokenizer.unk_id,
            constraint=constraint,
        )
