"""Whole texts out of the engine: lists of items, pieces of running text, and streams."""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from moreish.errors import MoreishError
from moreish.generate.constrained import Automaton, ConstrainedDecoder, resample
from moreish.generate.decode import generate
from moreish.generate.sampling import Sampling
from moreish.models import Model
from moreish.tokenizers import Ids, Tokenizer

CHUNK = 256
"""Streams that run through the model together."""

TRIES = 200
"""Streams drawn for each text that is asked for, before giving up on finding one that is wanted."""


POOL_FACTOR = 4
"""Texts drawn for each that is chosen, where they are constrained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A text, and how much of the probability its constraints left it, as a logarithm."""

    ids: Ids
    log_weight: float


@dataclass(frozen=True, kw_only=True)
class TextGenerator:
    """A model that writes: what it starts from, how it draws, and when it stops."""

    model: Model
    tokenizer: Tokenizer
    prompt: Ids
    """Given tokens, which are part of each text."""
    lead: Ids
    """Tokens that the model reads before the prompt and that are no part of the text."""
    max_tokens: int
    sampling: Sampling
    seed: int
    automaton: Automaton | None = None
    """What the texts must match."""

    def texts(self, n: int, accept: Callable[[Ids], bool]) -> Iterator[str]:
        """`n` texts of which `accept` says yes, in the order of their streams.

        Raises:
            MoreishError: after many tries there are still too few.
        """
        if self.automaton is None:
            drawn: Iterator[Drawn] = self._accepted(n, n, accept)
        else:
            pool = list(self._accepted(POOL_FACTOR * n, n, accept))
            chosen = resample([text.log_weight for text in pool], n, self.seed)
            drawn = (pool[place] for place in chosen)
        for text in drawn:
            yield self.tokenizer.decode(text.ids)

    def _accepted(self, n: int, least: int, accept: Callable[[Ids], bool]) -> Iterator["Drawn"]:
        """`n` texts; fewer, but `least`, where many tries find no more."""
        found, first = 0, 0
        while found < n:
            if first >= TRIES * least:
                if found >= least:
                    return
                raise MoreishError(
                    f"only {found} of {least} texts found in {first:,} tries: ask for fewer, "
                    "raise the temperature, or ask less of them"
                )
            streams = range(first, first + min(CHUNK, max(32, n - found)))
            for text in self._batch(streams):
                if found < n and accept(text.ids):
                    found += 1
                    yield text
            first = streams.stop

    def stream(self) -> Iterator[str]:
        """One text, piece by piece as it is drawn; a character is never cut in two."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        yield decoder.decode(self.tokenizer.decode_bytes(self.prompt))
        for token_B, alive_B in self._steps(range(1)):
            if alive_B[0]:
                yield decoder.decode(self.tokenizer.decode_bytes(token_B.numpy()))
        yield decoder.decode(b"", final=True)

    def _batch(self, streams: range) -> Iterator["Drawn"]:
        tokens, alive, constraint = [], [], None
        if self.automaton is not None:
            constraint = ConstrainedDecoder(self.automaton, self.prompt, len(streams))
        for token_B, alive_B in self._steps(streams, constraint):
            tokens.append(token_B)
            alive.append(alive_B)
        drawn_BT = torch.stack(tokens, dim=1).numpy()
        lengths_B = torch.stack(alive, dim=1).sum(1).tolist()
        weights_B = [0.0] * len(streams) if constraint is None else constraint.log_weight_B.tolist()
        for row, length, weight in zip(drawn_BT, lengths_B, weights_B, strict=True):
            yield Drawn(ids=np.concatenate([self.prompt, row[:length]]), log_weight=weight)

    def _steps(
        self, streams: range, constraint: ConstrainedDecoder | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return generate(
            self.model,
            np.concatenate([self.lead, self.prompt]),
            streams=streams,
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            seed=self.seed,
            eos_token=self.tokenizer.boundary_id,
            suppressed_token=self.tokenizer.unk_id,
            constraint=constraint,
        )
