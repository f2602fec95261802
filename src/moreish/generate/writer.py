"""Whole texts out of the engine: lists of items, pieces of running text, and streams."""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from moreish.errors import MoreishError
from moreish.generate.constrained import Automaton, Guide, resample
from moreish.generate.decode import generate
from moreish.generate.sampling import Sampling
from moreish.models import Model
from moreish.tokenizers import Ids, Tokenizer

CHUNK = 256
"""Streams that run through the model together."""

TRIES = 200
"""Streams drawn for each text that is asked for, before giving up on finding one that is wanted."""


POOL = 4
"""Texts drawn for each that is chosen, where they are constrained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A text, and how much of the probability its constraints left it, as a logarithm."""

    ids: Ids
    log_weight: float


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
    automaton: Automaton | None = None
    """What the texts must match."""

    def texts(self, n: int, wanted: Callable[[Ids], bool]) -> Iterator[str]:
        """`n` texts of which `wanted` says yes, in the order of their streams.

        Raises:
            MoreishError: after many tries there are still too few.
        """
        if self.automaton is None:
            drawn: Iterator[Drawn] = self._wanted(n, n, wanted)
        else:
            pool = list(self._wanted(POOL * n, n, wanted))
            chosen = resample([text.log_weight for text in pool], n, self.seed)
            drawn = (pool[place] for place in chosen)
        for text in drawn:
            yield self.tokenizer.decode(text.ids)

    def _wanted(self, n: int, least: int, wanted: Callable[[Ids], bool]) -> Iterator["Drawn"]:
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
                if found < n and wanted(text.ids):
                    found += 1
                    yield text
            first = streams.stop

    def stream(self) -> Iterator[str]:
        """One text, piece by piece as it is drawn; a character is never cut in two."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        yield decoder.decode(self.tokenizer.to_bytes(self.prompt))
        for token_B, alive_B in self._steps(range(1)):
            if alive_B[0]:
                yield decoder.decode(self.tokenizer.to_bytes(token_B.numpy()))
        yield decoder.decode(b"", final=True)

    def _batch(self, streams: range) -> Iterator["Drawn"]:
        tokens, alive, guide = [], [], None
        if self.automaton is not None:
            guide = Guide(self.automaton, self.prompt, len(streams))
        for token_B, alive_B in self._steps(streams, guide):
            tokens.append(token_B)
            alive.append(alive_B)
        drawn_BT = torch.stack(tokens, dim=1).numpy()
        lengths_B = torch.stack(alive, dim=1).sum(1).tolist()
        weights_B = [0.0] * len(streams) if guide is None else guide.log_weight_B.tolist()
        for row, length, weight in zip(drawn_BT, lengths_B, weights_B, strict=True):
            yield Drawn(ids=np.concatenate([self.prompt, row[:length]]), log_weight=weight)

    def _steps(
        self, streams: range, guide: Guide | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return generate(
            self.model,
            np.concatenate([self.lead, self.prompt]),
            streams=streams,
            max_tokens=self.max_tokens,
            sampling=self.sampling,
            seed=self.seed,
            stop=self.tokenizer.boundary,
            never=self.tokenizer.unk,
            guide=guide,
        )
