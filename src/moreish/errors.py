"""Errors that a user can fix, and the text of messages."""

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class MoreishError(ValueError):
    """An error that the user can fix; its message is one line that says how.

    The command line prints it and exits with status 2.
    """


class PeerLostError(MoreishError):
    """Another process of the same run died; that process reports the cause."""


def one_line(error: Exception) -> str:
    """The message of another library's error on one line, cut to 200 characters."""
    return " ".join(str(error).split())[:200]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown word: the nearest known one, or all of them.

    >>> nearest("gtp", ["gpt", "mlp"])
    "did you mean 'gpt'?"
    >>> nearest("GPT", ["gpt", "mlp"])
    "did you mean 'gpt'?"
    >>> nearest("x", ["gpt", "mlp"])
    'known: gpt, mlp'
    """
    known = sorted(known)
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word, known, n=1) or [
        lower[name] for name in get_close_matches(word.lower(), lower, n=1)
    ]
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


def command(*words: str | Path) -> str:
    """A command line that can be copied into a shell, with its words quoted where needed.

    >>> command("sample", Path("runs/my names"))
    "moreish sample 'runs/my names'"
    """
    return shlex.join(["moreish", *map(str, words)])


def visible(text: str) -> str:
    """Replace control characters by visible ones, so that generated text cannot control a terminal.

    >>> visible("\\x1b[31m")
    '␛[31m'
    """
    return text.translate(PICTURES)


PICTURES = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: "\u2421",
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
}
