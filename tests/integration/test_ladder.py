"""The ladder and the learning-rate range test."""

import dataclasses
import json
import math
import os
import signal
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from conftest import STORY, Moreish
from moreish import api
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.evaluate import attention_maps
from moreish.models import REGISTRY
from moreish.runs.run import Run
from moreish.training.events import ignore
from moreish.training.trainer import Trainer
from moreish.workflows.ladder import RUNGS, rungs_for, train_ladder
from support.example_data import write_labels, write_pairs
from support.model_contract import (
    check_causality,
    check_decoding_by_state,
    check_learning,
    check_uniform_start,
)

CHEAP = "counts,kneser-ney,bow,head"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(catalog.load_dataset("names").split("\n")[:300]), encoding="utf-8")
    return path


def test_all_rungs_have_the_same_split(moreish: Moreish, source: Path) -> None:
    result = moreish("ladder", source, "--minutes", "0.003", "--rungs", CHEAP)
    assert result.status == 0, result.err
    for word in ("counts", "kneser-ney", "validation", "±", "bits/", "moreish sample"):
        assert word in result.out
    saved = json.loads(Path("ladders/names/ladder.json").read_text())
    assert [entry["rung"] for entry in saved["rungs"]] == CHEAP.split(",")
    for entry in saved["rungs"]:
        assert set(entry["splits"]) == {"train", "val"}
        for split in entry["splits"].values():
            assert 0 < split["loss"] < 4
            assert split["stderr"] > 0
        assert entry["parameters"] > 0
        assert entry["samples"]
    hashes = {
        json.dumps(Run.open(f"ladders/names/{rung}").record.data.sha256)
        for rung in CHEAP.split(",")
    }
    assert len(hashes) == 1


@pytest.mark.soak
def test_complete_rungs_are_not_trained_again(moreish: Moreish, source: Path) -> None:
    options = ("ladder", source, "--minutes", "0.003", "--json")
    first = moreish(*options, "--rungs", "counts,head").json
    made = Run.open("ladders/names/head").record.created
    weights = Path("ladders/names/head/model.safetensors").read_bytes()
    second = moreish(*options, "--rungs", "bow,head").json
    assert [entry["rung"] for entry in second["rungs"]] == ["counts", "bow", "head"]
    assert [second["rungs"][0], second["rungs"][2]] == first["rungs"]
    assert second == json.loads(Path("ladders/names/ladder.json").read_text())
    assert Run.open("ladders/names/head").record.created == made
    assert Path("ladders/names/head/model.safetensors").read_bytes() == weights
    other = moreish("ladder", source, "--minutes", "0.004", "--rungs", "head")
    assert other.status == 2
    assert "is a ladder with minutes 0.003, not 0.004" in other.err


