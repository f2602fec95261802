"""How the bytes of a file are encoded: known from marks and zeros, or guessed from the letters."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from moreish.data.text.decode import BOMS, text_file
from moreish.data.text.patterns import masked
from moreish.errors import MoreishError

CANDIDATES = ("cp1252", "cp1254", "cp1250", "iso8859-2", "mac_roman", "cp850", "cp1251", "koi8-r",
              "gb18030", "shift_jis", "big5")  # fmt: skip
"""What text that is not Unicode is encoded in, mostly; of equally likely ones the first is named
first."""

LOOKED_AT = 1 << 16
"""Bytes that are guessed from."""

MOST_ODD = 0.2
"""Share of odd characters, among those that are not ASCII, of what is still a guess."""

GUESSED = 10
"""Files of a folder that are guessed at: in all others there may be only pictures."""

SHOWN_BESIDE = 20
"""Characters to either side of the one at which guesses differ."""

BESIDE_LETTERS = "\u00a0«»‘’“”–—…®™°ªº"
"""Signs that stand beside a letter; between two of them only a few do."""
BETWEEN_LETTERS = "’–—…"


class Guess(NamedTuple):
    """An encoding that a file may be in."""

    encoding: str
    sure: bool
    shown: str = ""
    """How a piece of the text, without secrets, reads in this one and in others, for a person to
    judge."""

    @property
    def words(self) -> str:
        """For messages."""
        return f"{'' if self.sure else 'perhaps '}--encoding {self.encoding}"


def guess_encoding(path: Path) -> Guess | None:
    """What the bytes of a file look like: None where it is no file, no text, or hard to tell."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(LOOKED_AT)
    for name, mark in BOMS.items():
        if head.startswith(mark):
            return Guess(name, sure=True)
    wide = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be") if 0 in head else ()
    for name in (*wide, "utf-8"):
        text = head[: len(head) // 4 * 4].decode(name, "replace")
        letters = [character for character in text if character.isalpha()]
        plain = sum(map(str.isascii, letters)) >= 0.6 * len(letters) > 0
        if "\0" not in text and (name == "utf-8" or plain) and _is_in(path, name):
            return Guess(name, sure=True)
    return None if 0 in head else _guess_from_letters(path)


def first_guess(paths: Iterable[Path]) -> tuple[Path, Guess] | None:
    """Of some files that are not in the encoding that was asked for, the first that looks like
    text, and how."""
    for path in islice(paths, GUESSED):
        if guess := guess_encoding(path):
            return path, guess
    return None


def _is_in(path: Path, encoding: str) -> bool:
    try:
        _ = text_file(path, encoding).survey
    except MoreishError:
        return False
    return True


def _guess_from_letters(path: Path) -> Guess | None:
    """Where one byte means one letter in each of many encodings: of those in which most of the
    text looks like words, the likeliest, with what it makes of a line, and what others do."""
    lines = _lines_beyond_ascii(path)
    odd: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    for name in CANDIDATES:
        try:
            texts[name] = [line.decode(name) for line in lines]
        except UnicodeError:
            continue
        odd[name] = _odd("\n".join(texts[name]))
    likely = sorted((n for n in odd if odd[n] <= MOST_ODD), key=odd.__getitem__)  # stable
    different = {"\n".join(texts[n]): n for n in reversed(likely)}  # the first of equal ones
    distinct = (n for n in likely if n in different.values() and _is_in(path, n))
    chosen = list(islice(distinct, 3))
    if not chosen:
        return None
    which = max(range(len(lines)), key=lambda at: len({texts[n][at] for n in chosen}))
    read = {n: masked(texts[n][which].strip()) for n in chosen}
    at = next(
        (at for at, found in enumerate(zip(*read.values(), strict=False)) if len(set(found)) > 1),
        next((at for at, c in enumerate(read[chosen[0]]) if not c.isascii()), 0),
    )
    cut = slice(max(0, at - SHOWN_BESIDE), at + SHOWN_BESIDE)
    shown = " | ".join(f"{name}: {text[cut]}" for name, text in read.items())
    return Guess(chosen[0], sure=False, shown=shown)


def _lines_beyond_ascii(path: Path) -> list[bytes]:
    """The first ones, wherever they stand."""
    found, size = [], 0
    with path.open("rb") as file:
        while size < LOOKED_AT and (line := file.readline(LOOKED_AT)):
            if not line.isascii():
                found.append(line)
                size += len(line)
    return found


def _odd(text: str) -> float:
    """The share of characters beyond ASCII that hardly stand in words as they do here: signs
    beside letters, capitals after small letters or all through, other scripts' letters beside
    Latin ones, and Latin words in which most letters have accents."""
    if any((c < " " and c not in "\t\n\r\f\v") or "\x7f" <= c <= "\x9f" for c in text):
        return 1.0
    odd = count = 0
    for at, c in enumerate(text):
        if c.isascii():
            continue
        count += 1
        before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
        if not c.isalpha():
            beside = before.isalpha() + after.isalpha()
            odd += beside == 2 and c not in BETWEEN_LETTERS
            odd += beside == 1 and c not in BESIDE_LETTERS
        elif c <= "\u024f":
            odd += (
                (before.islower() and c.isupper())
                or (_accented(before) and _accented(text[max(0, at - 2) : at][:1]))
                or (before > "\u024f" and before.isalpha())
            )
        else:
            odd += (
                (before.isalpha() and before <= "\u024f")
                or (after.isalpha() and after <= "\u024f")
                or (c.isupper() and (before.isalpha() or not after.islower()))
                or "\uff61" <= c <= "\uff9f"  # narrow katakana, which only machines write
            )
    return odd / max(1, count)


def _accented(character: str) -> bool:
    return character.isalpha() and not character.isascii()
