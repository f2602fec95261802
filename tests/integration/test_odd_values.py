"""Values that fail before or beside their validation: in parsing, as paths, as names of codecs."""

import codecs
import io
import json
from encodings import aliases
from pathlib import Path

import pytest
import typer
from typer.core import TyperOption

from conftest import STORY, Moreish, Proved, Result, repetitions
from moreish.cli import app
from moreish.config import DataConfig, RunConfig, TrainConfig
from moreish.data.text.decode import decode_chunks
from moreish.errors import MoreishError
from moreish.models import REGISTRY, model_class
from moreish.options import OPTIONS, flag
from moreish.runs.run import Run

ODD = [
    "", " ", "\0", "a\0b", "~nosuchuser/x", "~nosuchuser", "hf:", "hf:~nosuchuser/x", "hf:a\0b",
    "hf:\0", "hf:./x y", "x" * 300, "x" * 5000, "x/" * 3000, "a\nb", "\x1b[31m", "\x7f", "%s[red]",
    "\u202ex", "é", "\ufffe", "-", "--x", "https://example.org/x", "file:///x", "-1", "cpu:99",
    "cuda:-1", "cpu:" + "9" * 99, "cpu:x", "auto,", ",", "tensorboard,x", "None", "null", "[]",
    "..\\x", "nosuch/../x", "nosuch/x", "/dev/null/x", "http://[",
]  # fmt: skip
"""None of them is valid anywhere, except where a name may be any text."""

SURROGATES = ["\udcff", "a\udc80/b"]
"""Bytes of the command line that are not UTF-8; TOML cannot contain them."""

NUMBERS = [
    "9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 5000, "1_" * 3000 + "1",
    "1" + "0" * 400, "1e99999", "-1e99999", "0." + "0" * 5000 + "1", "inf", "-nan", "1979-05-27",
    "1979-05-27T07:32:00Z", "07:32:00", "[" * 300 + "]" * 300, "[" * 50_000,
    "{a=" * 99 + "1" + "}" * 99,
    f"[{'9' * 5000}]", f"[0x{'f' * 5000}]", f"{{a = 0x{'f' * 5000}}}", "[1979-05-27]", "[[]]",
    '"""\n"""', "'''x'''", '"\\u0000"', '"\\ud800"', '"\\x"', "+1", "+", "''", "tru", "2000-99-99",
]  # fmt: skip
"""Values of TOML, and nearly such."""


MODEL_FIELDS = [
    (model, f"model.{name}")
    for model in REGISTRY
    for name in model_class(model).Config.model_fields
    if name != "name"
]

FIELDS = [
    *(("bigram", name) for name in RunConfig.model_fields if name != "model"),
    *(("bigram", f"data.{name}") for name in DataConfig.model_fields),
    *(("bigram", f"train.{name}") for name in TrainConfig.model_fields),
    ("bigram", "model.name"),
    ("hybrid", "model.network.name"),
    *MODEL_FIELDS,
]
"""All settings, each with a model that has it."""

FLAGS = {option.setting: flag(name) for name, option in OPTIONS.items()}


def is_refused(result: Result) -> bool:
    """Whether a command printed one line about an error; it may succeed instead, but not fail."""
    assert "Traceback" not in result.out + result.err
    if result.status == 0:
        return False
    assert result.status == 2, result.err[-2000:]
    assert result.err.startswith("moreish: ") and result.err.count("\n") == 1
    assert 20 < len(result.err) < 2000
    return True


