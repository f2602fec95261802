"""Language models behind one interface, `moreish.models.base.Model`."""

from moreish.models.base import CountedModel, Model, ModelConfig, State, select
from moreish.models.bigram import Bigram
from moreish.models.bow import BagOfWords
from moreish.models.gpt import (
    GPT,
    ROTARY_BASE,
    Attention,
    Block,
    FeedForward,
    GPTConfig,
    GramEmbedding,
    Rotation,
    rotate,
    rotation,
)
from moreish.models.hybrid import MOST, Hybrid, HybridConfig
from moreish.models.interpolated import Mixture, NetworkWithCounts, WithCounts
from moreish.models.mlp import MLP
from moreish.models.ngram import TABLES, KneserNey, NGram, count, longest_order
from moreish.models.registry import REGISTRY, build_model, model_class, model_config
from moreish.models.rnn import GRU, LSTM, RNN, Recurrent
from moreish.models.wavenet import WaveNet

__all__ = [
    "GPT",
    "GRU",
    "LSTM",
    "MLP",
    "MOST",
    "REGISTRY",
    "RNN",
    "ROTARY_BASE",
    "TABLES",
    "Attention",
    "BagOfWords",
    "Bigram",
    "Block",
    "CountedModel",
    "FeedForward",
    "GPTConfig",
    "GramEmbedding",
    "Hybrid",
    "HybridConfig",
    "KneserNey",
    "Mixture",
    "Model",
    "ModelConfig",
    "NGram",
    "NetworkWithCounts",
    "Recurrent",
    "Rotation",
    "State",
    "WaveNet",
    "WithCounts",
    "build_model",
    "count",
    "longest_order",
    "model_class",
    "model_config",
    "rotate",
    "rotation",
    "select",
]