def test_an_interrupted_rung_is_resumed(source: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(event: object) -> None:
        raise Killed

    options = {"out": tmp_path / "ladder", "minutes": 0.003, "rungs": "counts,head"}
    with pytest.raises(Killed):
        train_ladder(str(source), report=kill, **options)
    found = train_ladder(str(source), report=ignore, **options)
    assert found["complete"]
    assert [entry["rung"] for entry in found["rungs"]] == ["counts", "head"]


@pytest.mark.soak
def test_a_ladder_of_running_text(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY * 8, encoding="utf-8")
    found = train_ladder(
        str(path),
        out=tmp_path / "l",
        minutes=0.002,
        rungs="kneser-ney,mlp,head,gpt",
        report=ignore,
    )
    losses = {entry["rung"]: entry["splits"]["val"]["loss"] for entry in found["rungs"]}
    assert all(loss < math.log(60) for loss in losses.values())
    assert Run.open(tmp_path / "l" / "head").config.model.context == 8


def test_stated_losses_are_shown_for_the_lectures_split(
    lecture_names: list[str], tmp_path: Path
) -> None:
    found = train_ladder("names-lecture", out=tmp_path / "l", rungs="counts", report=ignore)
    (entry,) = found["rungs"]
    assert found["split"] == "lecture"
    assert entry["stated"]["loss"] == 2.45
    assert "makemore 1" in entry["stated"]["where"]
    assert entry["splits"]["val"]["loss"] == pytest.approx(2.4535, abs=1e-4)
    seeded = train_ladder(
        "names-lecture", out=tmp_path / "s", split="seeded", rungs="counts", report=ignore
    )
    assert seeded["rungs"][0]["stated"] is None


def test_the_error_for_an_unknown_rung_names_the_nearest(moreish: Moreish) -> None:
    result = moreish("ladder", "names", "--rungs", "counts,kneserney")
    assert result.status == 2
    assert "did you mean 'kneser-ney'?" in result.err
    assert moreish("ladder", "names", "--quick", "--minutes", "1").status == 2


def test_a_budget_in_epochs(moreish: Moreish, source: Path) -> None:
    result = moreish("ladder", source, "--epochs", "2", "--rungs", "counts,bow,head", "--json")
    assert result.status == 0, result.err
    assert (result.json["minutes"], result.json["epochs"]) == (None, 2)
    tokens = [
        max(
            line["tokens"]
            for line in Run.open(f"ladders/names/{rung}").read_metrics()
            if "loss" in line
        )
        for rung in ("bow", "head")
    ]
    assert tokens[0] == pytest.approx(tokens[1], rel=0.3)
    assert "2 epochs" in Path("ladders/names/report.html").read_text()


def test_a_budget_in_steps(moreish: Moreish, source: Path) -> None:
    result = moreish("ladder", source, "--steps", "20", "--rungs", "counts,head,norm", "--json")
    assert result.status == 0, result.err
    assert (result.json["minutes"], result.json["steps"]) == (None, 20)
    for rung, layers in (("head", 1), ("norm", 3)):
        run = Run.open(f"ladders/names/{rung}")
        train = run.config.train
        assert max(line["step"] for line in run.read_metrics()) == train.steps == 20
        recipe = (train.optimizer, train.batch_size, train.lr, train.decay, train.warmup)
        assert recipe == ("adamw", 32, 1e-3, "constant", 0)
        assert (train.beta2, train.weight_decay, train.clip, train.patience) == (0.999, 0.01, 0, 0)
        assert run.model.learning_rate == 1e-3
        assert len(attention_maps(run.model, run.tokenizer.encode("anna"))) == layers
    assert "20 steps" in Path("ladders/names/report.html").read_text()
    both = moreish("ladder", source, "--steps", "20", "--minutes", "1", "--rungs", "counts")
    assert both.status == 2
    assert "give one of" in both.err


TOY = """
from typing import Literal, final

from torch import nn

from moreish.models.base import Model, ModelConfig


class ToyConfig(ModelConfig):
    name: Literal["toy"] = "toy"


@final
class Toy(Model):
    Config = ToyConfig

    def __init__(self, config, vocab_size):
        super().__init__(vocab_size, context=1, max_length=None, learning_rate=0.1)
        self.inner = nn.Embedding(vocab_size, 8)
        self.head = nn.Linear(8, vocab_size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens_BT, state=None):
        return self.head(self.inner(tokens_BT).tanh()), None
"""


@pytest.mark.soak
def test_a_new_model_is_one_file_and_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: Path, moreish: Moreish
) -> None:
    """The contract tests, the ladder and the report include it automatically."""
    assert {rung.model["name"] for rung in RUNGS} <= set(REGISTRY)
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(REGISTRY, "toy", import_module("toy").Toy)

    for check in (check_causality, check_decoding_by_state, check_uniform_start, check_learning):
        check("toy", {})
    assert rungs_for(None)[-1].name == "toy"
    found = moreish("ladder", source, "--epochs", "5", "--rungs", "counts,toy", "--json").json
    assert [entry["rung"] for entry in found["rungs"]] == ["counts", "toy"]
    assert found["rungs"][1]["splits"]["val"]["loss"] < math.log(27)
    assert "toy" in Path("ladders/names/report.html").read_text()
    assert moreish("report", "ladders/names/toy").status == 0
    page = Path("ladders/names/toy/report.html").read_text()
    for word in (
        "How good it is",
        "Token pairs that the model predicts",
        "Layer statistics",
    ):
        assert word in page