def recipe(model: str, field: str, value: str) -> str:
    """A recipe with a TOML value for one setting."""
    group, _, name = field.rpartition(".")
    lines = ["seed = 1" if field != "seed" else "", f"{name} = {value}" if not group else ""]
    if field != "model.name":
        lines += ["[model]", f'name = "{model}"']
        if group == "model":
            lines.append(f"{name} = {value}")
    if group and (group != "model" or name == "name"):
        lines += [f"[{group}]", f"{name} = {value}"]
    return "\n".join(lines)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A text on which a tiny model trains in a moment."""
    (tmp_path / "names.txt").write_text("\n".join(f"anna{n}" for n in range(60)))
    return tmp_path / "names.txt"


@pytest.mark.repeated
@pytest.mark.parametrize("number", range(len(FIELDS)), ids=[f"{m}-{f}" for m, f in FIELDS])
def test_odd_settings(number: int, source: Path, moreish: Moreish, proved: Proved) -> None:
    """In a recipe, with --set and with the option of its own."""
    model, field = FIELDS[number]
    text = [json.dumps(value).replace("\x7f", "\\u007f") for value in ODD]
    values = [*text, *NUMBERS]
    if repetitions(10) < 10:  # in `make test` each setting meets a twentieth of the values
        values = values[number % 20 :: 20]
    budget = "steps" if field not in ("train.steps", "train.minutes", "train.epochs") else ""
    size = ["--steps", "1"] if budget else []
    counts = {"values": 0, "rejected": 0}
    for value in values:
        Path("recipe.toml").write_text(recipe(model, field, value), "utf-8")
        named = ["--model", model] if field != "model.name" else []
        place = [source] if field != "data.source" else []
        common = [*place, *size, "--out", "r", "--overwrite"]
        commands = [
            ["train", *common, "--config", "recipe.toml"],
            ["train", *common, *named, f"--set={field}={value}"],
        ]
        if value in text and field in FLAGS and (field, model) != ("model.name", "bigram"):
            commands.append(["train", *common, *named, f"{FLAGS[field]}={json.loads(value)}"])
        if (field, value) == ("train.minutes", "+1"):
            continue  # it is valid and slow
        for command in commands:
            counts["values"] += 1
            counts["rejected"] += is_refused(moreish(*command))
    assert counts["rejected"] >= counts["values"] // 2
    proved(9, "odd values of settings in recipes, with --set and as options", counts)


ARGUMENTS: dict[str, list[str]] = {
    "train": ["names.txt", "--model=bigram", "--steps=1", "--out=r", "--overwrite"],
    "plan": ["names.txt", "--model=bigram", "--steps=1"],
    "prepare": ["names.txt", "--out=p", "--overwrite"],
    "sample": ["RUN", "-n1"],
    "eval": ["RUN"],
    "figures": ["RUN"],
    "report": ["RUN"],
    "novelty": ["RUN", "-n1"],
    "compare": ["RUN", "RUN"],
    "ladder": ["names.txt", "--rungs=counts", "--out=l", "--overwrite"],
    "lr-range": ["names.txt", "--model=bigram", "--steps=10"],
    "doctor": ["names.txt"],
    "tokenize": ["names.txt"],
    "data show": ["names"],
    "data get": ["names"],
    "import": ["names.txt", "--out=i"],
    "export": ["RUN", "--to=nothing"],
    "serve": ["RUN", "--port=0"],
}
"""Arguments with which the commands do something quick."""


def all_parameters() -> list[tuple[str, str | None]]:
    """The commands with each of their options that has a value, and with None for an argument."""
    found: list[tuple[str, str | None]] = []
    commands = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for name, command in list(commands.items()):
        commands.update({f"{name} {k}": c for k, c in getattr(command, "commands", {}).items()})
    for name in ARGUMENTS:
        found.append((name, None))
        options = [p for p in commands[name].params if isinstance(p, TyperOption)]
        found += [(name, option.opts[0]) for option in options if not option.is_flag]
    return found


PARAMETERS = all_parameters()


@pytest.mark.repeated
@pytest.mark.parametrize("number", range(len(PARAMETERS)), ids=[f"{c}-{p}" for c, p in PARAMETERS])
def test_odd_options_and_arguments(
    number: int,
    source: Path,
    small_run: Run,
    moreish: Moreish,
    monkeypatch: pytest.MonkeyPatch,
    proved: Proved,
) -> None:
    """Every command with odd values of every option and of its first argument."""
    monkeypatch.setattr("moreish.serve.server.Service.run", lambda service: service.close())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    command, name = PARAMETERS[number]
    arguments = [a if a != "RUN" else str(small_run.path) for a in ARGUMENTS[command]]
    values = [*(value for value in ODD if "\0" not in value), *SURROGATES]
    if repetitions(10) < 10:  # in `make test` each meets one value, those that draw none
        values = [] if name == "--text" else [values[number % len(values)]]
    counts = {"commands": len(values), "rejected": 0}
    for value in values:
        if name is None:
            odd = [*arguments[1:], "--", value]
        else:
            odd = [*arguments, f"{name}={value}" if name.startswith("--") else f"{name}{value}"]
        counts["rejected"] += is_refused(moreish(*command.split(), *odd))
    proved(9, "odd values of the options and arguments of all commands", counts)


@pytest.mark.parametrize("encoding", [*ODD, *SURROGATES, *sorted({*aliases.aliases.values()})])
def test_every_codec_decodes_or_rejects(encoding: str) -> None:
    for content in (STORY.encode(), b"", bytes(range(256)), "é€😀".encode("utf-16")):
        try:
            text = "".join(decode_chunks(io.BytesIO(content), encoding, "text.txt"))
        except MoreishError as error:
            assert len(str(error)) > 20
        else:
            assert codecs.lookup(encoding) and isinstance(text, str)
