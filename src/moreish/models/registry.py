"""The models by name. A new model is one file and one line in `REGISTRY`."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from moreish.errors import MoreishError, nearest
from moreish.models.base import Model, ModelConfig

REGISTRY = {
    "ngram": "moreish.models.ngram.add_k:NGram",
    "kneser-ney": "moreish.models.ngram.kneser_ney:KneserNey",
    "bigram": "moreish.models.bigram:Bigram",
    "mlp": "moreish.models.mlp:MLP",
    "bow": "moreish.models.bow:BagOfWords",
    "rnn": "moreish.models.rnn:RNN",
    "lstm": "moreish.models.rnn:LSTM",
    "gru": "moreish.models.rnn:GRU",
    "wavenet": "moreish.models.wavenet:WaveNet",
    "lecture-gpt": "moreish.models.lecture_gpt:LectureGPT",
    "gpt": "moreish.models.gpt.model:GPT",
    "mixture": "moreish.models.interpolated:Mixture",
    "hybrid": "moreish.models.hybrid:Hybrid",
}


def model_class(name: str) -> type[Model]:
    """The class registered as `name`. Raises MoreishError, naming the nearest."""
    if name not in REGISTRY:
        raise MoreishError(f"unknown model '{name}': {nearest(name, REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    found: type[Model] = getattr(import_module(module), attribute)
    return found


def model_config(settings: Mapping[str, Any]) -> ModelConfig:
    """The checked settings of the model that `settings["name"]` names."""
    name = settings.get("name")
    if not isinstance(name, str):
        given = "" if isinstance(name, Mapping) else f"={name}"
        raise MoreishError(f"setting model.name{given}: it must be the name of a model")
    return model_class(name).Config.parse(settings, "model")


def build_model(config: ModelConfig, vocab_size: int, **more: Any) -> Model:
    """A freshly initialised model."""
    construct: Any = model_class(config.name)  # registered models take these two, by contract
    model: Model = construct(config, vocab_size, **more)
    return model
