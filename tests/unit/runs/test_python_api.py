"""A run in Python: what a notebook shows, the log, the next tokens, the seed, and the plot."""

import html
import math
import shutil
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moreish
from moreish import api
from moreish.errors import MoreishError
from moreish.planning import Plan
from moreish.runs.run import INTERNAL, Run, Samples
from moreish.training.events import ignore
from moreish.ui import TrainingView, describe_ending


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Letter pairs of a text with markup, whose probabilities are known by hand."""
    folder = tmp_path_factory.mktemp("counts")
    source = folder / "<b>list.txt"
    source.write_text("\n".join(["ab", "ac<", "ab&"] * 30), encoding="utf-8")
    settings = {"model": {"add_k": 0.0}}
    return api.train(
        source, kind="lines", model="ngram", settings=settings, out=folder / "<i>", report=ignore
    )


def test_repr_says_what_it_is_and_how_good(small_run: Run, counts: Run) -> None:
    loss = small_run.scores["val"].loss
    guess = math.log(small_run.tokenizer.vocab_size)
    assert repr(small_run) == (
        f"Run('{small_run.path}': {small_run.config.model.name} on names, finished, validation "
        f"loss {loss:.4f} nats/token (guessing: {guess:.4f}))"
    )
    assert "ngram on <b>list" in repr(counts)


def test_a_run_that_is_not_trained_has_a_repr(small_run: Run, tmp_path: Path) -> None:
    path = Path(shutil.copytree(small_run.path, tmp_path / "copy"))
    (path / "model.safetensors").unlink()
    run = Run.open(path)
    run.update(status="training", splits={}, parameters=None, seconds=None)
    assert repr(run).endswith("on names, training)")
    page = run._repr_html_()
    assert "guessing" in page and "<pre" not in page


def test_html_is_escaped_and_states_the_reference(counts: Run) -> None:
    page = counts._repr_html_()
    assert html.escape(str(counts.path)) in page and "<b>list" not in page and "<i>" not in page
    assert "&lt;b&gt;list" in page
    assert f"guessing {math.log(counts.tokenizer.vocab_size):.4f}" in page
    for name, title in (("train", "training"), ("val", "validation")):
        assert f"{title} {counts.scores[name].loss:.4f} ±" in page
    for text in counts.sample(6, seed=0):
        assert html.escape(text) in page
    assert page == counts._repr_html_()


def test_next_gives_the_probabilities_of_the_model(counts: Run, small_run: Run) -> None:
    found = counts.next("a")
    assert [t.token for t in found[:2]] == ["b", "c"]
    assert sum(t.probability for t in found) == pytest.approx(1)
    ids = counts.split("train").ids_N[:].astype(int)
    after_a = ids[1:][ids[:-1] == counts.tokenizer.encode("a")[0]]
    for token in found:
        assert token.probability == pytest.approx(np.mean(after_a == token.id), abs=1e-6)
    assert counts.next("<", 1)[0].token == "·"  # the end of the item
    assert counts.next()[0].token == "a"
    first = small_run.next("jo", 3)
    assert len(first) == 3
    surprisal = small_run.surprisal("jo" + first[0].token)[2]
    assert first[0].probability == pytest.approx(math.exp(-surprisal.nats), rel=1e-4)
    assert len(small_run.next("mary" * 30)) == 10  # longer than the context
    assert len(small_run.next(n=1000)) == small_run.tokenizer.vocab_size
    with pytest.raises(MoreishError, match=r"^n=0: ask for at least one token"):
        small_run.next("a", 0)
    with pytest.raises(MoreishError, match="unknown='drop'"):
        small_run.next("É")
    assert small_run.next("jÉo", unknown="drop") == small_run.next("jo")


def test_a_sample_has_a_new_seed_that_gives_it_again(small_run: Run) -> None:
    found = small_run.sample(8)
    assert isinstance(found, Samples) and isinstance(found, list)
    assert small_run.sample(8, seed=found.seed) == found
    assert small_run.sample(8).seed != found.seed
    ranked = small_run.sample(8, seed=found.seed, rank="likelihood")
    assert sorted(ranked) == sorted(found) and ranked.seed == found.seed
    assert "".join(small_run.stream(seed=5)) == small_run.sample(seed=5)[0]
    with pytest.raises(MoreishError, match=r"^seed=-1: give 0 or more"):
        small_run.sample(seed=-1)


def test_history_has_one_record_for_each_step(small_run: Run, counts: Run) -> None:
    records = small_run.history()
    steps = [record["step"] for record in records]
    assert steps == sorted(set(steps)) and steps[-1] == 60
    last = records[-1]
    logged = list(small_run.read_metrics())
    assert last["loss"] == next(e["loss"] for e in logged if e["step"] == 60 and "loss" in e)
    assert last["val_loss"] == next(e["val"]["loss"] for e in logged if "val" in e)
    assert all(not isinstance(value, dict | list) for r in records for value in r.values())
    assert counts.history() == []
    frame = pytest.importorskip("pandas").DataFrame(records)
    assert frame["val_loss"].notna().sum() == sum("val" in e for e in logged)


def test_plot_shows_the_losses(small_run: Run, counts: Run) -> None:
    figure = small_run.plot()
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    (label,) = (label for label in lines if label.startswith("validation (lowest: "))
    validation = lines[label].get_xydata()
    assert validation[-1].tolist() == [60, small_run.history()[-1]["val_loss"]]
    assert "<svg" in figure._repr_svg_()
    with pytest.raises(MoreishError, match="no log of losses"):
        counts.plot()


def test_plot_names_the_extra_that_is_missing(
    small_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moreish.utils import extras

    def without(name: str) -> Any:
        if name == "matplotlib":
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(extras, "import_module", without)
    with pytest.raises(MoreishError, match=r"pip install 'moreish\[figures\]'$"):
        small_run.plot()


def test_completion_shows_what_is_for_people(small_run: Run) -> None:
    shown = {name for name in dir(small_run) if not name.startswith("_")}
    assert not shown & INTERNAL
    assert {name for name in INTERNAL if not hasattr(Run, name)} == set()
    assert shown == {
        "baselines", "checkpoints", "config", "evaluate", "guessing_loss", "history", "kind",
        "model", "next", "novelty", "open", "path", "plot", "predict", "record", "sample", "scores",
        "split", "split_names", "stream", "surprisal", "tokenizer",
    }  # fmt: skip


def test_runs_and_paths_are_compared(small_run: Run, tmp_path: Path) -> None:
    source = tmp_path / "names.txt"
    source.write_bytes((small_run.path.parent / "names.txt").read_bytes())
    other = api.train(source, model="ngram", out=tmp_path / "run", report=ignore)
    by_run, by_path, by_list = (
        moreish.compare(small_run, other, report=ignore),
        moreish.compare(str(small_run.path), other.path, report=ignore),
        moreish.compare([small_run, other], report=ignore),
    )
    (found,) = by_run[1]
    assert str(found) == str(by_path[1][0]) == str(by_list[1][0]) == found.sentence()
    losses = sorted(run.scores["val"].loss for run in (small_run, other))
    assert found.difference == pytest.approx(losses[1] - losses[0], abs=1e-5)
    copy = Path(shutil.copytree(small_run.path, tmp_path / "copy"))
    moreish.compare(copy, other, test=True, report=ignore)
    assert Run.open(other.path).record.test_evaluations == 1
    assert " nats per token (95 % between " in str(found)
    assert repr(found) == f"Comparison({found})"
    assert repr(by_run[0][0]) == f"RunGroup({by_run[0][0].name}: 1 run, loss {losses[0]:.4f})"
    twin = Path(shutil.copytree(other.path, tmp_path / "twin"))
    with pytest.raises(MoreishError, match="have the same settings and seed"):
        moreish.compare(other, twin, report=ignore)
    for runs in ((small_run,), (small_run, small_run), (small_run, small_run.path)):
        with pytest.raises(MoreishError, match="two different runs"):
            moreish.compare(*runs, report=ignore)


def test_a_string_stops_a_text(small_run: Run) -> None:
    texts = small_run.sample(40, seed=0)
    assert small_run.sample(40, seed=0, stop="an") == [t.partition("an")[0] for t in texts]
    assert any("a" in text.partition("an")[0] for text in texts)


def test_the_nearest_item_may_be_in_any_split(small_run: Run) -> None:
    item = small_run.tokenizer.decode(small_run.split("val").item(0)).strip("\n")
    (found,) = small_run.novelty([item])
    assert (found.nearest, found.distance, found.known) == (item, 0, True)
    assert item.encode() in small_run.training_index


def test_settings_may_have_dots() -> None:
    settings = {"train.lr": 0.01, "train": {"steps": 3}, "model.width": 16}
    found = moreish.plan("names", model="gpt", settings=settings)
    assert (found.config.train.lr, found.config.train.steps) == (0.01, 3)
    assert found.config.model.width == 16  # type: ignore[attr-defined]
    with pytest.raises(MoreishError, match=r"^unknown setting lr: did you mean 'train.lr'\?$"):
        moreish.plan("names", model="gpt", settings={"lr": 0.01})


def test_plans_and_tokenizers_have_a_short_repr(small_run: Run) -> None:
    items = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    found = moreish.plan(items)
    assert isinstance(found, Plan) and repr(found) == "\n".join(found.reasons)
    estimate = repr(moreish.plan(items, model="gpt", steps=5))
    assert estimate.startswith("model        gpt, ") and "--" not in estimate
    assert repr(small_run.tokenizer) == f"CharTokenizer({small_run.tokenizer.vocab_size} tokens)"


def test_the_end_of_training_is_printed(
    small_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MoreishError, match=r"longer: moreish.resume\('.*', minutes=5\)$"):
        moreish.resume(small_run)
    path = Path(shutil.copytree(small_run.path, tmp_path / "copy"))
    moreish.resume(Run.open(path), steps=5)
    output = capsys.readouterr().out
    assert "loss (nats/token)" in output and "this model" in output
    assert "moreish sample" not in output and "Ten samples" not in output

    run = Run.open(path)
    assert describe_ending(run) == ""
    run.update(status="stopped early")
    assert describe_ending(run).startswith("Stopped early: the validation loss was rising.")


def test_an_interrupted_run_says_how_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(view: TrainingView, event: Any) -> None:
        if event.step == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TrainingView, "_show_step", interrupt)
    run = moreish.train("names", model="bigram", steps=50, out=tmp_path / "r")
    assert run.record.status == "interrupted"
    ending = f"Stopped. Resume with: moreish.resume('{run.path}')\n"
    assert capsys.readouterr().out.endswith(ending)


def test_hints_do_not_name_the_temporary_file_of_a_text(tmp_path: Path) -> None:
    run = api.train(["anna", "otto"] * 20, model="bigram", steps=2, out=tmp_path / "r",
                    report=ignore)  # fmt: skip
    with pytest.raises(MoreishError, match=r"moreish train - --as lines --model gpt$"):
        api.export(run, tmp_path / "x", to="hf")


def test_unknown_words_are_called_words(tmp_path: Path) -> None:
    run = api.train(
        text="the cat sat on the mat . " * 200, tokenizer="word", model="ngram",
        out=tmp_path / "r", report=ignore,
    )  # fmt: skip
    with pytest.raises(MoreishError, match=r"'zzz'; .* remove unknown words with unknown='drop'$"):
        run.surprisal("the zzz cat")
