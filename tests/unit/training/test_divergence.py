"""Non-finite losses, gradients and weights: skipped steps, rollbacks and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import Proved
from moreish import api
from moreish.data.token_dataset import Batch
from moreish.errors import MoreishError
from moreish.models import Model, build_model, model_config
from moreish.runs.run import Run
from moreish.training.divergence import MAX_ROLLBACKS, MAX_SKIPPED_STEPS, locate_non_finite
from moreish.training.events import Evaluated, Event, Rollback, Skipped, Step
from moreish.training.objectives import next_token_loss
from moreish.workflows import fit
from support.interrupts import Killed, kill_at

Injection = Callable[[Model, Batch, Tensor], Tensor]
NAN = float("nan")

TINY = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "dropout": 0.1}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(f"anna{n}" for n in range(200)))
    return path


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[Injection], None]:
    """Return a function that replaces the objective by an injection."""

    def install(injection: Injection) -> None:
        def spoiled(model: Model, batch: Batch) -> Tensor:
            return injection(model, batch, next_token_loss(model, batch))

        monkeypatch.setattr(fit, "training_objective", lambda *settings: spoiled)

    return install


def train(source: Path, name: str = "run", **train: Any) -> tuple[Run, list[Event]]:
    events: list[Event] = []
    given = {"steps": 30, "batch_size": 16, "eval_every": 10, "checkpoint_every": 5, **train}
    settings = {"model": TINY, "train": given}
    out = source.parent / name
    return api.train(source, out=out, settings=settings, report=events.append), events


def of_kind(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def infinite_loss(model: Model, batch: Batch, loss: Tensor) -> Tensor:
    return loss * NAN


def infinite_gradient(model: Model, batch: Batch, loss: Tensor) -> Tensor:
    """Only the gradient is non-finite."""
    loss.register_hook(lambda gradient: gradient * NAN)
    return loss


def on_some_batches(injection: Injection) -> Injection:
    """Apply the injection to some batches, always the same ones."""

    def some(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        unlucky = int(batch.tokens_BT.sum()) % 9 == 0
        return injection(model, batch, loss) if unlucky else loss

    return some


@pytest.mark.parametrize("injection", [infinite_loss, infinite_gradient])
def test_a_non_finite_step_is_skipped(
    source: Path, inject: Callable[[Injection], None], injection: Injection, proved: Proved
) -> None:
    inject(on_some_batches(injection))
    run, events = train(source)
    skipped = of_kind(events, Skipped)
    assert 1 <= len(skipped) < 15
    assert len(of_kind(events, Step)) == 30 - len(skipped)
    assert run.record.status == "finished"
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())
    log = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in log if "skipped" in e] == [event.step for event in skipped]
    proved(
        4, f"{injection.__name__.replace('_', ' ')} in some steps", {"skipped steps": len(skipped)}
    )


def test_a_training_with_skipped_steps_resumes_exactly(
    source: Path, inject: Callable[[Injection], None]
) -> None:
    inject(on_some_batches(infinite_loss))
    whole, events = train(source)
    settings = {"model": TINY, "train": whole.record.config["train"]}
    skipped = {event.step for event in of_kind(events, Skipped)}
    kill = kill_at(next(step for step in range(17, 30) if step not in skipped))
    with pytest.raises(Killed):
        api.train(source, out=source.parent / "cut", settings=settings, report=kill)
    resumed = api.resume(source.parent / "cut", report=lambda event: None)
    expected = whole.model.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in resumed.model.state_dict().items())


def test_a_rollback_keeps_the_best_weights(
    source: Path, inject: Callable[[Injection], None]
) -> None:
    """The checkpoint is older than the best evaluation, and later ones are worse."""
    calls = [0]

    def lost_then_worse(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        calls[0] += model.training
        if 17 <= calls[0] < 20:
            return loss * NAN
        return -loss if calls[0] >= 20 else loss

    inject(lost_then_worse)
    options = {"eval_every": 2, "checkpoint_every": 13, "optimizer": "sgd", "lr": 0.5}
    run, events = train(source, steps=40, patience=0, **options)
    assert len(of_kind(events, Rollback)) == 1
    best = min(event.score.loss for event in of_kind(events, Evaluated))
    assert run.scores["val"].loss == best == pytest.approx(run.evaluate()["val"].loss, abs=1e-6)


def test_non_finite_weights_are_restored_from_the_checkpoint(
    source: Path, inject: Callable[[Injection], None], proved: Proved
) -> None:
    """The loss is NaN from a lost weight on, until the rollback."""
    calls = [0]

    def lose(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 14:
            with torch.no_grad():
                next(model.parameters())[0] = NAN
        return loss

    inject(lose)
    run, events = train(source)
    (back,) = of_kind(events, Rollback)
    assert back.step == 10
    assert (
        1 <= len(of_kind(events, Skipped)) <= MAX_SKIPPED_STEPS
    )  # then a checkpoint is due, and it looks
    rates = [event.lr for event in of_kind(events, Step)]
    assert max(rates[14:]) < max(rates) / 2.9
    assert back.lr == pytest.approx(run.config.train.lr / 3)
    assert run.record.status == "finished"
    log = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "rollback" in entry] == [10]
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())
    proved(4, "a weight that becomes NaN", {"rollbacks": 1})


def test_no_checkpoint_is_saved_after_skipped_steps(
    source: Path, inject: Callable[[Injection], None]
) -> None:
    calls = [0]

    def for_a_while(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        calls[0] += 1
        return loss * NAN if 12 < calls[0] <= 15 else loss

    inject(for_a_while)
    run, events = train(source, checkpoint_every=1)
    assert [event.step for event in of_kind(events, Rollback)] == [12 - 1]
    assert run.record.status == "finished"


def test_a_rollback_after_an_inexact_resumption(
    source: Path, inject: Callable[[Injection], None]
) -> None:
    given = {"steps": 30, "batch_size": 16, "eval_every": 10, "checkpoint_every": 10}
    out = source.parent / "run"
    with pytest.raises(Killed):
        api.train(source, out=out, settings={"model": TINY, "train": given}, report=kill_at(12))
    (checkpoint,) = (out / "checkpoints").iterdir()
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["here"]["threads"] = "64"
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    calls = [0]

    def at_first(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        calls[0] += 1
        return loss * NAN if 1 < calls[0] <= 4 else loss  # the first is that of the estimate

    inject(at_first)
    events: list[Event] = []
    run = api.resume(out, inexact=True, report=events.append)
    assert [event.step for event in of_kind(events, Rollback)] == [10]
    assert run.record.status == "finished"


def test_a_rollback_without_a_checkpoint_restarts(
    source: Path, inject: Callable[[Injection], None]
) -> None:
    calls = [0]

    def lose(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] == 4:
            with torch.no_grad():
                next(model.parameters())[0] = NAN
        return loss

    inject(lose)
    run, events = train(source, checkpoint_every=20)
    assert [event.step for event in of_kind(events, Rollback)] == [0]
    assert run.record.status == "finished"


@pytest.mark.parametrize("injection", [infinite_loss, infinite_gradient])
def test_repeated_rollbacks_end_in_an_error(
    source: Path, inject: Callable[[Injection], None], injection: Injection, proved: Proved
) -> None:
    """After step 12 nothing is finite any more."""
    calls = [0]

    def for_ever(model: Model, batch: Batch, loss: Tensor) -> Tensor:
        calls[0] += 1
        return injection(model, batch, loss) if calls[0] > 12 else loss

    inject(for_ever)
    with pytest.raises(MoreishError, match=r"diverged at step 13: loss ") as error:
        train(source)
    assert "Its batch begins with 'anna" in str(error.value)
    assert f"rolled back to a checkpoint {MAX_ROLLBACKS} times" in str(error.value)
    assert "lower --set train.lr" in str(error.value)
    run = Run.open(source.parent / "run")
    assert run.record.status == "diverged"
    assert all(bool(p.isfinite().all()) for p in run.model.parameters())
    name = injection.__name__.replace("_", " ")
    proved(4, f"{name} in every step", {"rollbacks": MAX_ROLLBACKS, "stopped": 1})


def test_the_first_non_finite_layer_is_named() -> None:
    model = build_model(model_config({**TINY, "layers": 2, "dropout": 0.0, "context": 8}), 20)
    tokens_BT = torch.randint(1, 20, (2, 8))
    batch = Batch(tokens_BT=tokens_BT, targets_BT=tokens_BT)
    assert locate_non_finite(model, next_token_loss, batch) == ""

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        return output * NAN

    layers = dict(model.named_modules())
    leaf = next(name for name in layers if name.startswith("blocks.1.feedforward."))
    hook = layers[leaf].register_forward_hook(spoil)
    assert locate_non_finite(model, next_token_loss, batch).startswith(
        ", first in the output of blocks.1."
    )
    hook.remove()

    def spoil_back(module: Any, inputs: Any, output: Any) -> None:
        output.register_hook(lambda gradient: gradient * NAN)

    hook = layers["blocks.0.norm_feedforward"].register_forward_hook(spoil_back)
    assert "in the gradient of the output of" in locate_non_finite(model, next_token_loss, batch)
    hook.remove()
    with torch.no_grad():
        model.get_parameter("head.weight")[3] = NAN
    assert locate_non_finite(model, next_token_loss, batch) == ", first in the weight head.weight"
