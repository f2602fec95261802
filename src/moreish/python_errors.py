"""Errors of the Python API name keyword arguments where those of the command line name flags.

Messages are written once, with flags. The functions and methods that people call from Python
translate them, except while the command line runs, and check the types of their arguments.
"""

import functools
import inspect
import re
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from moreish.errors import MoreishError
from moreish.options import OPTIONS, TYPES, flag
from moreish.utils.files import MEMORY_PREFIX, is_in_memory
from moreish.utils.text import shorten

F = TypeVar("F", bound=Callable)

ARGUMENTS = {flag(name): name for name in OPTIONS} | {"-n": "n"}
"""The argument of every flag whose name is not simply that of the flag."""

SWITCHES = frozenset(
    {name for name in OPTIONS if bool in get_args(TYPES[name])}
    | {"adaptive", "code", "inexact", "new_only", "overwrite", "test", "trust", "unique"}
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
_RESUME = re.compile(r"moreish train --resume ('[^']*'|[^\s:;,)]+)(?: --minutes ([\d.]+))?")
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
    """Decorate a public function: its errors name arguments (`out=`) and not flags (`--out`), and
    it raises MoreishError for an argument of another type than its annotation."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> object:
        try:
            bound = signature.bind(*args, **options)
        except TypeError:  # the function itself says what is wrong
            return function(*args, **options)
        for name, parameter in signature.parameters.items():
            if name not in bound.arguments or parameter.annotation is parameter.empty:
                continue
            value, hint = bound.arguments[name], parameter.annotation
            is_several = parameter.kind is parameter.VAR_POSITIONAL
            values = [checked(each, hint, name) for each in (value if is_several else [value])]
            bound.arguments[name] = tuple(values) if is_several else values[0]
        try:
            return function(*bound.args, **bound.kwargs)
        except MoreishError as error:
            if not _is_command_line:
                error.args = (name_arguments(str(error)),)
            raise

    return call  # type: ignore[return-value]


def checked(value: Any, hint: Any, name: str) -> Any:
    """Return an argument as its annotation wants it: numbers of NumPy as those of Python, and other
    iterables of strings as lists.

    Raises:
        MoreishError: it is of another type.

    >>> checked("3", int | None, "n")
    Traceback (most recent call last):
    moreish.errors.MoreishError: n='3': give an int or None
    """
    for kind in _members(hint):
        origin = get_origin(kind) or kind
        if kind is Any or (origin is Literal and isinstance(value, str)):
            return value
        if origin in (int, float):
            number = Integral if origin is int else Real
            if isinstance(value, number) and not isinstance(value, bool):
                return origin(value) if hasattr(value, "dtype") else value
        elif origin in (Sequence, list):
            if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
                (inner,) = get_args(kind)
                return [checked(each, inner, f"{name}[{at}]") for at, each in enumerate(value)]
        elif isinstance(origin, type) and isinstance(value, origin):
            return value
    shown = shorten(" ".join(repr(value).split()))
    raise MoreishError(f"{name}={shown}: give {_describe(hint)}")


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _describe(hint: Any) -> str:
    """Name the types of an annotation: "a str, an int or None"."""
    words: list[str] = []
    for kind in _members(hint):
        origin = get_origin(kind) or kind
        if origin is NoneType:
            words.append("None")
        elif origin is Literal:
            words += map(repr, get_args(kind))
        elif origin in (Sequence, list, Iterable):
            inner = " or ".join(each.__name__ for each in _members(get_args(kind)[0]))
            words.append(f"a list of {inner}")
        else:
            name = {Mapping: "dict", Callable: "function"}.get(origin, origin.__name__)
            words.append(f"{'an' if name[0] in 'aeiou' else 'a'} {name}")
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


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
    message = _RESUME.sub(_resume, message)
    if found := _CALL.search(message):
        return f"{name_arguments(message[: found.start()])}: {_call(*found.groups())}"
    message = _memory(message)
    if found := _LEADING.match(message):
        return _argument(found[1], found[2]) + name_arguments(message[found.end() :])
    parts = _COMMAND.split(message)
    parts[::2] = (_FLAG.sub(_flag, _SETTING.sub(_setting, part)) for part in parts[::2])
    return "".join(parts)


def _resume(found: re.Match[str]) -> str:
    longer = f", minutes={found[2]}" if found[2] else ""
    return f"moreish.resume({_literal(found[1])}{longer})"


def _memory(message: str) -> str:
    """Replace the temporary file of a text or of items in memory by what it is."""
    folder = re.escape(tempfile.gettempdir())
    pattern = rf"{folder}[\\/]{MEMORY_PREFIX}\w+[\\/](text|items)\.(?:txt|csv)"
    return re.sub(pattern, r"the \1", message)


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
