"""Whole texts out of the engine: lists of items, pieces of running text, and streams."""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from moreish.errors import MoreishError
from moreish.generate.engine import generate
from moreish.generate.sampling import Sampling
from moreish.models.base import Model
from moreish.tokenizers.base import BOUNDARY, Ids, Tokenizer

CHUNK = 256
"""Streams that run through the model together."""

TRIES = 200
"""Streams drawn for each text that is asked for, before giving up on finding one that is wanted."""


@dataclass(frozen=True, kw_only=True)
class Writer:
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

    @property
    def _stop(self) -> int | None:
        return BOUNDARY if self.tokenizer.has_boundary else None

    def texts(self, n: int, wanted: Callable[[Ids], bool]) -> Iterator[str]:
        """`n` texts of which `wanted` says yes, in the order of their streams.

        Raises:
            MoreishError: after many tries there are still too few.
        """
        found, first = 0, 0
        while found < n:
            if first >= TRIES * n:
                raise MoreishError(
                    f"only {found} of {n} texts found in {first:,} tries: ask for fewer, "
                    "raise the temperature, or shorten the prompt"
                )
            streams = range(first, first + min(CHUNK, max(32, n - found)))
            for ids in self._batch(streams):
                if found < n and wanted(ids):
                    found += 1
                    yield self.tokenizer.decode(ids)
            first = streams.stop

    def stream(self) -> Iterator[str]:
        """One text, piece by piece as it is drawn; a character is never cut in two."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        yield decoder.decode(self.tokenizer.to_bytes(self.prompt))
        for token_B, alive_B in self._steps(range(1)):
            if alive_B[0]:
                yield decoder.decode(self.tokenizer.to_bytes(token_B.numpy()))
        yield decoder.decode(b"", final=True)

    def _batch(self, streams: range) -> Iterator[Ids]:
        tokens, alive = [], []
        for token_B, alive_B in self._steps(streams):
            tokens.append(token_B)
            alive.append(alive_B)
        drawn_BT = torch.stack(tokens, dim=1).numpy()
        lengths_B = torch.stack(alive, dim=1).sum(1).tolist()
        for row, length in zip(drawn_BT, lengths_B, strict=True):
            yield np.concatenate([self.prompt, row[:length]])

    def _steps(self, streams: range) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return generate(
            self.model,
            np.concatenate([self.lead, self.prompt]),
            streams=streams,
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            seed=self.seed,
            stop=self._stop,
        )