def test_the_old_name_of_a_rung_still_works() -> None:
    with pytest.warns(FutureWarning, match="rung grams is deprecated; use gpt-ngram"):
        assert [rung.name for rung in rungs_for("counts,grams")] == ["counts", "gpt-ngram"]


@pytest.mark.parametrize(
    ("write", "rungs"),
    [
        (write_labels, ["naive-bayes", "nb-svm", "lstm", "gpt", "encoder", "label-hybrid"]),
        (write_pairs, ["lstm", "gpt", "encoder-decoder"]),
    ],
)
def test_examples_have_rungs_of_their_own(
    moreish: Moreish, tmp_path: Path, write: Callable[[Path], Path], rungs: list[str]
) -> None:
    file = write(tmp_path / ("data.csv" if write is write_labels else "data.jsonl"))
    command = ["ladder", file, "--steps", "4"]
    result = moreish(*command)
    assert result.status == 0, result.err
    assert "targets" in result.out
    assert "bits" not in result.out
    assert "moreish predict ladders/data/" in result.out
    saved = json.loads(Path("ladders/data/ladder.json").read_text())
    assert [entry["rung"] for entry in saved["rungs"]] == rungs
    for entry in saved["rungs"]:
        assert " → " in entry["samples"][0]
        val = entry["splits"]["val"]
        assert 0 <= val.get("exact_match", val.get("accuracy")) <= 1
    assert "targets right" in Path("ladders/data/report.html").read_text()
    again = moreish(*command, "--json").json
    assert [entry["made"] for entry in again["rungs"]] == [r["made"] for r in saved["rungs"]]
    wrong = moreish("ladder", file, "--rungs", "wavenets")
    assert wrong.status == 2
    assert "wavenet" in wrong.err


# --- the learning-rate range test ---


def test_the_valley_is_within_the_range(source: Path) -> None:
    found = api.lr_range(
        source,
        low=1e-4,
        high=3.0,
        steps=60,
        settings={"model": {"layers": 1, "width": 16}},
        report=ignore,
    )
    assert found.rates[0] == pytest.approx(1e-4)
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert max(ratios) == pytest.approx(min(ratios))  # spaced by exponent
    assert found.rates[0] < found.valley < found.rates[-1]
    assert found.suggested <= found.valley
    assert found.losses[0] == pytest.approx(math.log(27), abs=0.3)
    assert min(found.smoothed) < found.smoothed[0]


@pytest.mark.soak
def test_the_valley_of_the_lecture_is_near_a_tenth(lecture_names: list[str]) -> None:
    """makemore 2: plain gradient descent, batches of 32, rates from 0.001 to 1."""
    settings = {
        "model": {"context": 3, "embedding": 10, "hidden": 200},
        "train": {"optimizer": "sgd", "batch_size": 32},
        "data": {"split": "lecture"},
    }
    found = api.lr_range(
        "names-lecture",
        model="mlp",
        low=1e-3,
        high=1.0,
        steps=1000,
        settings=settings,
        report=ignore,
    )
    assert 0.05 < found.suggested < 0.25


@pytest.mark.soak
def test_auto_uses_the_suggested_rate(moreish: Moreish, source: Path) -> None:
    result = moreish(
        "train", source, "--steps", 5, "--set", "train.lr=auto", "--model", "bow",
        "--out", "r",
    )  # fmt: skip
    assert "found by a range test" in result.out
    lr = Run.open("r").config.train.lr
    assert isinstance(lr, float)
    tested = moreish("lr-range", source, "--model", "bow", "--json").json
    assert tested["suggested"] == lr
    assert "lr-range" in {picture.name for picture in api.figures(Run.open("r"))}
    shown = moreish("lr-range", source, "--model", "bow")
    assert "valley starts" in shown.out
    assert f"--set train.lr={lr:.2g}" in shown.out


