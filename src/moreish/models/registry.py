"""The models by name."""

from collections.abc import Mapping
from typing import Any

from moreish.errors import MoreishError, nearest
from moreish.models.base import Model, ModelConfig

REGISTRY: dict[str, type[Model]] = {}
"""All models by the `name` in their settings; `moreish.models` fills it."""


def model_class(name: str) -> type[Model]:
    """Return the class registered as `name`. Raises MoreishError, naming the nearest."""
    if name not in REGISTRY:
        raise MoreishError(f"unknown model '{name}': {nearest(name, REGISTRY)}")
    return REGISTRY[name]


def model_config(settings: Mapping[str, Any]) -> ModelConfig:
    """Return the checked settings of the model that `settings["name"]` names."""
    name = settings.get("name")
    if not isinstance(name, str):
        value = "" if isinstance(name, Mapping) else f"={name}"
        raise MoreishError(f"setting model.name{value}: it must be the name of a model")
    return model_class(name).Config.parse(settings, "model")


def build_model(config: ModelConfig, vocab_size: int, **more: Any) -> Model:
    """Return a newly initialized model."""
    construct: Any = model_class(config.name)  # every registered model takes these arguments
    return construct(config, vocab_size, **more)
