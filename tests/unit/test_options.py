"""The options that are declared once: their flags, keywords and documentation."""

import inspect
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moreish
from moreish.config import DataConfig, RunConfig, TrainConfig
from moreish.models import REGISTRY, model_class
from moreish.options import OPTIONS, flag

ROOT = Path(__file__).parents[2]
REFERENCE = runpy.run_path(str(ROOT / "docs" / "settings_reference.py"))


def test_the_settings_reference_is_current() -> None:
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == REFERENCE["page"](), (
        "make settings"
    )


def test_every_option_and_every_setting_is_described_by_a_full_sentence() -> None:
    settings = {option.setting for option in OPTIONS.values()}
    texts = {flag(name): option.help for name, option in OPTIONS.items()}
    groups: dict[str, Any] = {"": RunConfig, "data.": DataConfig, "train.": TrainConfig}
    groups |= {f"model.{name}.": model_class(name).Config for name in REGISTRY}
    for prefix, config in groups.items():
        described = REFERENCE["field_docstrings"](config)
        for name in config.model_fields.keys() - {"name", "data", "model", "train"}:
            setting = f"model.{name}" if prefix.startswith("model.") else f"{prefix}{name}"
            if setting not in settings or name in described:
                texts[f"{prefix}{name}"] = described.get(name, "")
    wrong = {name: text for name, text in texts.items() if not re.match(r"[A-Z].*\.$", text)}
    assert not wrong


def test_every_option_goes_to_a_setting_that_exists() -> None:
    gpt = model_class("gpt").Config
    groups: dict[str, Any] = {"": RunConfig, "data": DataConfig, "train": TrainConfig, "model": gpt}
    for option in OPTIONS.values():
        group, _, key = option.setting.rpartition(".")
        assert key in groups[group].model_fields, option.setting


@pytest.mark.parametrize("function", [moreish.train, moreish.plan, moreish.doctor])
def test_python_functions_show_their_options(function: Callable) -> None:
    parameters = inspect.signature(function).parameters
    shared = [name for name in OPTIONS if name in parameters]
    assert "kind" in shared and "options" not in parameters
    for name in shared:
        assert f"{name}: {OPTIONS[name].help}" in str(function.__doc__)


def test_an_unknown_keyword_is_named_with_the_nearest_option() -> None:
    with pytest.raises(
        TypeError, match="unexpected keyword argument 'modle': did you mean 'model'"
    ):
        moreish.train("names", modle="mlp")


def test_every_option_is_a_flag_of_train(moreish: Callable) -> None:
    shown = moreish("train", "--help").out
    assert [name for name in OPTIONS if flag(name) not in shown] == []
