"""The interface of models that can be exported: a function of tokens and state tensors.

The state of a `Model` may be any object. Here it is a flat tuple of tensors that all start as
zeros, so that a program needs to know only their shapes.

B batch, T time (new positions), S all positions (earlier and new), V vocabulary, N auxiliary
features.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

BATCH, PAST = "batch", "past"
"""Dimensions that are known only when the exported function runs: the number of sequences, and the
number of earlier positions, which is 0 at the start."""

Tensors = tuple[Tensor, ...]


class StateSpec(NamedTuple):
    """The shape and type of one state tensor. It starts as zeros, with `PAST` = 0."""

    shape: tuple[int | str, ...]
    dtype: torch.dtype = torch.float32

    def zeros(self, batch: int, past: int = 0) -> Tensor:
        sizes = {BATCH: batch, PAST: past}
        shape = [size if isinstance(size, int) else sizes[size] for size in self.shape]
        return torch.zeros(shape, dtype=self.dtype)

    @property
    def dynamic_dims(self) -> dict[int, str]:
        """The dimensions that are known only when the exported function runs, by index."""
        return {i: size for i, size in enumerate(self.shape) if isinstance(size, str)}


class ExportableModel(nn.Module, ABC):
    """One decoding step of a model as a function of tensors."""

    @property
    @abstractmethod
    def state_specs(self) -> dict[str, StateSpec]:
        """The state tensors by name, in order."""

    @abstractmethod
    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """Reads tokens.

        Returns:
            (B, T, V) the logits after each token, and the state after the last one.
        """

    def forward(self, tokens_BT: Tensor, *state: Tensor) -> Tensors:
        logits_BTV, state = self.step(tokens_BT, state)
        return logits_BTV, *state


class TokenHistory:
    """State that holds the last tokens, as id + 1, so that 0 marks a position before the start."""

    def __init__(self, length: int, name: str = "last_tokens") -> None:
        self.length, self.name = length, name

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        return {self.name: StateSpec((BATCH, self.length), torch.int64)} if self.length else {}

    def append(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        """Returns (B, S) the kept and the new tokens as id + 1, and the new state."""
        shifted_BS = torch.cat([*state, tokens_BT + 1], dim=1)
        return shifted_BS, (shifted_BS[:, shifted_BS.shape[1] - self.length :],) if state else ()
