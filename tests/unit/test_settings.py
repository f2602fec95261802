"""Settings: layers, recipes, errors and deprecated names."""

from pathlib import Path

import pytest

from moreish.config import resolve
from moreish.errors import MoreishError
from moreish.settings import from_assignments, from_toml, merge, migrate


def test_later_layers_win_key_by_key() -> None:
    assert merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}, "b": 4}) == {
        "a": {"x": 1, "y": 3},
        "b": 4,
    }


def test_assignments_are_toml_or_plain_text() -> None:
    tree = from_assignments(["a.b=3", "a.c=0.5", "a.d=true", "e=gpt", 'f="x y"', "a.b=4"])
    assert tree == {"a": {"b": 4, "c": 0.5, "d": True}, "e": "gpt", "f": "x y"}
    for wrong in ("a.b", "=3", "a..b=3"):
        with pytest.raises(MoreishError, match="name=value"):
            from_assignments([wrong])
    assert from_assignments(['a={b=1, c="x"}']) == {"a": {"b": 1, "c": "x"}}
    with pytest.raises(MoreishError, match=r"--set a: the value is not a TOML table; set every"):
        from_assignments(['a={"b": 1}'])


def test_the_precedence_of_settings() -> None:
    assert resolve({}).train.lr is None
    assert resolve({"model": "bigram"}).train.optimizer == "sgd"
    recipe = {"model": {"name": "bigram"}, "train": {"lr": 7.0}}
    assert resolve(recipe).train.lr == 7
    assert resolve(recipe, {"train": {"lr": 8.0}}).train.lr == 8


def test_a_later_budget_replaces_an_earlier_one() -> None:
    assert resolve({}).train.minutes == 1
    train = resolve({"train": {"steps": 5}}, {"train": {"minutes": 2}}).train
    assert (train.steps, train.minutes) == (None, 2)
    with pytest.raises(MoreishError, match="one of steps and minutes"):
        resolve({"train": {"steps": 5, "minutes": 2}})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"trian": {}}, "unknown setting trian: did you mean 'train'"),
        ({"train": {"lrr": 1}}, "unknown setting train.lrr: did you mean 'lr'"),
        (
            {"model": {"name": "mlp", "hiden": 1}},
            "unknown setting model.hiden: did you mean 'hidden'",
        ),
        ({"train": {"lr": "fast"}}, "train.lr=fast"),
        ({"train": {"lr": -1}}, "train.lr=-1"),
        ({"train": {"lr": float("nan")}}, "train.lr=nan"),
        ({"train": {"lr": float("inf")}}, "train.lr=inf"),
        ({"train": {"steps": 0}}, "train.steps=0: give 1 or more"),
        ({"train": {"steps": 1.5}}, "train.steps=1.5"),
        ({"train": {"batch_size": 0}}, "train.batch_size=0: give 1 or more, or all"),
        ({"train": 3}, "train=3: it is a group"),
        ({"data": {"kind": "prose"}}, "data.kind='prose': give 'lines', 'text' or 'examples'"),
        ({"data": {"split": "random"}}, "data.split='random'"),
        ({"model": {"name": 3}}, "model.name=3"),
        ({"model": {"name": {"a": 1}}}, "setting model.name: it must be the name"),
        ({"train": {"steps": {"a": 1}}}, "setting train.steps: give an integer"),
        (
            {"model": {"name": "hybrid", "network": {"layers": "x"}}},
            "setting model.layers='x': give an integer",
        ),
        (
            {"model": {"name": "hybrid", "network": {"name": "ngram"}}},
            "setting model.network: this needs a network that is trained by gradients, not ngram",
        ),
        (
            {"model": {"name": "hybrid", "network": "gpt"}},
            "setting model.network=gpt: it is a group of settings",
        ),
        ({"model": "gtp"}, "did you mean 'gpt'"),
        ({"seed": -1}, "seed=-1: give 0 or more"),
        (
            {"model": {"name": "bigram", "context": 5}},
            "unknown setting model.context: bigram has no such setting (known: name)",
        ),
        ({"model": "x"}, "unknown model 'x': known: auto, bigram, "),
        ({"model": "GPT"}, "did you mean 'gpt'"),
    ],
)
def test_errors_name_the_wrong_setting(tree: dict, message: str) -> None:
    with pytest.raises(MoreishError) as error:
        resolve(tree)
    assert message in str(error.value) and "{" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_config_survives_json() -> None:
    config = resolve({"model": {"name": "mlp", "context": 3}, "train": {"epochs": 2}, "seed": 5})
    assert resolve(config.model_dump(mode="json")) == config


def test_missing_or_invalid_recipes_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match="no such recipe"):
        from_toml(tmp_path / "missing.toml")
    (tmp_path / "bad.toml").write_text("a = ")
    with pytest.raises(MoreishError, match="not a valid TOML recipe"):
        from_toml(tmp_path / "bad.toml")


def test_deprecated_names_are_renamed_with_a_warning() -> None:
    old = {"train": {"recompute": True, "lr": 1.0}}
    with pytest.warns(FutureWarning, match="train.recompute is deprecated; use train.activation"):
        config = resolve({"train": {"activation_checkpointing": False}}, old)
    assert config.train.activation_checkpointing is True
    assert resolve(old, warn=False) == config  # as for the settings stored in a run.json
    with pytest.raises(MoreishError, match=r"old name of .*: give only train\.activation_check"):
        resolve({"train": {"recompute": True, "activation_checkpointing": True}}, warn=False)


def test_names_of_a_model_hold_inside_a_hybrid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moreish.settings.RENAMED", {"model.depth": "model.layers"})
    tree = {"model": {"name": "hybrid", "network": {"depth": 2}}}
    assert migrate(tree, warn=False) == {"model": {"name": "hybrid", "network": {"layers": 2}}}


def test_removed_settings_may_have_their_former_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moreish.settings.REMOVED", {"model.museum": True})
    assert migrate({"model": {"museum": True}}) == {"model": {}}
    with pytest.raises(MoreishError, match=r"model\.museum=False was removed"):
        migrate({"model": {"museum": False}})
