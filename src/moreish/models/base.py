"""The one interface that carries the ladder.

B batch, R rows of it, T time (positions), V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moreish.data import Batch, TokenDataset
from moreish.settings import Settings

State = Any
"""What a model carries from one call to the next: nothing, the last tokens, a hidden vector or a
key/value cache. Only the model that made it looks inside; to others it is a tree of tuples and
lists whose tensors all have the batch as their first dimension."""


def select_rows(state: State, which: Bool[Tensor, " B"] | Int[Tensor, " R"] | slice) -> State:
    """The state of some rows of the batch, by mask, by number or by place."""
    if isinstance(state, Tensor):
        return state[which]
    if isinstance(state, tuple | list):
        parts = [select_rows(part, which) for part in state]
        named = isinstance(state, tuple) and type(state) is not tuple
        return type(state)(*parts) if named else type(state)(parts)
    return state


def concat_states(states: Sequence[State]) -> State:
    """Concatenate states whose tensors have equal shapes along the batch; see `split_states`."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, tuple | list):
        return type(first)(concat_states(parts) for parts in zip(*states, strict=True))
    return first


def split_states(state: State, number: int) -> list[State]:
    """The state of each of so many rows by itself."""
    return [select_rows(state, slice(row, row + 1)) for row in range(number)]


class ModelConfig(Settings):
    """A model's own settings; `name` is its key in the registry."""

    name: str

    def for_data(self, longest_item: int | None, vocab_size: int) -> "ModelConfig":
        """These settings, with what the user left open fitted to the data.

        Args:
            longest_item: in tokens; None for running text.
            vocab_size: V.
        """
        return self


class Model(nn.Module, ABC):
    """Gives each position the logits of the token that follows it.

    A model reads tokens from left to right and never looks ahead. It returns logits; losses are
    not its business. `forward(b, forward(a)[1])` continues where `forward(a)` ended, with the
    logits that `forward(a + b)` has there; what a model does when that is more than it can hold is
    said where it is defined. A state stays what it is: several texts may go on from it.
    """

    Config: ClassVar[type[ModelConfig]]
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """`train.*` settings that suit this model where the user names none."""
    fixed_window: ClassVar[bool] = False
    """Whether a prediction depends on just the last `context` tokens, with boundaries (or the token
    0) before the first. Equal windows then need to be trained on once, with their counts."""
    supports_activation_checkpointing: ClassVar[bool] = False
    """Whether it heeds `activation_checkpointing`."""
    activation_checkpointing: bool = False
    """Whether its layers are reckoned again on the way back, instead of kept."""
    takes_features: ClassVar[bool] = False
    """Whether the constructor takes `num_features=N`, and `forward` a third argument (B, T, N):
    auxiliary features of each position, such as a hybrid's statistics of its counts."""

    def __init__(
        self,
        vocab_size: int,
        *,
        context: int,
        max_length: int | None,
        learning_rate: float = 1e-3,
    ) -> None:
        """
        Args:
            vocab_size: V.
            context: how many tokens, the current one included, a prediction can depend on.
            max_length: the most positions that one call may pass; None: any number.
            learning_rate: one that suits this model at its size, where the user names none.
        """
        super().__init__()
        self.vocab_size = vocab_size
        self.context = context
        self.max_length = max_length
        self.learning_rate = learning_rate

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """The `training_defaults` of a model with these settings."""
        return cls.training_defaults

    @abstractmethod
    def forward(
        self, tokens_BT: Int[Tensor, "B T"], state: State = None
    ) -> tuple[Float[Tensor, "B T V"], State]:
        """Logits after each token, and the state after the last; `state` None is a fresh start."""

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        """One more token of each of several texts, whatever was read of each before: the logits and
        states that `forward` gives for it alone, but the work is done for all together.

        This suits a model whose state has the same shapes after every token.
        """
        logits_R1V, state = self(token_R[:, None], concat_states(states))
        return logits_R1V[:, 0], split_states(state, len(states))

    def fit_counts(self, tokens: TokenDataset) -> None:
        """Count what is to be counted of the training tokens, before the first step."""

    def training_logits(self, batch: Batch) -> Float[Tensor, "B T V"]:
        """The logits that gradients are taken of. A model that has counted the training text must
        make them as if it had not counted the targets of `batch`."""
        logits_BTV, _ = self(batch.tokens_BT)
        return logits_BTV

    def num_parameters(self) -> int:
        """How many numbers training may change, and how many were counted."""
        counted = sum(p.num_counts() for p in self.modules() if isinstance(p, CountBasedModel))
        return counted + sum(parameter.numel() for parameter in self.parameters())


class CountBasedModel(Model, ABC):
    """A model that is fitted by counting, in one pass, and not by gradients."""

    @abstractmethod
    def fit_counts(self, tokens: TokenDataset) -> None:
        """Replace whatever was counted before by the counts of `tokens`."""

    @abstractmethod
    def num_counts(self) -> int:
        """How many numbers the counting left."""
