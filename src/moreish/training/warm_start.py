"""A training that starts from the weights of another run: pre-train, then fine-tune."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moreish.errors import MoreishError
from moreish.models import CountBasedModel, KneserNey, Model
from moreish.runs import Run
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer

ADJUSTABLE_MODEL_SETTINGS = ("name", "context", "dropout", "ngram_embedding_dropout")
"""Settings of the model that may be others than those of the weights."""

FINE_TUNING_LR_SCALE = 0.1
"""Times the learning rate that suits a model which knows nothing yet."""


def warm_start_settings(run: Run, asked: Mapping[str, Any]) -> Tree:
    """The settings that a training takes over from the run it starts from.

    Args:
        asked: what the user set.

    Raises:
        MoreishError: that does not go with the weights of `run`.
    """
    own = run.config.model.model_dump(mode="json", exclude_none=True)
    for key, value in asked.get("model", {}).items():
        if value != own.get(key) and (key == "name" or key not in ADJUSTABLE_MODEL_SETTINGS):
            raise MoreishError(
                f"model.{key}={value} is not that of {run.path}, whose weights it starts from"
            )
    if asked.get("data", {}).get("tokenizer") is not None:
        raise MoreishError(f"leave --tokenizer out: it is that of {run.path}")
    return {"model": own, "data": {"tokenizer": str(run.path / "tokenizer.json")}}


def check_warm_start(
    run: Run, model: Model, tokenizer: Tokenizer, *, prepared: bool = False
) -> None:
    """Raises MoreishError when the weights of `run` cannot be those that `model` starts from.

    Args:
        prepared: whether the text was tokenized before.
    """
    if any(isinstance(part, CountBasedModel | KneserNey) for part in model.modules()):
        raise MoreishError(f"{run.config.model.name} counts, and counting starts anew")
    if tokenizer.fingerprint() != run.record.tokenizer and prepared:
        raise MoreishError(
            f"the text was prepared with another tokenizer than that of {run.path}: prepare it "
            f"with --tokenizer {run.path / 'tokenizer.json'}"
        )
    if tokenizer.fingerprint() != run.record.tokenizer:
        raise MoreishError(
            f"{run.path} has no token for where an item or a document ends, and this is a list or "
            "several documents"
        )
    theirs, ours = run.new_model().state_dict(), model.state_dict()
    for name, tensor in ours.items():
        if len(theirs[name]) < len(tensor):
            raise MoreishError(
                f"a context of {len(tensor)} is longer than the {len(theirs[name])} of {run.path}, "
                "which cannot be lengthened"
            )


@torch.no_grad()
def load_warm_start(run: Run, model: Model) -> None:
    """Put the weights of `run` into `model`; of more positions than it has, the first.

    Raises:
        MoreishError: `run` has no weights, or they are damaged.
    """
    theirs = run.model.state_dict()
    for name, tensor in model.state_dict().items():
        tensor.copy_(theirs[name][: len(tensor)])


def warm_start_source(run: Run) -> Run | None:
    """The run that this one started from, if it did."""
    return None if run.config.init_from is None else Run.open(Path(run.config.init_from))
