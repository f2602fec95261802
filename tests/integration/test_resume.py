"""A training run that is interrupted at any step and resumed ends with the same bits."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import STORY, Clock, Moreish, Proved, repetitions
from moreish import api
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.settings import Tree
from moreish.training.events import Event, Step, ignore
from moreish.training.optim import REGISTRY as OPTIMIZERS
from support.families import FAMILIES, GPT
from support.interrupts import Killed, interrupt_at, kill_at

STEPS, CUT = 16, 11


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(catalog.load_dataset("names").split("\n")[:200]), encoding="utf-8")
    return path


def train(source: Path, name: str, model: Tree, report: Any = ignore, **train: Any) -> Run:
    given: Tree = {"batch_size": 24, "accumulate": 3, "eval_every": 7, "checkpoint_every": 4}
    budget = {} if "minutes" in train else {"steps": STEPS}
    settings: Tree = {"model": model, "train": {**given, **budget, **train}}
    if model.get("memory"):  # lists have none
        settings["data"] = {"kind": "text"}
    return api.train(source, out=source.parent / name, settings=settings, report=report)


def cut(source: Path, name: str, model: Tree, report: Any, **options: Any) -> Path:
    with suppress(Killed):
        train(source, name, model, report, **options)
    return source.parent / name


def everything(path: Path) -> dict[str, Any]:
    """Everything that a training run leaves, except for its times."""
    found: dict[str, Any] = {}
    for file in sorted(path.rglob("[!.]*")):
        name = str(file.relative_to(path))
        if file.suffix in (".safetensors", ".npy", ".txt"):
            found[name] = file.read_bytes()
        elif file.name == "metrics.jsonl":
            found[name] = [timeless(json.loads(line)) for line in file.read_text().splitlines()]
        elif file.name == "state.json":
            found[name] = timeless(json.loads(file.read_text()))
    found["splits"] = json.loads((path / "run.json").read_text())["splits"]
    return found


def timeless(entry: Tree) -> Tree:
    return {key: value for key, value in entry.items() if key not in TIMES}


TIMES = ("seconds", "overhead_seconds", "eval_seconds", "last_eval_seconds", "planned_at")


QUICK = ("bigram", "mlp", "lstm", "mixture", "hybrid")
"""Families whose trainings are cut in the quick tests too, with the default optimizer; the GPT is
with every one."""

PAIRS = [
    pytest.param(
        family,
        optimizer,
        marks=[]
        if family == "gpt" or (family in QUICK and optimizer == "adamw")
        else pytest.mark.soak,
    )
    for family in FAMILIES
    for optimizer in sorted(OPTIMIZERS)
]


@pytest.mark.parametrize(("family", "optimizer"), PAIRS)
def test_every_model_with_every_optimizer(
    source: Path, family: str, optimizer: str, proved: Proved
) -> None:
    """Killed, it resumes from step 8 of 16; interrupted, from step 11."""
    model, options = FAMILIES[family], {"optimizer": optimizer, "momentum": 0.9, "lr": 0.01}
    expected = everything(train(source, "whole", model, **options).path)
    assert "checkpoints/step-000016/optimizer.safetensors" in expected
    for name, how in (("killed", kill_at(CUT)), ("interrupted", interrupt_at(CUT))):
        path = cut(source, name, model, how, **options)
        assert not (path / "checkpoints" / "step-000016").exists()
        assert api.resume(path, report=ignore).record.status == "finished"
        result = everything(path)
        if name == "interrupted":  # it saved one more checkpoint, at step 11
            expected = {key: value for key, value in expected.items() if "step-000012" not in key}
            result = {key: result.get(key) for key in expected}
        assert result == expected
    proved(
        1,
        "every model with every optimizer, interrupted or killed",
        {"pairs": 1, "interruptions": 2},
    )


@pytest.mark.repeated
@settings(
    max_examples=repetitions(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.integers(1, STEPS), max_size=4, unique=True).map(sorted), st.data())
def test_interruptions_at_any_steps(
    tmp_path_factory: Any, proved: Proved, cuts: list[int], data: st.DataObject
) -> None:
    """Running text is interrupted any number of times, with checkpoints and evaluations at any
    distance."""
    folder = tmp_path_factory.mktemp("cuts")
    source = folder / "story.txt"
    source.write_text(STORY * 8, encoding="utf-8")
    options = {
        "length_warmup": data.draw(st.sampled_from([0.0, 0.5])),
        "checkpoint_every": data.draw(st.integers(1, 7)),
        "eval_every": data.draw(st.integers(1, 7)),
        "accumulate": data.draw(st.integers(1, 4)),
        "batch_size": data.draw(st.integers(1, 9)),
    }
    whole = train(source, "whole", GPT, **options)
    path = folder / "cut"
    for number, step in enumerate(cuts):
        if number == 0:
            cut(source, "cut", GPT, kill_at(step), **options)
        elif Run.open(path).record.status != "finished":
            with suppress(Killed):
                api.resume(path, report=kill_at(step))
    if not cuts:
        return
    if Run.open(path).record.status != "finished":
        api.resume(path, report=ignore)
    assert everything(path) == everything(whole.path)
    proved(1, "one run, interrupted several times", {"runs": 1, "interruptions": len(cuts)})


def test_minutes_exclude_pauses(source: Path, clock: Clock) -> None:
    """With a deterministic clock, the bits are the same as well."""
    clock.checkpoint = 0.0  # what a checkpoint takes is not yet in it
    clock.step, clock.evaluation = 1 / 64, 1 / 8  # so that sums are exact
    options = {"minutes": 0.05, "checkpoint_every": 10, "patience": 0}
    whole = train(source, "whole", GPT, **options)
    path = cut(source, "cut", GPT, kill_at(45), **options)
    for step in (82, 119):
        clock.now += 1024
        with pytest.raises(Killed):
            api.resume(path, report=kill_at(step))
    clock.now += 1024
    resumed = api.resume(path, report=ignore)
    assert resumed.record.seconds == pytest.approx(3, rel=0.1)
    assert everything(path) == everything(whole.path)


def test_an_inexact_resumption_is_rejected(source: Path, moreish: Moreish) -> None:
    path = cut(source, "run", GPT, interrupt_at(CUT))
    newest = max((path / "checkpoints").iterdir())
    manifest = json.loads((newest / "manifest.json").read_text())
    assert {"torch", "threads", "processor", "device"} <= set(manifest["here"])
    manifest["here"] |= {"threads": "64", "torch": "1.13.1"}
    (newest / "manifest.json").write_text(json.dumps(manifest))
    before = everything(path)
    result = moreish("train", "--resume", path)
    assert result.status == 2
    assert "threads was 64 and is" in result.err and "torch was 1.13.1 and is" in result.err
    assert "--inexact" in result.err
    assert everything(path) == before
    assert moreish("train", "--resume", path, "--inexact").status == 0
    assert api.load(path).record.status == "finished"
    assert moreish("train", "names", "--inexact").err == "moreish: --inexact goes with --resume\n"


def test_a_checkpoint_of_another_run_is_rejected(source: Path, proved: Proved) -> None:
    mine, other = (
        cut(source, name, GPT, interrupt_at(CUT), lr=lr) for name, lr in (("a", 0.1), ("b", 0.2))
    )
    for path in (mine / "checkpoints").iterdir():
        (other / "checkpoints" / path.name / "manifest.json").write_bytes(
            (path / "manifest.json").read_bytes()
        )
        for part in path.iterdir():
            (other / "checkpoints" / path.name / part.name).write_bytes(part.read_bytes())
    with pytest.raises(MoreishError, match="checkpoint of another run"):
        api.resume(other, report=ignore)
    proved(6, "a checkpoint of another run", {"rejected": 1})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("model.safetensors", "trained on other data"),
        ("tokenizer.json", "not the tokenizer that this run was trained with"),
        ("data/val.npy", "val.npy is damaged"),
    ],
)
def test_a_file_of_another_run_is_rejected(
    source: Path, part: str, message: str, proved: Proved
) -> None:
    """The other run differs only in its data."""
    mine = train(source, "mine", FAMILIES["bigram"]).path
    other = source.parent / "other.txt"
    names = source.read_text("utf-8").split("\n")
    other.write_text("\n".join(name[::-1] for name in names), encoding="utf-8")
    if part == "tokenizer.json":
        other.write_text("\n".join([*names, "ÄÖÜ"]), encoding="utf-8")
    theirs = train(other, "theirs", FAMILIES["bigram"]).path
    (mine / part).write_bytes((theirs / part).read_bytes())
    with pytest.raises(MoreishError, match=message):
        run = api.load(mine)
        run.sample(1)
        run.evaluate()
    proved(6, f"{part} of another run", {"rejected": 1})


@pytest.mark.parametrize("log", ["metrics.jsonl", "samples.txt"])
def test_an_incomplete_log_is_rejected(source: Path, moreish: Moreish, log: str) -> None:
    """Only the log up to the checkpoint must be intact: the rest is logged again."""
    path = cut(source, "run", GPT, interrupt_at(CUT))
    content = (path / log).read_bytes()
    for spoiled in (None, content[:-1], b"x" + content[1:]):
        (path / log).unlink()
        if spoiled is not None:
            (path / log).write_bytes(spoiled)
        refused = moreish("train", "--resume", path)
        assert refused.status == 2
        assert f"{log} is not what it was when step-" in refused.err and "--inexact" in refused.err
        (path / log).write_bytes(content)
    (path / log).write_bytes(content + b"torn")
    assert moreish("train", "--resume", path).status == 0
    whole = train(source, "whole", GPT)
    assert everything(path) == everything(whole.path)


def test_the_error_for_damaged_checkpoints_suggests_commands(
    source: Path, moreish: Moreish
) -> None:
    path = cut(source, "run", GPT, interrupt_at(CUT))
    for weights in path.glob("checkpoints/*/weights.safetensors"):
        weights.write_bytes(b"torn")
    refused = moreish("train", "--resume", path)
    assert refused.status == 2
    assert f"moreish sample {path}" in refused.err and "--overwrite" in refused.err


def test_two_processes_cannot_train_in_one_folder(
    source: Path, moreish: Moreish, proved: Proved
) -> None:
    path = source.parent / "run"

    def meanwhile(event: Event) -> None:
        if isinstance(event, Step) and event.step == 3:
            for arguments in (["--resume", path], [source, "--out", path, "--overwrite"]):
                result = moreish("train", *arguments)
                assert result.status == 2
                assert f"another process is training {path}" in result.err
            said.append(event.step)

    said: list[int] = []
    assert train(source, "run", GPT, meanwhile).record.status == "finished"
    assert said == [3]
    assert train(source, "run2", GPT).record.status == "finished"
    proved(8, "resuming or replacing a run during training", {"rejected": 2})


def test_test_evaluations_during_training_are_counted(source: Path) -> None:
    path = source.parent / "run"

    def meanwhile(event: Event) -> None:
        if isinstance(event, Step) and event.step == 8:
            api.load(path).evaluate(test=True)

    run = train(source, "run", GPT, meanwhile)
    assert run.record.test_evaluations == 1
    assert api.load(path).record.test_evaluations == 1
