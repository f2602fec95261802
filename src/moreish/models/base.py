"""The interface of all models.

B batch, R rows of it, T positions, K context, S positions seen, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from moreish.data import Batch, TokenDataset
from moreish.settings import Settings
from moreish.tokenizers import BOUNDARY_ID, ExampleTokenizer, Tokenizer

Tokens = Int[Tensor, "B T"]
Logits = Float[Tensor, "B T V"]

LONG_CALL = 512
"""Tokens of a long text that a model without a maximum length reads in one call."""

State = Any
"""What a model carries from one call to the next: nothing, the last tokens, a hidden vector or a
key/value cache. To all but the model itself it is a tree of tuples and lists whose tensors have the
batch as their first dimension."""


def select_rows(state: State, which: Bool[Tensor, " B"] | Int[Tensor, " R"] | slice) -> State:
    """Select rows of a state by mask, indices or slice."""
    return map_state(lambda tensor: tensor[which], state)


def map_state(change: Callable[[Tensor], Tensor], state: State) -> State:
    """Return a state with each of its tensors changed."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, tuple | list):
        parts = [map_state(change, part) for part in state]
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


def split_states(state: State, rows: int) -> list[State]:
    """Split the state of a batch into the states of its rows."""
    return [select_rows(state, slice(row, row + 1)) for row in range(rows)]


class ModelConfig(Settings):
    """The settings of a model; `name` is its key in the registry."""

    name: str

    def with_defaults(self, **values: Any) -> "ModelConfig":
        """Return a copy with these values where a setting is not set."""
        unset = {k: v for k, v in values.items() if k not in self.model_fields_set}
        return self.model_copy(update=unset)

    def for_data(self, longest_item: int | None, vocab_size: int) -> "ModelConfig":
        """Return these settings with defaults that fit the data.

        Args:
            longest_item: length in tokens; None for running text.
            vocab_size: number of distinct tokens.
        """
        return self

    def for_examples(self, longest: int) -> "ModelConfig":
        """Return these settings with defaults that fit examples, before `for_data`.

        Args:
            longest: length in tokens of the longest input and target together.
        """
        return self

    def for_tokenizer(self, tokenizer: Tokenizer) -> "ModelConfig":
        """Return these settings with defaults that depend on what the tokens are, such as which of
        them are labels."""
        outputs = tokenizer.num_outputs if isinstance(tokenizer, ExampleTokenizer) else None
        if outputs is None or "outputs" not in type(self).model_fields:
            return self
        return self.with_defaults(outputs=outputs)


