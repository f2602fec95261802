"""The interface of models that can be exported: a function of tokens and state tensors.

The state of a `Model` may be any object. Here it is a flat tuple of tensors that all start as
zeros, so that a program needs to know only their shapes.

B batch, T new positions, S all positions (earlier and new), V vocabulary, N auxiliary features.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

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
    """One decoding step of a model as a function of tensors.

    Attributes:
        state_specs: the state tensors by name, in order. The first one may hold the last tokens, as
            id + 1, so that 0 marks a position before the start.
    """

    takes_features = False
    """Whether `step` takes auxiliary features as a third argument, (B, T, N)."""

    def __init__(self, model: Any, num_tokens: int = 0, name: str = "last_tokens") -> None:
        """`num_tokens`: the number of last tokens in the state, under this name."""
        super().__init__()
        self.model, self.num_tokens = model, num_tokens
        self.state_specs: dict[str, StateSpec] = {}
        if num_tokens:
            self.state_specs[name] = StateSpec((BATCH, num_tokens), torch.int64)

    @abstractmethod
    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        """Read tokens.

        Returns:
            (B, T, V) the logits after each token, and the state after the last one.
        """

    def forward(self, tokens_BT: Tensor, *state: Tensor) -> Tensors:
        logits_BTV, state = self.step(tokens_BT, state)
        return logits_BTV, *state

    def append(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        """Return (B, S) the last tokens of the state and the new tokens, -1 before the start, and
        the state with the tokens that are now last."""
        shifted_BS = torch.cat([*state, tokens_BT + 1], dim=1)
        last_tokens = (shifted_BS[:, shifted_BS.shape[1] - self.num_tokens :],) if state else ()
        return shifted_BS - 1, last_tokens
