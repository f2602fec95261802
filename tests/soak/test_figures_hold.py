"""Long tests, run by `make soak`: full training runs reach the documented losses."""

from pathlib import Path

import pytest

from conftest import ROOT, lecture_text
from moreish import api
from moreish.training.events import ignore

pytestmark = [pytest.mark.soak, pytest.mark.long]


def test_gpt_on_names_in_two_minutes(tmp_path: Path) -> None:
    """On two cores; makemore's default transformer needs 6,000 steps for 2.00."""
    lecture_text("names-lecture")
    run = api.train(
        "names-lecture",
        split="lecture",
        model="gpt",
        minutes=2,
        out=tmp_path / "run",
        report=ignore,
    )
    assert run.scores["val"].loss <= 2.00


@pytest.mark.parametrize(
    ("source", "minutes", "max_loss"),
    [
        ("names-lecture", 1 / 3, 1.93),
        ("names-lecture", 2, 1.91),
        ("shakespeare", 0.3, 1.4697),
        ("shakespeare", 1.45, 1.42),
    ],
)
def test_losses_of_the_settings_that_the_planner_chooses(
    tmp_path: Path, source: str, minutes: float, max_loss: float
) -> None:
    """On two cores: a fifth of the time of nanoGPT's CPU setting, all of it, and the names."""
    lecture_text(source)
    run = api.train(source, split="lecture", minutes=minutes, out=tmp_path / "run", report=ignore)
    counts = api.train(
        source, split="lecture", model="kneser-ney", out=tmp_path / "counts", report=ignore
    )
    assert run.scores["val"].loss < counts.scores["val"].loss - 0.03
    assert run.scores["val"].loss <= max_loss


def test_mlp_with_three_letters_of_context_beats_the_lecture(tmp_path: Path) -> None:
    lecture_text("names-lecture")
    recipe = ROOT / "configs" / "names-lecture-mlp.toml"
    run = api.train(config=recipe, out=tmp_path / "run", report=ignore)
    assert run.scores["val"].loss < 2.17


def test_gpt_on_shakespeare_in_nanogpts_tokens(tmp_path: Path) -> None:
    """The same steps and tokens a step as nanoGPT's CPU setting, which reaches 1.88."""
    lecture_text("shakespeare")
    recipe = ROOT / "configs" / "shakespeare-char.toml"
    run = api.train(config=recipe, out=tmp_path / "run", report=ignore)
    assert run.config.train.steps == 2000
    assert run.config.train.batch_size == 12
    assert run.scores["val"].loss <= 1.90


def test_the_lectures_neural_bigram(tmp_path: Path) -> None:
    """Full batch, learning rate 50, 200 steps, from the command line's own recipe."""
    lecture_text("names-lecture")
    recipe = ROOT / "configs" / "names-lecture-bigram.toml"
    run = api.train(config=recipe, out=tmp_path / "run", report=ignore)
    assert 2.44 < run.scores["train"].loss < 2.48
