"""Errors of the Python API name arguments, and those of the command line flags."""

import ast
import inspect
import re
import tempfile
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import moreish
from conftest import Moreish
from moreish import api
from moreish.errors import MoreishError
from moreish.options import OPTIONS, TYPES, flag
from moreish.python_errors import SWITCHES, name_arguments
from moreish.runs.run import Run

PACKAGE = Path(moreish.__file__).parent


def messages() -> list[str]:
    """The text of every error outside the command line and the server; values are `x`."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("cli", "serve"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MoreishError":
                parts = getattr(node.args[0], "values", [node.args[0]])
                found.append("".join(str(getattr(part, "value", "x")) for part in parts))
    return [re.sub("<ast[^>]*>", "x", message) for message in found]


def test_no_error_of_the_package_keeps_a_flag() -> None:
    found = [message for message in messages() if "--" in message]
    assert len(found) > 60
    kept = [m for m in found if "--" in name_arguments(m).replace("pip install --upgrade", "")]
    assert kept == []


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_translated(name: str) -> None:
    spelling = flag(name)
    assert name_arguments(f"leave {spelling} out") in (
        f"leave {name}= out",
        f"leave {name}=True out",
    )
    if bool not in get_args(TYPES[name]) and name != "weights":
        assert name_arguments(f"{spelling} 5: too few") == f"{name}=5: too few"
        assert name_arguments(f"{spelling} a b: no") == f"{name}='a b': no"
        assert name_arguments(f"use {spelling} tiny, or less") == f"use {name}='tiny', or less"
    setting = OPTIONS[name].setting
    assert name_arguments(f"setting {setting}=x: wrong") == f"{name}=x: wrong"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("runs/a has none: moreish train --resume 'a b'", "runs/a has none: moreish.resume('a b')"),
        ("train it longer: moreish train --resume runs/a --minutes 5",
         "train it longer: moreish.resume('runs/a', minutes=5)"),
        ("a list of lines (if not: --as text)", "a list of lines (if not: kind='text')"),
        (f"{tempfile.gettempdir()}/moreish-ab_1/text.txt is empty", "the text is empty"),
        ("resume with moreish train --resume runs/a", "resume with moreish.resume('runs/a')"),
        ("see moreish eval a --stride 8; or --test", "see moreish eval a --stride 8; or test=True"),
        ("--weight a=0: no", "weights={'a': 0}: no"),
        ("--set train.parallel=ddp fits", "settings={'train': {'parallel': 'ddp'}} fits"),
        ("a lower --set train.lr (it was 1)", "a lower train.lr in settings= (it was 1)"),
        ("-n 0: ask for one", "n=0: ask for one"),
        ("--regex a: b: no", "regex='a': b: no"),
        ("--ends a --length 3..: that takes --max-tokens 9 or more",
         "ends='a' length='3..': that takes max_tokens=9 or more"),
        ("e.g. --init-from hf:FOLDER", "e.g. init_from='hf:FOLDER'"),
        ("setting model.layers=0: wrong", "setting model.layers=0: wrong"),
        ("a - b -- c, well-known", "a - b -- c, well-known"),
        ("findings: moreish doctor 'a b.txt' --as lines --encoding cp1252",
         "findings: moreish.doctor('a b.txt', kind='lines', encoding='cp1252')"),
        ("to fix: moreish train a.txt --clean --min-count 5",
         "to fix: moreish.train('a.txt', clean=True, min_count=5)"),
        ("train it: moreish train a.txt --model gpt",
         "train it: moreish.train('a.txt', model='gpt')"),
        ("no file 'hello'; a text itself goes to standard input, -",
         "no file 'hello'; a text itself goes in text=, and items in a list"),
    ],
)  # fmt: skip
def test_messages(message: str, expected: str) -> None:
    assert name_arguments(message) == expected
    assert name_arguments(expected) == expected


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("sample", {"n": "3"}, "n='3': give an int"),
        ("sample", {"n": 2.5}, "n=2.5: give an int"),
        ("sample", {"n": True}, "n=True: give an int"),
        ("sample", {"n": None}, "n=None: give an int"),
        ("sample", {"prompt": b"T"}, "prompt=b'T': give a str"),
        ("sample", {"seed": 1.5}, "seed=1.5: give an int or None"),
        ("sample", {"stop": 3}, "stop=3: give a str or a list of str"),
        ("sample", {"length": (8, 10)}, "length=(8, 10): give a str, an int or None"),
        ("sample", {"unique": 1}, "unique=1: give a bool"),
        ("next", {"prompt": None}, "prompt=None: give a str"),
        ("stream", {"prompt": None}, "prompt=None: give a str"),
        ("surprisal", {"text": ["a"]}, "text=['a']: give a str"),
        ("novelty", {"texts": "soup"}, "texts='soup': give a list of str"),
        ("novelty", {"texts": ["a", 1]}, "texts[1]=1: give a str"),
        ("evaluate", {"stride": "a"}, "stride='a': give an int or None"),
        ("evaluate", {"progress": 1}, "progress=1: give a function or None"),
        ("split", {"name": "valid"}, "unknown split 'valid': did you mean 'val'?"),
    ],
)
def test_arguments_of_methods_have_types(
    small_run: Run, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(MoreishError, match=f"^{re.escape(message)}$"):
        getattr(small_run, method)(**arguments)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("train", {"source": 5}, "source=5: give a str, a Path, a list of str or Path or None"),
        ("train", {"text": 5}, "text=5: give a str or None"),
        ("train", {"settings": "lr=1"}, "settings='lr=1': give a dict or None"),
        ("train", {"report": 5}, "report=5: give a function or None"),
        ("train", {"minutes": "1"}, "minutes='1': give a float or None"),
        ("train", {"kind": 5}, "kind=5: give 'lines', 'text', 'examples' or None"),
        ("train", {"kind": "prose"}, "kind='prose': give 'lines', 'text' or 'examples'"),
        ("load", {"path": None}, "path=None: give a str or a Path"),
        ("resume", {"path": None}, "path=None: give a Run, a str or a Path"),
    ],
)
def test_arguments_of_functions_have_types(
    function: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(MoreishError, match=f"^{re.escape(message)}$"):
        getattr(moreish, function)(**arguments)


def test_types_that_fit(small_run: Run) -> None:
    assert small_run.sample(np.int64(3), seed=1) == small_run.sample(3, seed=1)
    assert small_run.sample(temperature=np.float32(0.5), seed=1) == (
        small_run.sample(temperature=0.5, seed=1)
    )
    assert [len(text) for text in small_run.sample(3, length=5)] == [5, 5, 5]
    texts = np.array(["anna", "bob"])
    assert small_run.novelty(texts) == small_run.novelty(["anna", "bob"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="did you mean 'model'"):
        moreish.train("names", modle="gpt")
    with pytest.raises(MoreishError, match=r"^runs=5: give a Run, a str, a Path or a list of "):
        moreish.compare(small_run, 5)  # type: ignore[arg-type]


def test_every_switch_is_known() -> None:
    functions = [getattr(moreish, name) for name in moreish.__all__]
    public = [*(f for f in functions if not isinstance(f, type)), Run.sample, Run.evaluate]
    for function in [*public, api.import_hf, api.export]:
        for name, hint in get_type_hints(inspect.unwrap(function)).items():
            if {hint, *get_args(hint)} - {NoneType} == {bool}:
                assert name in SWITCHES, (function, name)


def test_python_and_the_command_line_speak_their_own_language(
    small_run: Run, moreish: Moreish
) -> None:
    import moreish as package

    for _ in range(2):  # the one does not change the other
        with pytest.raises(MoreishError, match=r"another out=, or replace it with overwrite=True$"):
            package.train("names", model="ngram", out=small_run.path)
        assert "another --out, or replace it with --overwrite" in (
            moreish("train", "names", "--model", "ngram", "--out", small_run.path).err
        )
        with pytest.raises(MoreishError, match=r"^max_tokens=0: give at least 1$"):
            small_run.sample(1, max_tokens=0)
        assert "--max-tokens 0: give" in moreish("sample", small_run.path, "--max-tokens", 0).err


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert moreish.__version__ == version("moreish")
    assert "__version__" in dir(moreish)


def test_a_text_in_memory_is_shown_without_its_temporary_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    items = ["anna", "otto", "anna", "mail me at a.b@example.com", "zero\u200bwidth"] * 9
    for output in (
        str(moreish.doctor(items)),
        str(moreish.train(items, steps=7, out=tmp_path / "r")) + capsys.readouterr().out,
    ):
        assert "clean=True" in output and "dedup=True" in output
        assert "--" not in output and "moreish-" not in output.replace(str(tmp_path), "")
    assert "All findings: moreish.doctor(…, kind='lines')" in output
    assert "9 e-mail addresses, which a model may reproduce" in output
    assert "this model" in output and "moreish sample" not in output
    assert "They are counted once: steps=7 is not used." in output
