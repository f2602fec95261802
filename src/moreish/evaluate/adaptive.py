"""Adaptive evaluation: the model also learns from the text that it has already predicted.

Parameters take a gradient step after every segment (dynamic evaluation; Mikolov et al. 2010; Krause
et al. 2018, "Dynamic Evaluation of Neural Sequence Models"), and n-grams are counted again.

T positions of a segment, V vocabulary.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import AdamW

from moreish.data import TokenDataset
from moreish.evaluate.loss import token_losses
from moreish.models import (
    CountBasedModel,
    Hybrid,
    Model,
    NetworkWithCounts,
    Reader,
    State,
    Votes,
    map_state,
)
from moreish.tokenizers import Ids

SEGMENT = 32
"""Tokens between two gradient steps."""

LEARNING_RATE = 3e-4
"""Learning rate of these steps, which have no momentum."""

FARTHEST = 1 << 20
"""Distance in tokens up to which the memory finds what was read."""

COUNTED = 8_192
"""Tokens after which n-grams are counted again."""

MAX_COUNTED = 1 << 23
"""Training tokens above which counting again takes too long."""


class AdaptiveModel:
    """A copy of a model that reads a text in segments and learns from each after predicting it.

    Attributes:
        model: the copy.
        state: the model's state after the segments so far.
        segment: number of tokens after which to call `learn`.
    """

    def __init__(self, model: Model, training: TokenDataset | None) -> None:
        """
        Args:
            model: the trained model.
            training: the training split, which is counted again together with the text; None if
                it is not available.
        """
        self.model = deepcopy(model).eval()
        self.state: State = None
        self.segment = max(1, min(SEGMENT, self.model.call_length))
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = (
            AdamW(parameters, lr=LEARNING_RATE, betas=(0.0, 0.999), weight_decay=0.0)
            if parameters
            else None
        )
        self._counts = _counts_of(self.model)
        remembers = isinstance(self.model, Hybrid) and self.model.memory is not None
        self._reader = Reader(FARTHEST) if remembers else None
        is_small = training is not None and training.num_predictions <= MAX_COUNTED
        self._training = training if is_small else None
        self._read: list[Ids] = []
        self._uncounted = 0

    def learn(self, ids_S: Int[Tensor, " S"], votes: tuple[Votes, ...]) -> Float[Tensor, " T"]:
        """Return the loss of each token of a segment but the first, which ended the segment before,
        as it was predicted; then learn from them.

        Args:
            votes: what `recall` returned for all but the last.
        """
        ids_1S = ids_S[None].to(self.model.device)
        with torch.enable_grad():
            logits_1TV, state = self.model(ids_1S[:, :-1], self.state, *votes)
            losses_T = token_losses(logits_1TV, ids_1S[:, 1:])[0]
            if self._optimizer is not None:
                self._optimizer.zero_grad()
                losses_T.mean().backward()
                self._optimizer.step()
        self.state = map_state(Tensor.detach, state)
        self._read.append(ids_S[1:].numpy() if self._read else ids_S.numpy())
        self._uncounted += len(ids_S) - 1
        if self._counts is not None and self._training is not None and self._uncounted >= COUNTED:
            ids_N = np.concatenate([self._training.ids_N[:], *self._read])
            self._counts.fit_counts(replace(self._training, ids_N=ids_N))
            self._uncounted = 0
        return losses_T.detach().cpu()

    def recall(self, ids_T: Int[Tensor, " T"]) -> tuple[Votes, ...]:
        """Read more tokens into the memory, and return its votes for what follows each, if the
        model has one."""
        return () if self._reader is None else (self._reader.read(ids_T.tolist()),)


def _counts_of(model: Model) -> CountBasedModel | None:
    """Return the part of a model that counts, if there is one."""
    part = model.counts if isinstance(model, NetworkWithCounts) else model
    return part if isinstance(part, CountBasedModel) else None


def adaptive_losses(
    model: Model,
    tokens: TokenDataset,
    training: TokenDataset | None = None,
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Return (predictions,) the loss of each token of a running text but the first, in nats, where
    a copy of the model learns from each token after predicting it.

    Args:
        model: the trained model, which is not changed.
        tokens: the text.
        training: as in `AdaptiveModel`.
        progress: called with the finished share.
    """
    adaptive = AdaptiveModel(model, training)
    losses = []
    for first in range(0, tokens.num_predictions, adaptive.segment):
        part = tokens.ids_N[first : first + adaptive.segment + 1]
        ids_S = torch.from_numpy(part.astype(np.int64))
        losses.append(adaptive.learn(ids_S, adaptive.recall(ids_S[:-1])).numpy())
        if progress is not None:
            progress(min(1.0, (first + adaptive.segment) / tokens.num_predictions))
    return np.concatenate(losses)
