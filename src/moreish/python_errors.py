"""Errors of the Python API name keyword arguments where those of the command line name flags.

Messages are written once, with flags. The functions and methods that people call from Python
translate them, except while the command line runs.
"""

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, get_args

from moreish.errors import MoreishError
from moreish.options import OPTIONS, TYPES, flag
from moreish.utils.files import is_in_memory

F = TypeVar("F", bound=Callable)

ARGUMENTS = {flag(name): name for name in OPTIONS} | {"-n": "n"}
"""The argument of every flag whose name is not simply that of the flag."""

SWITCHES = frozenset(
    {name for name in OPTIONS if bool in get_args(TYPES[name])}
    | {"inexact", "new_only", "overwrite", "test", "trust", "unique"}
)
"""Arguments that are true or false, so that their flags take no value."""

PROSE = frozenset({
    "above", "and", "at", "else", "for", "has",
    "holds", "if", "in", "is", "it", "must",
    "need", "needs", "of", "on", "or", "out",
    "takes", "that", "the", "to", "with", "would",
})  # fmt: skip
"""Words after a flag that are not its value."""

_SETTINGS = {option.setting: name for name, option in OPTIONS.items()} | {"run.seed": "seed"}

_INVALID = re.compile(r"^setting ([a-z_.]+)(?==)")
_RESUME = re.compile(r"moreish train --resume ('[^']*'|[^\s:;,)]+)")
_CALL = re.compile(r": moreish (doctor|train) (?=\S)(.+)$")
_COMMAND = re.compile(r"((?:moreish|pip) [a-z][a-z-]*(?: (?:--?)?[\w./=~'-]*\w'?)*)")
_LEADING = re.compile(r"(--[a-z][a-z-]*|-n) ((?:(?! --| is | holds ).)+?)(?=: )")
_SETTING = re.compile(r"--set (?:([a-z_]+)\.([a-z_]+)=([^\s,;:)]+)|([a-z_.]+))")
_FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z-]*[a-z]|-n)(?: ('[^']*'|[^\s,;()]*[^\s,;():]))?")

_PHRASES = {"goes to standard input, -": "goes in text=, and items in a list"}
"""What the command line offers, and what the Python API offers in its place."""

_is_command_line = False


@contextmanager
def flags_in_errors() -> Iterator[None]:
    """Leave errors as the command line prints them while this context is open."""
    global _is_command_line
    before, _is_command_line = _is_command_line, True
    try:
        yield
    finally:
        _is_command_line = before


def names_arguments(function: F) -> F:
    """Decorate a public function: its errors name arguments (`out=`) and not flags (`--out`)."""

    @functools.wraps(function)
    def call(*args: object, **options: object) -> object:
        try:
            return function(*args, **options)
        except MoreishError as error:
            if not _is_command_line:
                error.args = (name_arguments(str(error)),)
            raise

    return call  # type: ignore[return-value]


def spell(message: str) -> str:
    """Return a message as it is where the command line runs; otherwise with `name_arguments`."""
    return message if _is_command_line else name_arguments(message)


def name_arguments(message: str) -> str:
    """Replace the flags in a message by the keyword arguments that they stand for, and commands
    at its end by calls; other command lines in it are left as they are.

    >>> name_arguments("runs/a exists: choose another --out, or replace it with --overwrite")
    'runs/a exists: choose another out=, or replace it with overwrite=True'
    >>> name_arguments("--max-tokens 0: give at least 1")
    'max_tokens=0: give at least 1'
    >>> name_arguments("use --model kneser-ney, or --set train.lr=0.1")
    "use model='kneser-ney', or settings={'train': {'lr': 0.1}}"
    >>> name_arguments("All findings: moreish doctor towns.txt --as lines")
    "All findings: moreish.doctor('towns.txt', kind='lines')"
    """
    for phrase, other in _PHRASES.items():
        message = message.replace(phrase, other)
    message = _INVALID.sub(lambda found: _SETTINGS.get(found[1], found[0]), message)
    message = _RESUME.sub(lambda found: f"moreish.resume({_literal(found[1])})", message)
    if found := _CALL.search(message):
        return f"{name_arguments(message[: found.start()])}: {_call(*found.groups())}"
    if found := _LEADING.match(message):
        return _argument(found[1], found[2]) + name_arguments(message[found.end() :])
    parts = _COMMAND.split(message)
    parts[::2] = (_FLAG.sub(_flag, _SETTING.sub(_setting, part)) for part in parts[::2])
    return "".join(parts)


def _call(name: str, line: str) -> str:
    """Return a command as a call; the temporary file of a text in memory is an ellipsis."""
    words, arguments = shlex.split(line), []
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            arguments.append("…" if word == "-" or is_in_memory(word) else _literal(word))
            continue
        is_switch = ARGUMENTS.get(word, word.lstrip("-").replace("-", "_")) in SWITCHES
        arguments.append(_argument(word, None if is_switch or not words else words.pop(0)))
    return f"moreish.{name}({', '.join(arguments)})"


def _flag(found: re.Match[str]) -> str:
    return _argument(found[1], found[2])


def _argument(spelling: str, value: str | None) -> str:
    name = ARGUMENTS.get(spelling, spelling.lstrip("-").replace("-", "_"))
    rest = "" if value is None else f" {value}"
    if name in SWITCHES:
        return f"{name}=True{rest}"
    if value is None or value in PROSE:
        return f"{name}={rest}"
    if name == "weights":
        source, _, share = value.rpartition("=")
        return f"{name}={{{source or value!r}: {share}}}" if source else f"{name}={value}"
    return f"{name}={_literal(value)}"


def _setting(found: re.Match[str]) -> str:
    group, key, value, name = found.groups()
    if name:
        return f"{name} in settings="
    return f"settings={{{group!r}: {{{key!r}: {_literal(value)}}}}}"


def _literal(value: str) -> str:
    """How Python writes a value of the command line: numbers bare, texts in quotes."""
    if value in ("true", "false"):
        return value.title()
    if re.fullmatch(r"-?\d[\d_]*(\.\d*)?(e-?\d+)?|'.*'|\".*\"|None", value):
        return value
    return repr(value)
