"""Whole texts from decoded tokens: lists of items, running text, and streams of text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from moreish.errors import MoreishError
from moreish.generate.constrained import Automaton, ConstrainedDecoder, resample
from moreish.generate.decode import generate
from moreish.generate.detokenizer import StreamDetokenizer
from moreish.generate.sampling import Sampling
from moreish.models import Model
from moreish.tokenizers import Ids, Tokenizer

MAX_BATCH = 256
"""Streams that run through the model together."""

MAX_TRIES = 200
"""Streams sampled for each requested text before giving up on finding enough accepted ones."""

POOL_FACTOR = 4
"""Constrained texts sampled for each that is chosen by weight."""


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

    def texts(self, n: int, accept: Callable[[Ids], bool]) -> Iterator[str]:
        """Yield `n` texts that `accept` accepts, in the order of their streams.

        Raises:
            TooFewTexts: too few were accepted after many tries.
        """
        if self.automaton is None:
            texts: Iterator[WeightedText] = self._accepted(n, n, accept)
        else:
            pool = list(self._accepted(POOL_FACTOR * n, n, accept))
            chosen = resample([text.log_weight for text in pool], n, self.seed)
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