class Model(nn.Module, ABC):
    """A causal language model: the logits of the next token at each position.

    `forward(b, forward(a)[1])` continues where `forward(a)` ended, with the logits that
    `forward(a + b)` has there, as far as the model's context reaches. A state is never changed:
    several texts may continue from it. Losses are computed elsewhere (`moreish.evaluate`).
    """

    Config: ClassVar[type[ModelConfig]]
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of `train.*` settings for this model."""
    fixed_window: ClassVar[bool] = False
    """Whether a prediction depends on exactly the last `context` tokens, padded with boundaries (or
    token 0), so that equal windows can be trained on once, weighted by their counts."""
    needs_examples: ClassVar[bool] = False
    """Whether the model predicts the targets of examples, and no text."""
    needs_labels: ClassVar[bool] = False
    """Whether these targets must be labels."""
    state_grows: ClassVar[bool] = False
    """Whether the shapes of the state depend on how many tokens have been read."""
    supports_activation_checkpointing: ClassVar[bool] = False
    """Whether the model implements `activation_checkpointing`."""
    activation_checkpointing: bool = False
    """Whether layers are recomputed in the backward pass instead of keeping their activations."""
    takes_features: ClassVar[bool] = False
    """Whether the constructor takes `num_features=N`, and `forward` a third argument (B, T, N):
    auxiliary features of each position, such as a hybrid's statistics of its counts."""

    def __init__(
        self, vocab_size: int, *, context: int, max_length: int | None, learning_rate: float = 1e-3
    ) -> None:
        """
        Args:
            vocab_size: number of distinct tokens.
            context: number of tokens, the current one included, that a prediction can depend on.
            max_length: maximum positions of one call; None: no limit.
            learning_rate: default learning rate of this model at its size.
        """
        super().__init__()
        self.vocab_size = vocab_size
        self.context = context
        self.max_length = max_length
        self.learning_rate = learning_rate

    @property
    def call_length(self) -> int:
        """Number of tokens to read in one call of a long text."""
        return LONG_CALL if self.max_length is None else max(1, self.max_length // 2)

    @property
    def slides(self) -> bool:
        """Whether carrying the state through a long text gives predictions more context than
        windows do."""
        return self.max_length is not None

    @property
    def device(self) -> torch.device:
        """The device of the parameters; the CPU if there are none."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @classmethod
    def defaults_for(cls, config: ModelConfig) -> Mapping[str, Any]:
        """Return the `training_defaults` of a model with these settings."""
        return cls.training_defaults

    @abstractmethod
    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        """Return the logits after each token and the state after the last; None is the start."""

    def skip_to_end(self, tokens_BS: Int[Tensor, "B S"]) -> tuple[Int[Tensor, "B T"], State]:
        """Return the last tokens of a text, which are all that has to be read to continue it, and
        the state before them."""
        last = self.max_length or self.context
        return tokens_BS[:, -last:], self.remember(tokens_BS[:, :-last])

    def remember(self, tokens_BS: Int[Tensor, "B S"]) -> State:
        """Return a state in which only what is beyond `max_length` or `context` is known of these
        tokens; None for models that do not reach further."""
        return None

    def windows(self, tokens_BT: Tokens, state: State) -> tuple[Int[Tensor, "B T K"], State]:
        """Return the last `context` tokens at each position, and the last ones as the state. The
        start is padded with boundaries (running text, which has none: token 0)."""
        if state is None:
            state = tokens_BT.new_full((len(tokens_BT), self.context - 1), BOUNDARY_ID)
        seen_BS = torch.cat([state, tokens_BT], dim=1)
        return seen_BS.unfold(1, self.context, 1), seen_BS[:, tokens_BT.shape[1] :]

    def decode_step(
        self, token_R: Int[Tensor, " R"], states: Sequence[State]
    ) -> tuple[Float[Tensor, "R V"], list[State]]:
        """Read one more token of each of several texts; return each text's logits and state as
        `forward` computes them for it alone. States of equal shapes are read in one batch."""
        if self.state_grows:
            steps = [
                self(token_1[None], state)
                for token_1, state in zip(token_R.split(1), states, strict=True)
            ]
            return torch.cat([logits_11V[:, 0] for logits_11V, _ in steps]), [s for _, s in steps]
        logits_R1V, state = self(token_R[:, None], concat_states(states))
        return logits_R1V[:, 0], split_states(state, len(states))

    def fit_counts(self, tokens: TokenDataset) -> None:
        """Count n-grams of the training tokens, before the first step, if the model uses counts."""

    def training_logits(self, batch: Batch) -> Logits:
        """Return the logits for a training step. A model that has counted the training text must
        leave the targets of `batch` out of its counts."""
        return self(batch.tokens_BT)[0]

    def num_parameters(self) -> int:
        """Return the number of trainable parameters and stored counts."""
        counted = sum(p.num_counts() for p in self.modules() if isinstance(p, CountBasedModel))
        return counted + sum(parameter.numel() for parameter in self.parameters())


class CountBasedModel(Model, ABC):
    """A model of n-grams that is fitted by counting in one pass, without gradients."""

    renamed_buffers: ClassVar[Mapping[str, str]] = {}
    """Names of buffers in version 0.1.0, and their present names."""

    def __init__(self, vocab_size: int, order: int) -> None:
        super().__init__(vocab_size, context=max(1, order - 1), max_length=None)
        self.order = order
        self.register_load_state_dict_pre_hook(_prepare_buffers)

    @abstractmethod
    def fit_counts(self, tokens: TokenDataset) -> None:
        """Count `tokens`, replacing earlier counts."""

    @abstractmethod
    def num_counts(self) -> int:
        """Return the number of stored counts."""


def zero_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer of zeros. An output layer of zeros predicts all tokens equally."""
    layer = nn.Linear(inputs, outputs, bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _prepare_buffers(
    module: CountBasedModel, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Rename the buffers of version 0.1.0, and resize the buffers to those that are loaded."""
    for old, new in module.renamed_buffers.items():
        if prefix + old in state:
            state[prefix + new] = state.pop(prefix + old)
    for name, _buffer in list(module.named_buffers(recurse=False)):
        if (saved := state.get(prefix + name)) is not None:
            setattr(module, name, torch.empty_like(saved))
