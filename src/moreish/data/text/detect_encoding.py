"""Detects the encoding of a file: by marks and zero bytes, or by how plausible its words look.

docs/dev-log.md compares the guess with that of charset-normalizer.
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from moreish.data.text.decode import BOMS, text_from_file
from moreish.data.text.patterns import mask_secrets
from moreish.errors import MoreishError

CANDIDATES = ("cp1252", "cp1254", "cp1250", "iso8859-2", "mac_roman", "cp850", "cp1251", "koi8-r",
              "gb18030", "shift_jis", "big5")  # fmt: skip
"""Common encodings other than Unicode; of equally plausible ones the first is chosen."""

MAX_BYTES = 1 << 16
"""Bytes of a file that are used for the guess."""

MAX_ODD = 0.2
"""Share of implausible characters, among those beyond ASCII, above which a guess is rejected."""

MAX_FILES = 10
"""Files of a folder that are tried; the others may be images."""

EXAMPLE_MARGIN = 20
"""Characters shown on either side of the first one at which guesses differ."""

BESIDE_LETTERS = "\u00a0«»‘’“”–—…®™°ªº"
"""Signs that are plausible beside a letter."""

BETWEEN_LETTERS = "’–—…"
"""Signs that are plausible between two letters."""


class EncodingGuess(NamedTuple):
    """An encoding that a file may be in."""

    encoding: str
    is_certain: bool
    example: str = ""
    """A line of the text in this encoding and in others, without secrets, so that the user can
    judge."""

    @property
    def option(self) -> str:
        """The command-line option, for messages."""
        return f"{'' if self.is_certain else 'perhaps '}--encoding {self.encoding}"


def guess_encoding(path: Path) -> EncodingGuess | None:
    """Guess the encoding of a file; None if it is not a file, not text, or nothing looks right."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(MAX_BYTES)
    for name, bom in BOMS.items():
        if head.startswith(bom):
            return EncodingGuess(name, is_certain=True)
    wide = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be") if 0 in head else ()
    for name in (*wide, "utf-8"):
        text = head[: len(head) // 4 * 4].decode(name, "replace")
        letters = [character for character in text if character.isalpha()]
        is_mostly_ascii = sum(map(str.isascii, letters)) >= 0.6 * len(letters) > 0
        if "\0" not in text and (name == "utf-8" or is_mostly_ascii) and _can_decode(path, name):
            return EncodingGuess(name, is_certain=True)
    return None if 0 in head else _guess_by_words(path)


def first_guess(paths: Iterable[Path]) -> tuple[Path, EncodingGuess] | None:
    """Return the first of some files that looks like text, and the guess of its encoding."""
    for path in islice(paths, MAX_FILES):
        if guess := guess_encoding(path):
            return path, guess
    return None


def _can_decode(path: Path, encoding: str) -> bool:
    try:
        _ = text_from_file(path, encoding).stats
    except MoreishError:
        return False
    return True


def _guess_by_words(path: Path) -> EncodingGuess | None:
    """Choose among `CANDIDATES` the encoding in which the text looks most like words.

    The example is the line that distinguishes the best three of them.
    """
    lines = _lines_beyond_ascii(path)
    odd: dict[str, float] = {}
    texts: dict[str, list[str]] = {}
    for name in CANDIDATES:
        try:
            texts[name] = [line.decode(name) for line in lines]
        except UnicodeError:
            continue
        odd[name] = _odd_share("\n".join(texts[name]))
    plausible = sorted((n for n in odd if odd[n] <= MAX_ODD), key=odd.__getitem__)  # stable
    by_text = {"\n".join(texts[n]): n for n in reversed(plausible)}  # keeps the first of equals
    distinct = (n for n in plausible if n in by_text.values() and _can_decode(path, n))
    best = list(islice(distinct, 3))
    if not best:
        return None
    number = max(range(len(lines)), key=lambda i: len({texts[n][i] for n in best}))
    readings = {n: mask_secrets(texts[n][number].strip()) for n in best}
    columns = enumerate(zip(*readings.values(), strict=False))
    at = next(
        (i for i, characters in columns if len(set(characters)) > 1),
        next((i for i, c in enumerate(readings[best[0]]) if not c.isascii()), 0),
    )
    cut = slice(max(0, at - EXAMPLE_MARGIN), at + EXAMPLE_MARGIN)
    example = " | ".join(f"{name}: {text[cut]}" for name, text in readings.items())
    return EncodingGuess(best[0], is_certain=False, example=example)


def _lines_beyond_ascii(path: Path) -> list[bytes]:
    """Return the first lines that are not ASCII, wherever in the file they are."""
    found, size = [], 0
    with path.open("rb") as file:
        while size < MAX_BYTES and (line := file.readline(MAX_BYTES)):
            if not line.isascii():
                found.append(line)
                size += len(line)
    return found


def _odd_share(text: str) -> float:
    """Return the share of characters beyond ASCII that are implausible where they are.

    Implausible are: signs beside letters, capitals after small letters or throughout a word,
    letters of another script beside Latin ones, and consecutive accented Latin letters. Control
    characters rule an encoding out.
    """
    if any((c < " " and c not in "\t\n\r\f\v") or "\x7f" <= c <= "\x9f" for c in text):
        return 1.0
    odd = count = 0
    for at, c in enumerate(text):
        if c.isascii():
            continue
        count += 1
        before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
        if not c.isalpha():
            num_letters = before.isalpha() + after.isalpha()
            odd += num_letters == 2 and c not in BETWEEN_LETTERS
            odd += num_letters == 1 and c not in BESIDE_LETTERS
        elif c <= "\u024f":  # Latin
            odd += (
                (before.islower() and c.isupper())
                or (_is_accented(before) and _is_accented(text[max(0, at - 2) : at][:1]))
                or (before > "\u024f" and before.isalpha())
            )
        else:
            odd += (
                (before.isalpha() and before <= "\u024f")
                or (after.isalpha() and after <= "\u024f")
                or (c.isupper() and (before.isalpha() or not after.islower()))
                or "\uff61" <= c <= "\uff9f"  # half-width katakana, rarely used in text
            )
    return odd / max(1, count)


def _is_accented(character: str) -> bool:
    return character.isalpha() and not character.isascii()
