"""Comparisons: known differences, intervals that cover, and runs that cannot be compared."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Moreish
from moreish import api
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.runs.compare import RunGroup, compare_groups, compare_runs, student_quantile
from moreish.runs.run import Run
from moreish.training.events import ignore

TINY = {"model": {"layers": 1, "heads": 2, "width": 16}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("compare")
    source = folder / "names.txt"
    source.write_text("\n".join(catalog.load_dataset("names").split("\n")[:800]), encoding="utf-8")

    def train(name: str, **options: object) -> Run:
        return api.train(source, out=folder / name, report=ignore, **options)

    return {
        "counts": train("counts", model="ngram"),
        "kneser-ney": train("kneser-ney", model="kneser-ney"),
        "gpt": train("gpt", steps=60, settings=TINY),
        "gpt-1": train("gpt-1", steps=60, settings=TINY, seed=1),
        "gpt-2": train("gpt-2", steps=60, settings=TINY, seed=2),
        "bytes": train("bytes", model="ngram", tokenizer="byte"),
        "other": train("other", model="ngram", settings={"data": {"split_seed": 7}}),
        "text": train("text", model="ngram", kind="text"),
    }


def test_the_difference_equals_that_of_the_losses(runs: dict[str, Run]) -> None:
    groups, (found,) = compare_runs([runs["counts"], runs["kneser-ney"]])
    assert [g.runs[0].config.model.name for g in groups] == ["kneser-ney", "ngram"]
    losses = [runs[name].scores["val"].loss for name in ("kneser-ney", "counts")]
    assert found.difference == pytest.approx(losses[1] - losses[0], abs=1e-6)
    assert found.low < found.difference < found.high
    assert found.is_significant
    assert "is better than" in found.sentence()
    assert "one run does not show" not in found.sentence()  # counting has no seed


def test_pairing_narrows_the_interval(runs: dict[str, Run]) -> None:
    """Both models find the same names hard, which a comparison of two separate errors ignores."""
    _, (found,) = compare_runs([runs["counts"], runs["kneser-ney"]])
    separate = np.hypot(*(runs[name].scores["val"].stderr for name in ("counts", "kneser-ney")))
    assert found.stderr < 0.8 * separate


def test_the_interval_includes_the_variance_between_seeds(runs: dict[str, Run]) -> None:
    several = [runs["gpt"], runs["gpt-1"], runs["gpt-2"]]
    groups, (found,) = compare_runs([*several, runs["kneser-ney"]])
    assert sorted(len(g.runs) for g in groups) == [1, 3]
    _, (alone,) = compare_runs([runs["gpt"], runs["kneser-ney"]])
    assert found.high - found.low > 0
    seeds = next(g for g in groups if len(g.runs) == 3)
    assert seeds.loss == pytest.approx(np.mean([r.scores["val"].loss for r in several]), abs=1e-6)
    assert found.stderr**2 >= seeds.seed_variance
    assert alone.is_single_seed
    assert "one run does not show" in alone.sentence()
    assert not found.is_single_seed
    with pytest.raises(MoreishError, match="nothing to compare"):
        compare_runs(several)


def test_runs_with_different_tokenizers_are_compared_per_byte(runs: dict[str, Run]) -> None:
    groups, (found,) = compare_runs([runs["counts"], runs["bytes"]])
    by_name = {g.runs[0].config.data.tokenizer: g.loss for g in groups}
    for tokenizer, name in (("char", "counts"), ("byte", "bytes")):
        bits = runs[name].scores["val"].bits_per_byte
        assert by_name[tokenizer] == pytest.approx(bits * np.log(2), rel=1e-6)
    assert found.difference >= 0


def test_runs_with_different_splits_are_rejected(runs: dict[str, Run]) -> None:
    for other in ("other", "text"):
        with pytest.raises(MoreishError, match="different validation splits"):
            compare_runs([runs["counts"], runs[other]])


def test_confidence_intervals_have_their_coverage() -> None:
    """Simulated: units of random size, three seeds a side, a true difference of 0.05."""
    random = np.random.default_rng(0)
    covered, trials = 0, 300
    for _ in range(trials):
        sizes = random.integers(3, 12, 150)
        hard = random.normal(2, 0.5, 150)  # shared by both models
        groups = []
        for truth in (0.0, 0.05):
            members = []
            for _seed in range(3):
                shift = truth + random.normal(0, 0.03)
                members.append(sizes * (hard + shift + random.normal(0, 0.2, 150)))
            losses = [float(m.sum() / sizes.sum()) for m in members]
            groups.append(
                RunGroup(name="", runs=[None] * 3, losses=losses, unit_sums_U=np.mean(members, 0))
            )
        found = compare_groups(groups[0], groups[1], sizes)
        covered += found.low <= 0.05 <= found.high
    assert 0.93 < covered / trials < 0.99


def test_the_command(moreish: Moreish, runs: dict[str, Run]) -> None:
    paths = [runs[name].path for name in ("counts", "kneser-ney", "gpt", "gpt-1")]
    result = moreish("compare", *paths)
    assert result.status == 0, result.err
    assert "is better than" in result.out
    found = moreish("compare", *paths, "--json").json
    assert len(found["groups"]) == 3
    assert len(found["comparisons"]) == 3
    assert {"difference", "interval", "real", "sentence"} <= set(found["comparisons"][0])
    before = runs["counts"].record.test_evaluations
    moreish("compare", *paths[:2], "--test")
    assert Run.open(paths[0]).record.test_evaluations == before + 1
    assert moreish("compare", paths[0]).status == 2
    assert moreish("compare", paths[0], Path("nowhere")).status == 2


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (1.5, 6.0), (2, 4.3027), (3, 3.1824), (10, 2.2281), (1000, 1.9623), (1e9, 1.96)],
)
def test_quantiles_of_students_t_distribution(freedom: float, expected: float) -> None:
    """The expected values are from tables; that of 1.5 is between those of 1 and 2."""
    found = student_quantile(0.975, freedom)
    assert found == pytest.approx(expected, rel=0.05 if freedom == 1.5 else 2e-4)


def test_a_model_that_gives_probability_zero_is_worse(moreish: Moreish) -> None:
    Path("l.txt").write_text("\n".join(f"{a}{b}{a}" for a in "abcdefgh" for b in "ijklmnop"))
    impossible = ("--set", "model.order=4", "--set", "model.add_k=0")
    moreish("train", "l.txt", "--model", "ngram", "--out", "a", *impossible)
    moreish("train", "l.txt", "--model", "ngram", "--out", "b")
    found = moreish("compare", "a", "b", "--json")
    assert found.status == 0, found.err
    assert found.json["comparisons"][0]["better"] == "b"
    assert found.json["comparisons"][0]["real"]
    assert "gives it probability 0" in " ".join(moreish("compare", "a", "b").out.split())
    moreish("train", "l.txt", "--model", "ngram", "--out", "c")
    same = moreish("compare", "a", "b", "c")
    assert same.status == 2
    assert "same settings and seed" in same.err


def test_non_ascii_text_is_compared_per_byte(moreish: Moreish) -> None:
    Path("t.txt").write_text("é" + "Žluťoučký kůň úpěl ďábelské ódy. " * 300, encoding="utf-8")
    moreish("train", "t.txt", "--as", "text", "--model", "kneser-ney", "--out", "a")
    options = ("--tokenizer", "byte", "--set", "model.order=4")
    moreish("train", "t.txt", "--as", "text", "--model", "kneser-ney", "--out", "b", *options)
    result = moreish("compare", "a", "b")
    assert result.status == 0, result.err
    assert "nats" in result.out


@pytest.mark.soak
def test_seeds_share_the_rate_of_a_range_test(tmp_path: Path) -> None:
    source = tmp_path / "names.txt"
    source.write_text("\n".join(catalog.load_dataset("names").split("\n")[:300]), encoding="utf-8")
    auto = {"train": {"lr": "auto"}}
    several = [
        api.train(
            source, model="bow", steps=20, seed=seed, settings=auto,
            out=tmp_path / str(seed), report=ignore,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    counts = api.train(source, model="ngram", out=tmp_path / "counts", report=ignore)
    groups, _ = compare_runs([*several, counts])
    assert sorted(len(group.runs) for group in groups) == [1, 2]


def test_two_models_that_give_probability_zero(tmp_path: Path) -> None:
    source = tmp_path / "names.txt"
    source.write_text("\n".join(catalog.load_dataset("names").split("\n")[:300]), encoding="utf-8")
    runs = [
        api.train(
            source, model="ngram", settings={"model": {"order": order, "add_k": k}},
            out=tmp_path / f"{order} {k}", report=ignore,
        )
        for order, k in ((4, 0.0), (5, 0.0), (2, 0.1))
    ]  # fmt: skip
    _, found = compare_runs(runs)
    said = [comparison.sentence() for comparison in found]
    assert sum("both give the text probability zero" in sentence for sentence in said) == 1
    assert sum("which gives it probability 0" in sentence for sentence in said) == 2
    assert not any(c.is_significant for c in found if "both" in c.sentence())