def test_invalid_range_tests_are_errors(source: Path) -> None:
    with pytest.raises(MoreishError, match="is fitted by counting"):
        api.lr_range(source, model="kneser-ney", report=ignore)
    with pytest.raises(MoreishError, match="low < high"):
        api.lr_range(source, model="gpt", low=1, high=0.1, report=ignore)
    for steps in (-1, 9, 1_000_001, 10**30):
        with pytest.raises(MoreishError, match=rf"--steps {steps}: give 10 to 1,000,000"):
            api.lr_range(source, model="bow", steps=steps, report=ignore)
    with pytest.raises(MoreishError, match=r"train\.lr=car"):
        api.train(source, settings={"train": {"lr": "car"}}, report=ignore)


# --- what goes wrong on a ladder ---


def test_ctrl_c_in_the_first_rung(moreish: Moreish, source: Path) -> None:
    step = Trainer.train_step
    interrupts = iter([signal.SIGINT])

    def interrupted(self: Trainer):
        if self.state.step == 5:
            for number in interrupts:
                os.kill(os.getpid(), number)
        return step(self)

    options = ("ladder", source, "--epochs", "30", "--rungs", "bow,counts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupted)
        result = moreish(*options)
    assert result.status == 130
    assert "Run the same command to resume" in result.err
    assert "Traceback" not in result.err
    stopped = max(line["step"] for line in Run.open("ladders/names/bow").read_metrics())
    result = moreish(*options)
    assert result.status == 0
    whole = api.train(source, model="bow", epochs=30, out=source.parent / "whole", report=ignore)
    assert stopped == 6  # the step that was under way is finished
    resumed = Run.open("ladders/names/bow")
    assert resumed.scores == whole.scores


@pytest.mark.soak
def test_a_rung_that_diverges_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, moreish: Moreish, source: Path
) -> None:
    wild = {"name": "bow", "context": 2, "width": 4}
    counts, bow = (rung for rung in RUNGS if rung.name in ("counts", "bow"))
    monkeypatch.setattr(
        "moreish.workflows.ladder.RUNGS", (dataclasses.replace(bow, model=wild), counts)
    )
    monkeypatch.setattr(
        "moreish.models.bow.BagOfWords.training_defaults", {"lr": 1e38, "warmup": 0.0}
    )
    result = moreish("ladder", source, "--epochs", "1", "--rungs", "bow,counts", "--json")
    assert result.status == 0
    assert [entry["rung"] for entry in result.json["rungs"]] == ["counts"]
    assert "diverged" in result.json["failed"]["bow"]
    again = moreish("ladder", source, "--epochs", "1", "--rungs", "bow,counts", "--json")
    assert again.json["failed"].keys() == {"bow"}


@pytest.mark.soak
def test_runs_of_another_ladder_are_rejected(moreish: Moreish, source: Path) -> None:
    moreish("ladder", source, "--epochs", "1", "--rungs", "counts,bow")
    other = moreish("ladder", source, "--epochs", "2", "--rungs", "bow")
    assert other.status == 2
    assert "is a ladder with epochs 1.0, not 2.0" in other.err
    moreish("ladder", source, "--epochs", "2", "--rungs", "counts", "--overwrite")
    assert not Path("ladders/names/bow").exists()
    moreish("train", source, "--model", "bow", "--steps", "2", "--out", "ladders/names/bow")
    stranger = moreish("ladder", source, "--epochs", "2", "--rungs", "bow")
    assert stranger.status == 2
    assert "is another run than this ladder's" in stranger.err
    assert Run.open("ladders/names/bow").config.train.steps == 2
    source.write_text(source.read_text() + "\nzzyzx\nxyzzy\n", encoding="utf-8")
    changed = moreish("ladder", source, "--epochs", "2", "--rungs", "counts")
    assert changed.status == 2
    assert "is a ladder of other data" in changed.err
    assert moreish("ladder", source, "--rungs", ",").status == 2
    Path("precious").mkdir()
    Path("precious/thesis.txt").write_text("years")
    moreish("train", source, "--model", "ngram", "--out", "runs/kept")
    for place in ("precious", "runs"):
        refused = moreish("ladder", source, "--out", place, "--overwrite", "--rungs", "counts")
        assert refused.status == 2
        assert "is not a ladder" in refused.err
    assert Run.open("runs/kept").record.status == "finished"


