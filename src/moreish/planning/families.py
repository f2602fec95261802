"""What a plan chooses for each kind of network: sizes, settings and optimizer.

All were measured: docs/dev-log.md has the runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from moreish.settings import Tree
from moreish.utils.text import plural


@dataclass(frozen=True, eq=False)
class Size:
    """The size of a network."""

    model: Tree
    """The settings of the model that determine it."""
    description: str
    weights: int
    """Number of weights of hidden layers, which determine the training time."""
    activations: int
    """Numbers per prediction that are kept for the backward pass, in units of a few dozen."""

    @property
    def flops(self) -> float:
        """FLOPs per prediction: those of the weights, plus a part that all sizes share."""
        return 6.0 * (self.weights + 10_000)


@dataclass(frozen=True)
class Family:
    """What is planned for a network of one kind."""

    title: str
    """Its name in a sentence, with the article."""
    sizes: tuple[Size, ...]
    """From small to large."""
    model: Tree
    """Settings of the model that all sizes share."""
    train: Tree
    predictions_per_weight: float
    """Predictions that a network should be trained on per weight of its hidden layers: with fewer,
    a smaller one reaches a lower loss."""
    has_dropout: bool = False
    """Whether the model has a setting for dropout."""


PLANNED_NETWORK: Tree = {
    "name": "gpt",
    "positions": "rotary",
    "qk_norm": True,
    "feedforward": "relu2",
    "softcap": 15.0,
    "bias": False,
}
PLANNED_TRAIN: Tree = {
    "optimizer": "muon",
    "weight_decay": 0.1,
    "batch_tokens": 1024,
    "length_warmup": 0.4,
}
WITH_MUON: Tree = {"optimizer": "muon", "weight_decay": 0.1, "batch_tokens": 1024}


def _gpt(layers: int, width: int, heads: int) -> Size:
    return Size(
        model={"layers": layers, "width": width, "heads": heads},
        description=f"{plural(layers, 'layer')}, width {width}",
        weights=12 * layers * width**2,
        activations=layers * width,
    )


def _recurrent(title: str, name: str, gates: int) -> Family:
    sizes = tuple(
        Size(
            model={"width": width},
            description=f"width {width}",
            weights=2 * gates * width**2,
            activations=width,
        )
        for width in (64, 128, 192, 256, 384, 512, 768, 1024)
    )
    return Family(title, sizes, {"name": name}, WITH_MUON, 2, has_dropout=True)


def _mlp(hidden: int) -> Size:
    return Size(
        model={"hidden": hidden},
        description=f"{hidden} hidden units",
        weights=8 * 32 * hidden,
        activations=hidden // 16,
    )


def _wavenet(layers: int, width: int) -> Size:
    return Size(
        model={"layers": layers, "width": width},
        description=f"{plural(layers, 'layer')}, width {width}",
        weights=5 * layers * width**2,
        activations=layers * width,
    )


def _encoder_decoder(layers: int, width: int, heads: int) -> Size:
    return Size(
        model={"layers": layers, "encoder_layers": layers, "width": width, "heads": heads},
        description=f"{layers} + {plural(layers, 'layer')}, width {width}",
        weights=28 * layers * width**2,
        activations=2 * layers * width,
    )


TASK_GPT = Family(
    "a GPT",
    (
        _gpt(2, 64, 2), _gpt(2, 96, 3), _gpt(3, 128, 4), _gpt(4, 192, 6), _gpt(6, 256, 8),
        _gpt(6, 384, 6), _gpt(8, 512, 8),
    ),
    PLANNED_NETWORK,
    WITH_MUON,
    40,
)  # fmt: skip
"""For the problems of a task. One layer cannot find the digits that belong together, and there is
no text to memorize."""

ENCODER_DECODER = Family(
    "an encoder-decoder",
    (
        _encoder_decoder(1, 64, 2), _encoder_decoder(2, 64, 2), _encoder_decoder(2, 96, 3),
        _encoder_decoder(2, 128, 4), _encoder_decoder(3, 192, 6), _encoder_decoder(4, 256, 8),
        _encoder_decoder(6, 384, 6),
    ),
    {**PLANNED_NETWORK, "name": "encoder-decoder"},
    WITH_MUON,
    8,
    has_dropout=True,
)  # fmt: skip
"""For examples whose targets are text or sequences of symbols."""

FAMILIES: Mapping[str, Family] = {
    "gpt": Family(
        "a GPT",
        (
            _gpt(1, 32, 1), _gpt(1, 64, 2), _gpt(2, 64, 2), _gpt(2, 96, 3), _gpt(3, 128, 4),
            _gpt(4, 192, 6), _gpt(6, 256, 8), _gpt(6, 384, 6), _gpt(8, 512, 8), _gpt(12, 768, 12),
        ),
        PLANNED_NETWORK,
        PLANNED_TRAIN,
        # With n-gram counts, which do most of the work; Hoffmann et al. 2022 found 20 for networks
        # alone.
        8,
        has_dropout=True,
    ),
    "rnn": _recurrent("an RNN", "rnn", 1),
    "gru": _recurrent("a GRU", "gru", 3),
    "lstm": _recurrent("an LSTM", "lstm", 4),
    "mlp": Family(
        "an MLP",
        tuple(map(_mlp, (256, 512, 1024, 2048, 4096))),
        {"name": "mlp"},
        {**WITH_MUON, "lr": 0.02},
        5,
    ),
    "wavenet": Family(
        "a WaveNet",
        (_wavenet(4, 64), _wavenet(5, 96), _wavenet(5, 128), _wavenet(6, 192), _wavenet(6, 256)),
        {"name": "wavenet"},
        WITH_MUON,
        4,
    ),
}  # fmt: skip
"""The networks that can be planned for any data, by name."""
