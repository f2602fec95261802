"""Starting training from the weights of another run: pre-training, then fine-tuning."""

from collections.abc import Mapping
from typing import Any

import torch

from moreish.errors import MoreishError
from moreish.models import CountBasedModel, KneserNey, Model
from moreish.runs import Run
from moreish.settings import Tree
from moreish.tokenizers import Tokenizer

ADJUSTABLE_MODEL_SETTINGS = ("name", "context", "dropout", "ngram_embedding_dropout")
"""Settings of the model that may differ from those of the run that it starts from."""

FINE_TUNING_LR_SCALE = 0.1
"""Factor on the default learning rate, which suits a model with random weights."""


def warm_start_settings(run: Run, requested: Mapping[str, Any]) -> Tree:
    """Return the settings that a run takes over from the run that it starts from.

    Args:
        run: the run whose weights it starts from.
        requested: the settings of the user.

    Raises:
        MoreishError: the settings of the user do not fit the weights.
    """
    own = run.config.model.model_dump(mode="json", exclude_none=True)
    for key, value in requested.get("model", {}).items():
        if value != own.get(key) and (key == "name" or key not in ADJUSTABLE_MODEL_SETTINGS):
            raise MoreishError(
                f"model.{key}={value} is not that of {run.path}, whose weights it starts from"
            )
    if requested.get("data", {}).get("tokenizer") is not None:
        raise MoreishError(f"leave --tokenizer out: it is that of {run.path}")
    return {"model": own, "data": {"tokenizer": str(run.path / "tokenizer.json")}}


def check_warm_start(run: Run, model: Model, tokenizer: Tokenizer, *, prepared: bool) -> None:
    """Check that training can start from the weights of `run`.

    Args:
        run: the run that it starts from.
        model: the model of the new run.
        tokenizer: the tokenizer of the new run.
        prepared: whether the text was tokenized by `moreish prepare`.

    Raises:
        MoreishError: it cannot, and why.
    """
    if any(isinstance(part, CountBasedModel | KneserNey) for part in model.modules()):
        raise MoreishError(
            f"{run.config.model.name} counts n-grams, and counting cannot start from another run"
        )
    if tokenizer.fingerprint() != run.record.tokenizer:
        raise MoreishError(
            f"the text was prepared with another tokenizer than that of {run.path}: prepare it "
            f"with --tokenizer {run.path / 'tokenizer.json'}"
            if prepared
            else f"{run.path} has no token for where an item or a document ends, and this is a "
            "list or several documents"
        )
    theirs, ours = run.new_model().state_dict(), model.state_dict()
    for name, tensor in ours.items():
        if len(theirs[name]) < len(tensor):
            raise MoreishError(
                f"a context of {len(tensor)} is longer than the {len(theirs[name])} of {run.path}, "
                "which cannot be extended"
            )


@torch.no_grad()
def load_warm_start(run: Run, model: Model) -> None:
    """Copy the best weights of `run` into `model`, whose context may be shorter.

    Raises:
        MoreishError: `run` has no weights, or they are damaged.
    """
    theirs = run.model.state_dict()
    for name, tensor in model.state_dict().items():
        tensor.copy_(theirs[name][: len(tensor)])
