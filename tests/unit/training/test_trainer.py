"""Training runs: budgets, best weights, early stopping, resuming and errors."""

import math
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import STORY, Clock
from moreish import api
from moreish.config import TrainConfig
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.evaluate import Score, score
from moreish.models import REGISTRY as MODELS
from moreish.models import model_config
from moreish.runs.run import Run
from moreish.training.budget import MAX_EVALUATIONS, plan_minutes, plan_steps
from moreish.training.events import (
    Audited,
    Evaluated,
    Event,
    Hooks,
    Note,
    Sampled,
    Started,
    Step,
    ignore,
)
from moreish.training.schedule import lr_at
from moreish.training.setup import build_meta_model
from moreish.training.state import StepPlan
from moreish.training.trainer import Trainer
from support.interrupts import Killed, interrupt_at, kill_at
from support.trainers import make_trainer, set_up_story

TINY = {"model": {"layers": 1, "heads": 2, "width": 16}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(catalog.load_dataset("names").split("\n")[:300]), encoding="utf-8")
    return path


def train(source: Path, name: str = "run", report: Any = ignore, **options: Any) -> Run:
    options = {"settings": TINY, **options}
    return api.train(source, out=source.parent / name, report=report, **options)


def have_same_weights(first: Run, second: Run) -> bool:
    a, b = first.model.state_dict(), second.model.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def logged_steps(run: Run) -> int:
    return max(entry["step"] for entry in run.read_metrics())


def logs_of(run: Run) -> tuple[list[dict[str, Any]], str]:
    """Everything that a training run logged, except for its times."""
    lines = [{k: v for k, v in line.items() if k != "seconds"} for line in run.read_metrics()]
    return lines, (run.path / "samples.txt").read_text()


def test_the_same_seed_gives_the_same_bits(source: Path) -> None:
    first, second = train(source, "a", steps=30), train(source, "b", steps=30)
    assert have_same_weights(first, second)
    assert not have_same_weights(first, train(source, "c", steps=30, seed=1))


def test_the_log_has_every_kind_of_line(source: Path) -> None:
    events: list[Event] = []
    run = train(source, steps=50, report=events.append)
    lines = list(run.read_metrics())
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 51))
    evaluated = [line for line in lines if "val" in line]
    assert evaluated[-1]["step"] == 50
    assert min(line["val"]["loss"] for line in evaluated) == pytest.approx(run.scores["val"].loss)
    assert any("samples" in line for line in lines)
    assert "--- after" in (run.path / "samples.txt").read_text()
    kinds = [type(event) for event in events if not isinstance(event, Note)]
    assert kinds[:2] == [Audited, Started]
    assert {Step, Evaluated, Sampled} <= set(kinds)
    assert all(event.mfu is None for event in events if isinstance(event, Step))  # on CPUs


def test_epochs_count_the_data(source: Path) -> None:
    run = train(source, epochs=2, settings={**TINY, "train": {"batch_size": 24}})
    steps = logged_steps(run)
    assert steps == round(2 * 240 / 24)


@pytest.mark.parametrize(
    "costs",
    [
        {"step": 0.03},
        {"step": 0.03, "counting": 1.0},
        {"step": 0.03, "checkpoint": 0.5, "evaluation": 0.02},
        {"step": 0.01, "evaluation": 0.3, "checkpoint": 0.2},
    ],
)
def test_minutes_end_on_time(source: Path, clock: Clock, costs: dict[str, float]) -> None:
    """The minutes are wall-clock time, from counting to the last step."""
    vars(clock).update(costs)
    ended = []

    def watch(event: Event) -> None:
        if isinstance(event, Step):
            ended.append(clock.now)

    settings = {**TINY, "train": {"patience": 0, "checkpoint_every": 50}}
    run = train(source, minutes=0.1, settings=settings, report=watch)
    assert run.record.status == "finished"
    assert run.record.seconds == pytest.approx(6, rel=0.1)
    assert ended[-1] == pytest.approx(6, rel=0.1)


