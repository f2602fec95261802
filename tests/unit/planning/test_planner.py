"""What the planner chooses, with the clock held still."""

import math
import tomllib
from pathlib import Path

import pytest

from conftest import STORY, Clock, Moreish
from moreish import api
from moreish.config import AutoConfig, RunConfig, resolve
from moreish.errors import MoreishError
from moreish.models import model_config
from moreish.models.gpt.model import GPTConfig
from moreish.models.hybrid import HybridConfig
from moreish.models.ngram.kneser_ney import KneserNeyConfig
from moreish.planning import planner
from moreish.planning.estimate import Estimate
from moreish.planning.families import FAMILIES
from moreish.planning.planner import Plan, plan_run
from moreish.runs.run import Run
from moreish.settings import Tree, to_toml
from moreish.training.events import ignore
from moreish.training.setup import build_meta_model, set_up


def advice(source: str | Path, **train: float) -> Plan:
    return plan_run(set_up(resolve({"data": {"source": str(source)}, "train": train})))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose speed is known: so many operations a second."""

    def rate(ready: planner.TrainingSetup) -> float:
        network = ready.config.model
        if isinstance(network, HybridConfig):
            network = network.network
        return 5e10 / (6 * 12 * network.layers * network.width**2)

    monkeypatch.setattr(planner, "measure_speed", rate)


def story(folder: Path, times: int) -> Path:
    path = folder / "story.txt"
    path.write_text("".join(f"{STORY} {n}\n" for n in range(times)), encoding="utf-8")
    return path


@pytest.mark.usefixtures("machine")
def test_more_time_buys_a_larger_network(shakespeare: str, tmp_path: Path) -> None:
    (tmp_path / "play.txt").write_text(shakespeare[:300_000])
    sizes = []
    for minutes in (0.05, 0.3, 1.5, 10.0, 100.0):
        found = advice(tmp_path / "play.txt", minutes=minutes)
        model = found.config.model
        assert isinstance(model, HybridConfig) and isinstance(model.network, GPTConfig)
        assert model.counts.order == (9 if model.memory else 7)
        sizes.append(model.network.layers * model.network.width**2)
        assert len(found.reasons) == 3
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] < sizes[-1]
    # It then comes so often over the text that it needs dropout.
    assert model.network.dropout > 0
    assert "dropout" in found.reasons[1]


@pytest.mark.parametrize("network", FAMILIES)
def test_networks_of_lists_that_are_only_named_are_planned(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "measure_speed", lambda setup: 20_000.0)
    asked = {"data": {"source": "names"}, "model": network, "train": {"minutes": 0.3}}
    found, reasons = planner.resolve_auto_model(set_up(resolve(asked)))
    assert found.config.train.optimizer == "muon" and len(reasons) == 3


@pytest.mark.parametrize("network", FAMILIES)
def test_networks_that_are_only_named_are_planned(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "measure_speed", lambda setup: 20_000.0)

    def trained(model: Tree | str, **train: float) -> RunConfig:
        asked = {"data": {"source": str(path)}, "model": model, "train": train}
        return planner.resolve_auto_model(set_up(resolve(asked)))[0].config

    path, sizes = story(tmp_path, 400), []
    for minutes in (0.1, 100.0):
        config = trained(network, minutes=minutes)
        assert config.model.name == network
        assert config.train.optimizer == FAMILIES[network].train["optimizer"]
        sizes.append(build_meta_model(config.model, 60).num_parameters())
    assert sizes[0] < sizes[1]
    default = model_config({"name": network}).for_data(None, 60)
    assert trained(network, steps=10).model.model_dump() == default.model_dump()
    default = model_config({"name": network, **FAMILIES[network].sizes[0].model})
    chosen = default.model_dump(exclude_unset=True)
    assert trained(chosen, minutes=1.0).model == default.for_data(None, 60)


def test_steps_need_no_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "measure_speed", lambda ready: pytest.fail("it was measured"))
    path = story(tmp_path, 60)
    assert advice(path, steps=300).config == advice(path, steps=300).config
    few, many = (advice(path, steps=n).config.model.network for n in (50, 20_000))
    assert few.layers * few.width**2 < many.layers * many.width**2
    assert advice(path, epochs=3.0).config.train.epochs == 3


@pytest.mark.usefixtures("machine")
def test_too_little_text_or_time_is_only_counted(tmp_path: Path) -> None:
    for source, minutes in ((story(tmp_path, 4), 5.0), ("names", 0.01)):
        found = advice(source, minutes=minutes)
        assert isinstance(found.config.model, KneserNeyConfig)
        assert "Kneser-Ney" in found.reasons[2]


@pytest.mark.usefixtures("machine")
def test_where_counting_takes_too_long_a_network_goes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "COUNTS_PER_SECOND", 1000)
    found = advice(story(tmp_path, 60), minutes=0.2)
    assert isinstance(found.config.model, GPTConfig)
    assert found.config.model.ngram_embedding == 5
    assert "without n-gram counts, because counting n-grams would take" in found.reasons[2]


def test_a_list_of_one_thing_is_only_counted(tmp_path: Path) -> None:
    (tmp_path / "same.txt").write_text("anna\n" * 2000 + "bob\neve\n")
    assert isinstance(advice(tmp_path / "same.txt", steps=3).config.model, KneserNeyConfig)
    (tmp_path / "ones.txt").write_text("a" * 5000)
    assert isinstance(advice(tmp_path / "ones.txt", steps=3).config.model, HybridConfig)


@pytest.mark.parametrize("cost", [0.1, 1.6, 3.1, 60.0])
def test_what_is_chosen_does_not_depend_on_what_a_trial_takes(
    tmp_path: Path, shakespeare: str, monkeypatch: pytest.MonkeyPatch, clock: Clock, cost: float
) -> None:
    """Only on the speed that it finds; where trials are slow, there are few of them."""
    (tmp_path / "play.txt").write_text(shakespeare[:300_000])
    trials = []

    def rate(ready: planner.TrainingSetup) -> float:
        clock.now += cost
        network = ready.config.model.network
        trials.append((network.layers, network.width))
        return 2e10 / (6 * (12 * network.layers * network.width**2 + 10_000))

    monkeypatch.setattr(planner, "measure_speed", rate)
    found = advice(tmp_path / "play.txt", minutes=1.0)
    network = found.config.model.network
    assert (network.layers, network.width) == (2, 64)
    assert cost * len(trials) <= planner.MAX_PLANNING_SECONDS + cost
    measured = (2, 64) in trials
    assert ("At about" in found.reasons[1]) == (not measured)


@pytest.mark.usefixtures("machine")
def test_memory_is_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = story(tmp_path, 60)
    roomy = advice(path, minutes=60.0).config.model
    assert roomy.folds == 10
    monkeypatch.setattr(planner, "available_memory", lambda: 40e6)
    tight = advice(path, minutes=60.0).config.model
    assert tight.folds < 10
    monkeypatch.setattr(planner, "available_memory", lambda: 1e6)
    assert "would not fit into the free memory" in advice(path, minutes=60.0).reasons[2]
    assert isinstance(roomy, HybridConfig) and isinstance(tight, HybridConfig)
    weights = [config.network.layers * config.network.width for config in (tight, roomy)]
    assert weights[0] < weights[1]
    assert math.isfinite(planner.available_memory())


def test_what_the_user_sets_stays(tmp_path: Path) -> None:
    config = advice(story(tmp_path, 30), steps=5, weight_decay=0.5, batch_tokens=77).config
    assert (config.train.weight_decay, config.train.batch_tokens) == (0.5, 77)
    assert config.train.optimizer == "muon"
    assert isinstance(api.plan("names", settings={"model": "mlp"}), Estimate)
    with pytest.raises(MoreishError, match="the planner chooses it"):
        api.plan("names", settings={"model": {"name": "auto", "width": 3}})


def test_a_real_trial_of_a_list(tmp_path: Path) -> None:
    found = advice("names", minutes=0.1)
    assert isinstance(found.config.model, HybridConfig)
    assert found.config.model.network.context == 16
    assert "tokens/s" in found.reasons[1]


def test_the_plan_is_a_recipe(moreish: Moreish, tmp_path: Path) -> None:
    path = story(tmp_path, 30)
    result = moreish("plan", path, "--steps", 3)
    assert result.out.startswith("# story: ")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(result.out)
    by_recipe = moreish("train", "--config", recipe, "--out", "a", "--json").json
    default = moreish("train", path, "--steps", 3, "--out", "b", "--json").json
    assert by_recipe["splits"] == default["splits"]
    assert Run.open("a").config == Run.open("b").config
    as_json = moreish("plan", path, "--steps", 3, "--json").json
    assert as_json["recipe"] == tomllib.loads(result.out)
    assert len(as_json["reasons"]) == 3


def test_a_recipe_is_toml() -> None:
    tree: Tree = {
        "seed": 1,
        "a": {"b": 'x"\\\n\u00e9', "c": {"d": 1.5, "e": True}},
        "f": {"g": {"h": 2}},
    }
    assert tomllib.loads(to_toml(tree)) == tree


def test_settings_of_a_model_without_its_name_are_said_to_be_a_gpts(tmp_path: Path) -> None:
    path, told = story(tmp_path, 30), []
    (tmp_path / "recipe.toml").write_text('[model]\nname = "mlp"\n')
    report = lambda event: told.append(getattr(event, "text", ""))  # noqa: E731
    for number, (config, expected) in enumerate(((tmp_path / "recipe.toml", 0), (None, 1))):
        out = tmp_path / str(number)
        api.train(path, context=4, steps=1, config=config, out=out, report=report)
        assert sum("trains a plain GPT" in text for text in told) == expected


def test_auto_is_the_default_and_never_what_is_trained(tmp_path: Path) -> None:
    assert isinstance(resolve().model, AutoConfig)
    assert isinstance(resolve({"model": "auto"}).model, AutoConfig)
    run = api.train(story(tmp_path, 30), steps=2, out=tmp_path / "run", report=ignore)
    assert run.config.model.name == "hybrid"
    assert Run.open(run.path).score("val").loss == pytest.approx(run.scores["val"].loss, abs=1e-5)
