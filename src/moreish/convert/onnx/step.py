"""Models as plain functions of tokens and tensors, which other programs can run step by step.

A model's own state may be anything. Here it is a flat list of tensors that all begin as zeros, so
that whoever runs the function needs no more than their shapes.

B batch, T time (new positions), V vocabulary, N numbers beside each token.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

BATCH, PAST = "batch", "past"
"""Sizes that are known only when the function runs: the texts, and the positions of the past that
are given, at the beginning none."""

Tensors = tuple[Tensor, ...]


class Start(NamedTuple):
    """One tensor of the state. It begins as zeros, PAST being 0."""

    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32

    def zeros(self, batch: int, past: int = 0) -> Tensor:
        sizes = {BATCH: batch, PAST: past}
        shape = [size if isinstance(size, int) else sizes[size] for size in self.shape]
        return torch.zeros(shape, dtype=self.dtype)

    @property
    def unknown(self) -> dict[int, str]:
        """The sizes that are known only when the function runs, by their places."""
        return {place: size for place, size in enumerate(self.shape) if isinstance(size, str)}


class Stepwise(nn.Module, ABC):
    """A model as such a function."""

    @property
    @abstractmethod
    def starts(self) -> dict[str, Start]:
        """The tensors of the state, in their order."""

    @abstractmethod
    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """Logits (B, T, V) after each token, and the state after the last."""

    def forward(self, tokens_BT: Tensor, *state: Tensor) -> Tensors:
        logits_BTV, state = self.step(tokens_BT, state)
        return logits_BTV, *state


def marked(tokens_BT: Tensor) -> Tensor:
    """Tokens as a state keeps them: one more, so that zero is where nothing was."""
    return tokens_BT + 1
