"""Trainers, and what autograd saves, for tests of memory and gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conftest import STORY
from moreish.config import resolve
from moreish.models import Model
from moreish.settings import Tree
from moreish.training.objectives import Objective, next_token_loss
from moreish.training.setup import TrainingSetup, build_sampler, set_up
from moreish.training.state import StepPlan, TrainState
from moreish.training.trainer import Trainer


def set_up_story(folder: Path, model: Tree, **train: Any) -> TrainingSetup:
    """Set up a training run on the story, repeated a hundred times."""
    source = folder / "story.txt"
    source.write_text(STORY * 100, encoding="utf-8")
    train = {"steps": 5, "lr": 0.1, **train}
    return set_up(resolve({"data": {"source": str(source)}, "model": model, "train": train}))


def make_trainer(setup: TrainingSetup, objective: Objective = next_token_loss) -> Trainer:
    model = setup.build_model()
    return Trainer(
        model,
        build_sampler(setup.config, setup.splits["train"], model),
        setup.config.train,
        objective=objective,
        state=TrainState(plan=StepPlan(steps=5, eval_every=5)),
        device=setup.device,
    )


@contextmanager
def record_saved_bytes(model: Model) -> Iterator[Callable[[], int]]:
    """Record the tensors that autograd saves, except for those of the model.

    Yields:
        A function that returns their bytes.
    """
    saved: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        yield lambda: sum(saved.values())