def test_a_plan_from_a_slow_trial_is_revised(
    source: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial measures one second per step; real steps take milliseconds."""
    monkeypatch.setattr("moreish.training.budget.median_seconds", lambda *a, **k: 1.0)
    run = train(source, minutes=0.05, settings={**TINY, "train": {"patience": 0}})
    assert run.record.seconds == pytest.approx(3, rel=0.1)
    assert logged_steps(run) > 200


def test_the_best_weights_are_kept_and_training_stops_early(source: Path) -> None:
    """A model overfits a few names: the lowest validation loss determines the weights."""
    settings = {
        "model": {"layers": 1, "heads": 2, "width": 64},
        "train": {"lr": 0.01, "eval_every": 20, "patience": 4, "decay": "constant"},
    }
    run = train(source, steps=5000, settings=settings)
    assert run.record.status == "stopped early"
    lines = list(run.read_metrics())
    losses = [line["val"]["loss"] for line in lines if "val" in line]
    assert len(losses) < 100
    assert run.evaluate()["val"].loss == pytest.approx(min(losses), abs=1e-6)
    assert losses[-1] > min(losses)


def test_a_loss_that_is_not_finite_stops_the_run(source: Path) -> None:
    with pytest.raises(MoreishError, match=r"diverged at step \d+.*lower --set train.lr"):
        train(
            source,
            model="bigram",
            steps=50,
            settings={"train": {"lr": 1e300, "decay": "constant", "warmup": 0}},
        )


def test_a_finished_or_missing_run_cannot_be_resumed(source: Path, small_run: Run) -> None:
    with pytest.raises(MoreishError, match="cannot be resumed"):
        api.resume(small_run.path, report=ignore)
    with pytest.raises(MoreishError, match="no run at"):
        api.resume(source.parent / "nothing", report=ignore)


def test_a_damaged_checkpoint_is_skipped(source: Path) -> None:
    settings = {**TINY, "train": {"checkpoint_every": 5, "eval_every": 6}}

    run = train(source, steps=40, settings=settings, report=interrupt_at(13))
    newest, older = sorted((run.path / "checkpoints").iterdir(), reverse=True)
    assert (newest.name, older.name) == ("step-000013", "step-000010")
    (newest / "weights.safetensors").write_bytes(b"torn")
    events: list[Event] = []
    resumed = api.resume(run.path, report=events.append)
    assert [e.from_step for e in events if isinstance(e, Started)] == [10]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == [f"{newest} is damaged: an older checkpoint is used"]
    whole = train(source, "whole", steps=40, settings=settings)
    assert have_same_weights(resumed, whole)
    assert logs_of(resumed) == logs_of(whole)
    for place in (run.path / "checkpoints").iterdir():
        (place / "state.json").write_text("{}")
    run.update(status="interrupted")
    with pytest.raises(MoreishError, match="no undamaged checkpoint"):
        api.resume(run.path, report=ignore)


def test_running_text_trains_too(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY * 8, encoding="utf-8")
    for model in ("gpt", "mlp", "bigram", "ngram"):
        budget = {} if model == "ngram" else {"steps": 20}
        run = api.train(path, model=model, out=tmp_path / model, report=ignore, **budget)
        assert run.scores["val"].loss < math.log(run.tokenizer.vocab_size)


def test_a_folder_of_files_has_boundaries(tmp_path: Path) -> None:
    folder = tmp_path / "tales"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(STORY * (i + 1), encoding="utf-8")
    run = api.train(folder, model="ngram", out=tmp_path / "run", report=ignore)
    assert run.tokenizer.boundary_id == 0
    assert run.record.data.documents == 3
    assert len(run.sample(2, max_tokens=50)) == 2


# --- plans and schedules ---


def test_a_plan_in_steps_needs_no_clock() -> None:
    assert plan_steps(1000, 1000, 1000) == StepPlan(steps=1000, eval_every=40)
    costly = plan_steps(1000, 1000, 1_000_000)
    assert costly.eval_every == 1000
    # With half the cost per token of a training step, evaluations take less than a tenth.
    for steps in (1, 20, 100, 300, 1_000, 10_000, 1_000_000):
        plan = plan_steps(steps, 1000, 100_000)
        during_training = (steps - 1) // plan.eval_every
        assert during_training * 100_000 / 2 <= 0.1 * steps * 1000
    assert plan.steps / plan.eval_every == MAX_EVALUATIONS


def test_a_plan_in_minutes_leaves_room_for_evaluations() -> None:
    plan = plan_minutes(1, step_seconds=0.01, eval_seconds=1.0)
    evaluations = plan.steps / plan.eval_every
    assert evaluations <= 6
    assert plan.steps * 0.01 + evaluations * 1.0 == pytest.approx(60, rel=0.05)
    assert plan_minutes(0.001, 10, 10).steps == 2


def test_a_revised_plan_continues_from_its_progress() -> None:
    plan = StepPlan(steps=100, eval_every=10)
    longer = plan.replan(40, 200)
    assert longer.progress(40) == plan.progress(40) == 0.4
    assert longer.progress(120) == pytest.approx(0.7)
    assert longer.progress(200) == 1
    assert longer.eval_every == 27
    assert plan.replan(40, 101).eval_every == 10


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_the_rate_rises_then_falls(decay: str) -> None:
    config = TrainConfig(lr=2, warmup=0.1, final_lr=0.1, decay=decay)
    rates = [lr_at(config, i / 1000) for i in range(1001)]
    assert 0 < rates[0] < 0.03
    assert rates[100] == 2
    assert rates[1000] == pytest.approx(0.2)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[550] == pytest.approx(1.1)
    assert lr_at(TrainConfig(lr=2, warmup=0, decay="constant"), 0.99) == 2


# --- what goes wrong ---


def wild(source: Path, steps: int, lr: float, **options: Any) -> Run:
    settings = {"train": {"lr": lr, "decay": "constant", "warmup": 0, **options}}
    return train(source, model="bigram", steps=steps, settings=settings)


def test_non_finite_weights_after_the_last_step_are_detected(source: Path) -> None:
    """The loss and gradient of the step itself were finite."""
    settings = {**TINY, "train": {"lr": 1e300, "decay": "constant", "warmup": 0}}
    with pytest.raises(MoreishError, match=r"diverged at step 1: the validation loss is nan"):
        train(source, steps=1, settings=settings)


def test_non_finite_weights_are_never_saved_in_a_checkpoint(source: Path) -> None:
    settings = {
        **TINY,
        "train": {"lr": 1e300, "decay": "constant", "warmup": 0, "checkpoint_every": 1},
    }
    with pytest.raises(MoreishError, match="a weight is not finite"):
        train(source, steps=50, settings=settings)


def test_divergence_before_the_first_evaluation_leaves_no_run(source: Path) -> None:
    with pytest.raises(MoreishError, match="No weights were saved yet"):
        wild(source, 50, 1e300)
    assert [path.name for path in source.parent.iterdir()] == ["names.txt"]


def test_divergence_later_keeps_the_best_weights(source: Path) -> None:
    """The rate rises until the weights overflow; the first evaluation was long before."""
    options = {"eval_every": 1, "optimizer": "sgd", "clip": 0, "squared_weights": 10.0}
    with pytest.raises(MoreishError, match="best weights so far are kept: moreish sample"):
        wild(source, 500, 1e6, **options)
    run = api.load(source.parent / "run")
    assert run.record.status == "diverged"
    assert len(run.sample(3)) == 3
    with pytest.raises(MoreishError, match="cannot be resumed"):
        api.resume(run.path, report=ignore)


def test_ctrl_c_before_the_first_step(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial that turns minutes into steps is interrupted."""
    step, interrupts = Trainer.train_step, iter([signal.SIGINT])

    def interrupted_step(self: Trainer) -> Step:
        for number in interrupts:
            os.kill(os.getpid(), number)
        return step(self)

    monkeypatch.setattr(Trainer, "train_step", interrupted_step)
    run = train(source, minutes=0.02)
    assert run.record.status == "interrupted"
    assert len(run.sample(2)) == 2
    assert api.resume(run.path, report=ignore).record.status in ("finished", "stopped early")


def test_a_run_without_a_checkpoint_starts_from_the_beginning(source: Path) -> None:
    """As after kill -9 in the first half minute."""
    whole = train(source, "whole", steps=12)

    with pytest.raises(Killed):
        train(source, "cut", steps=12, report=kill_at(7))
    shutil.rmtree(source.parent / "cut" / "checkpoints", ignore_errors=True)
    with pytest.raises(MoreishError, match="no weights yet"):
        api.load(source.parent / "cut").sample(1)
    notes: list[str] = []
    resumed = api.resume(
        source.parent / "cut",
        report=lambda e: notes.append(e.text) if isinstance(e, Note) else None,
    )
    assert "starting from the beginning" in notes[0]
    assert have_same_weights(whole, resumed)
    assert logs_of(whole) == logs_of(resumed)


@pytest.mark.parametrize("model", ["gpt", "ngram"])
def test_ctrl_c_during_the_final_scoring(
    source: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    budget = {} if model == "ngram" else {"steps": 12}
    settings = {} if model == "ngram" else TINY
    whole = train(source, "whole", model=model, settings=settings, **budget)
    score = Run.score

    def interrupted(self: Run, name: str, *rest: Any, **options: Any) -> Any:
        if name == "train":
            raise KeyboardInterrupt
        return score(self, name, *rest, **options)

    monkeypatch.setattr(Run, "score", interrupted)
    cut = train(source, "cut", model=model, settings=settings, **budget)
    assert cut.record.status == "interrupted"
    monkeypatch.undo()
    resumed = api.resume(cut.path, report=ignore)
    assert resumed.record.status == "finished"
    assert resumed.scores == whole.scores
    assert have_same_weights(whole, resumed)


def test_a_run_can_be_resumed_after_a_second_ctrl_c(source: Path) -> None:
    whole = train(source, "whole", steps=12)
    cut = train(source, "cut", steps=12, report=interrupt_at(7, times=2))
    assert cut.record.status == "interrupted"
    assert have_same_weights(api.resume(cut.path, report=ignore), whole)


def test_a_run_without_its_best_weights_cannot_be_resumed(source: Path) -> None:

    settings = {**TINY, "train": {"eval_every": 5}}
    run = train(source, "cut", steps=40, settings=settings, report=interrupt_at(13))
    (run.path / "model.safetensors").rename(source.parent / "aside")
    with pytest.raises(MoreishError, match="best weights so far, is missing"):
        api.resume(run.path, report=ignore)
    (source.parent / "aside").rename(run.path / "model.safetensors")
    resumed = api.resume(run.path, report=ignore)
    assert resumed.scores["val"] == resumed.evaluate()["val"]
    (run.path / "model.safetensors").unlink()
    with pytest.raises(MoreishError, match=r"model\.safetensors is missing"):
        api.load(run.path).sample(1)


def test_a_run_that_stopped_early_but_was_not_scored_takes_no_more_steps(source: Path) -> None:
    settings = {**TINY, "train": {"lr": 0.03, "eval_every": 5, "patience": 2, "decay": "constant"}}
    run = train(source, steps=2000, settings=settings)
    assert run.record.status == "stopped early"
    before = logs_of(run)
    run.update(status="training")
    assert api.resume(run.path, report=ignore).record.status == "stopped early"
    assert logs_of(run) == before


def test_a_failed_overwrite_restores_the_old_run(source: Path) -> None:
    old = train(source, steps=5)
    before = (old.path / "model.safetensors").read_bytes()
    settings = {**TINY, "train": {"lr": 1e300, "warmup": 0}}
    with pytest.raises(MoreishError, match="diverged"):
        train(source, steps=5, settings=settings, overwrite=True)
    assert (old.path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in source.parent.iterdir()) == ["names.txt", "run"]
    train(source, steps=6, overwrite=True)
    assert sorted(path.name for path in source.parent.iterdir()) == ["names.txt", "run"]


def test_ctrl_c_twice_at_the_start_of_an_overwrite_restores_the_old_run(source: Path) -> None:
    old = train(source, steps=5)
    before = (old.path / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(source, steps=50, report=interrupt_at(1, times=2), overwrite=True)
    assert (old.path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in source.parent.iterdir()) == ["names.txt", "run"]


def test_resuming_after_a_killed_overwrite_removes_the_backup(source: Path) -> None:
    train(source, steps=5)
    hidden = source.parent / ".run.replaced"
    shutil.copytree(source.parent / "run", hidden)  # as after kill -9
    with pytest.raises(Killed):
        train(source, steps=8, report=kill_at(1), overwrite=True)
    shutil.copytree(source.parent / "run", hidden, dirs_exist_ok=True)
    assert api.resume(source.parent / "run", report=ignore).record.status == "finished"
    assert not hidden.exists()


def test_a_folder_named_like_a_backup_is_not_touched(source: Path) -> None:
    precious = source.parent / ".run.replaced"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    train(source, steps=3)
    train(source, steps=3, overwrite=False, name="other")
    assert (precious / "thesis.txt").read_text() == "years"


def test_the_training_loss_is_part_of_every_small_result(source: Path) -> None:
    assert set(train(source, steps=1).scores) == {"train", "val"}


def test_a_large_training_split_is_not_scored_if_that_takes_longer_than_training(
    source: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moreish.workflows.fit.MAX_SCORED_TOKENS", 100)
    clock.evaluation = 1  # the training split is eight times as large
    notes: list[str] = []
    run = train(source, steps=1, report=lambda e: notes.append(getattr(e, "text", "")))
    assert set(run.scores) == {"val"}
    assert any("moreish eval" in note for note in notes)


def test_evaluations_that_take_longer_than_planned_become_fewer(
    source: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial measures a tenth of their real duration."""
    monkeypatch.setattr("moreish.training.budget.median_seconds", lambda *a, **k: 0.01)
    run = train(source, minutes=0.05, settings={**TINY, "train": {"patience": 0}})
    assert sum("val" in line for line in run.read_metrics()) >= 2
    assert run.record.evaluation_seconds <= 0.15 * run.record.seconds


def test_a_budget_has_no_effect_on_a_count_based_model(source: Path) -> None:
    events: list[Event] = []
    options = {"model": "ngram", "settings": {}, "report": events.append}
    train(source, "a", **options)
    assert not any(isinstance(event, Note) for event in events)
    train(source, "b", steps=5, **options)
    assert [event.text for event in events if isinstance(event, Note)] == [
        "steps, minutes, epochs have no effect: ngram counts and takes no steps"
    ]


def test_the_time_of_evaluations_excludes_the_last(source: Path) -> None:
    short = train(source, "short", steps=5)
    assert short.record.evaluation_seconds == 0
    assert short.record.scoring_seconds > 0
    longer = train(source, "longer", steps=300)
    evaluated = [line["step"] for line in longer.read_metrics() if "val" in line]
    assert len(evaluated) > 1
    assert 0 < longer.record.evaluation_seconds < longer.record.seconds


def test_a_model_that_is_too_large_for_the_machine_is_rejected(source: Path) -> None:
    with pytest.raises(MoreishError, match=r"needs [\d,]+ GB to train, .* make it smaller"):
        train(source, steps=1, settings={"model": {"width": 2**20}})
    assert [path.name for path in source.parent.iterdir()] == ["names.txt"]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_can_be_built_without_memory(name: str) -> None:
    model = build_meta_model(model_config({"name": name}), 65)
    assert all(tensor.is_meta for tensor in model.parameters())


def test_the_progress_bar_closes_when_training_fails(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    monkeypatch.setattr("moreish.ui.terminal.TrainingView.close", lambda self: closed.append(True))
    with pytest.raises(MoreishError):
        api.train(source, model="gtp", out=source.parent / "run")
    with pytest.raises(MoreishError):
        wild_settings = {"train": {"lr": 1e300, "warmup": 0}}
        api.train(source, model="bigram", steps=9, out=source.parent / "r", settings=wild_settings)
    assert closed


def test_a_run_with_a_damaged_log_can_be_resumed(source: Path) -> None:
    """Files that a full disk, a crash or a user may leave behind are ignored."""

    run = train(source, "cut", steps=40, report=interrupt_at(13))
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"a": 1}\n\xff\xfe\n[]\n{"step')
    checkpoint = run.path / "checkpoints" / "step-000013"
    shutil.copytree(checkpoint, run.path / "checkpoints" / "step-000013 copy")
    (run.path / "checkpoints" / "step-").mkdir()
    resumed = api.resume(run.path, report=ignore)
    assert logs_of(resumed) == logs_of(train(source, "whole", steps=40))
    (checkpoint.parent / "step-000099").mkdir()
    (checkpoint.parent / "step-000099" / "manifest.json").write_text('{"sha256": {}}')
    run.update(status="interrupted")
    assert api.resume(run.path, report=ignore).record.status == "finished"


def test_step_decay_lowers_the_rate_once() -> None:
    """The MLP lecture's recipe: 0.1 until step 100,000 of 200,000, then 0.01."""
    config = TrainConfig(lr=0.1, warmup=0.0, decay="step")
    rates = [lr_at(config, step / 200_000) for step in (0, 99_999, 100_000, 199_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01])
    late = TrainConfig(lr=1.0, warmup=0.1, decay="step", decay_at=0.75, decay_factor=0.5)
    assert [lr_at(late, share) for share in (0.05, 0.5, 0.75)] == pytest.approx([0.5, 1.0, 0.5])


def test_the_untrained_model_is_evaluated_on_request(tmp_path: Path) -> None:
    """`train.eval_at_start` adds an evaluation and samples at step 0, and changes no weight."""
    path = tmp_path / "names.txt"
    path.write_text("\n".join(f"anna{n}" for n in range(200)))
    runs = [
        api.train(
            path,
            model="mlp",
            out=tmp_path / str(asked),
            report=ignore,
            settings={"train": {"steps": 20, "eval_every": 10, "eval_at_start": asked}},
        )
        for asked in (False, True)
    ]
    first = [entry for entry in runs[1].read_metrics() if entry["step"] == 0]
    assert [sorted(set(entry) - {"step"}) for entry in first] == [["best", "val"], ["samples"]]
    vocabulary = runs[1].tokenizer.vocab_size
    assert first[0]["val"]["loss"] == pytest.approx(math.log(vocabulary), abs=0.3)
    assert not any(entry["step"] == 0 for entry in runs[0].read_metrics())
    weights = [run.model.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_slow_evaluation_at_the_start_leaves_the_schedule_as_it_is(tmp_path: Path) -> None:
    """Counted as time of the first steps, it would shorten the plan, and the learning rate would
    collapse."""
    setup = set_up_story(tmp_path, {"name": "bigram"}, steps=None, minutes=0.1, eval_at_start=True)
    trainer = make_trainer(setup)
    trainer.state.plan = StepPlan(steps=200, eval_every=200)
    events: list[Any] = []

    def evaluate() -> Score:
        time.sleep(0.5)
        tokens = setup.splits["val"]
        return score(np.ones(tokens.num_predictions, np.float32), tokens, setup.tokenizer)

    hooks = Hooks(
        evaluate=evaluate, save_best=lambda: None, save_checkpoint=lambda: None,
        restore=lambda: None, should_stop=lambda: len(events) > 30, report=events.append,
    )  # fmt: skip
    assert trainer.train(hooks) == "interrupted"
    state = trainer.state
    assert state.overhead_seconds > 0.5 > state.eval_seconds
    assert state.seconds > state.overhead_seconds
    assert state.plan.steps >= 200