@pytest.mark.parametrize("budget", ["nan", "-1", "0", "inf"])
def test_an_invalid_budget_is_an_error_even_if_all_rungs_are_count_based(
    budget: str, moreish: Moreish, source: Path
) -> None:
    for option in ("--minutes", "--epochs"):
        result = moreish("ladder", source, option, budget, "--rungs", "counts")
        assert result.status == 2
        assert result.err.count("\n") == 1, result.err
    assert not Path("ladders").exists()


@pytest.mark.soak
def test_overwrite_trains_the_named_rungs_again(moreish: Moreish, source: Path) -> None:
    moreish("ladder", source, "--epochs", "1", "--rungs", "counts,bow")
    before = {name: Run.open(f"ladders/names/{name}").record.command for name in ("counts", "bow")}
    found = moreish(
        "ladder", source, "--epochs", "1", "--rungs", "bow", "--overwrite", "--json"
    ).json
    assert [entry["rung"] for entry in found["rungs"]] == ["counts", "bow"]
    assert Run.open("ladders/names/counts").record.command == before["counts"]
    assert Run.open("ladders/names/bow").record.command != before["bow"]


def test_the_default_range_includes_the_default_rate(source: Path) -> None:
    found = api.lr_range(source, model="bigram", steps=60, report=ignore)
    assert found.rates[0] < 1 < found.rates[-1]
    with pytest.raises(MoreishError, match="barely decreases"):
        api.lr_range(source, model="mlp", low=1e-9, high=1e-8, steps=20, report=ignore)


@pytest.mark.soak
def test_the_test_split_is_evaluated_on_request(moreish: Moreish, source: Path) -> None:
    """The test split of complete rungs is evaluated too, once each, and the runs record it."""
    ladder = ("ladder", source, "--minutes", "0.003", "--rungs", "counts")
    assert "test" not in moreish(*ladder).out
    for _ in range(2):
        result = moreish(*ladder, "--test")
        assert result.status == 0, result.err
        assert "test" in result.out
    (entry,) = json.loads(Path("ladders/names/ladder.json").read_text())["rungs"]
    assert set(entry["splits"]) == {"train", "val", "test"}
    assert Run.open("ladders/names/counts").record.test_evaluations == 1


def test_a_list_with_copies_has_a_column_for_new_items(moreish: Moreish, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    names = catalog.load_dataset("names").split("\n")
    path.write_text("\n".join([*names[:200] * 4, *names[200:600]]), encoding="utf-8")
    result = moreish("ladder", path, "--rungs", "counts,kneser-ney", "--out", "copies")
    header = next(line for line in result.out.split("\n") if line.startswith("rung"))
    assert "items" in header and "stated" not in header and "test" not in header
    assert "new items: the validation items that are not in the training split" in result.out
    for entry in json.loads(Path("copies/ladder.json").read_text())["rungs"]:
        loss = f"{entry['splits']['val']['unseen_loss']:.4f}"
        assert loss in result.out and loss in Path("copies/report.html").read_text("utf-8")
    report = api.report(Run.open("copies/counts")).read_text("utf-8")
    assert "validation, new items" in report


def test_no_table_of_a_ladder_is_wider_than_a_terminal(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rungs = "counts,head-unscaled"
    options = ("names-lecture", "--rungs", rungs, "--steps", 1, "--test", "--out", "l")
    lines = moreish("ladder", *options).out.split("\n")
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("rung")) - 1 :][:4]
    assert max(map(len, table)) <= 80 and "…" not in "".join(table)
    assert "stated" in table[1] and "items" in table[1] and "test" in table[1]
