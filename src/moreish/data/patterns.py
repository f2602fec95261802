"""What the doctor finds by how it looks: garbled and invisible characters, addresses, secrets."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moreish.data.mend import CONTROL, INVISIBLE

SHOWN = 60
"""Characters of an example."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """Something that a regular expression finds."""

    name: str
    regex: re.Pattern[str]
    what: str
    points: frozenset[int] = frozenset()
    """Code points of which one occurs in all that it finds; none: that is not known."""
    hints: tuple[str, ...] = ()
    """Words, in small letters, of which one occurs in all that it finds; none: likewise."""
    holds: Callable[[str], bool] = lambda found: True
    """A closer look at what the expression found."""
    mend: str = ""
    grave: bool = False
    secret: bool = False
    """Whether the example must not show what was found."""


SMALL_POINTS = "".join(map(chr, [*range(0x3000), *range(0xFE00, 0x10000)]))


def _points(characters: str) -> frozenset[int]:
    """The code points of a class of characters, as regular expressions write it."""
    return frozenset(map(ord, re.findall(f"[{characters}]", SMALL_POINTS)))


def _doubly_encoded(text: str) -> bool:
    """Whether it is UTF-8 that somebody took for Windows-1252 (or its gaps for Latin-1)."""
    try:
        raw = b"".join(c.encode("latin-1" if "\x80" <= c <= "\x9f" else "cp1252") for c in text)
        return raw.decode("utf-8") != text
    except UnicodeError:
        return False


def _telephone(text: str) -> bool:
    """Groups of two to five digits, nine to fifteen in all, or all at once after a plus; no date,
    and no address of a computer."""
    if text[0] == "+" and text[1:].isdigit():
        return 10 <= len(text) <= 16
    groups = re.findall(r"\d+", text)
    other = r"(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d\b|\d{1,3}(?:\.\d{1,3}){3}$"
    like = 3 <= len(groups) <= 6 and all(2 <= len(group) <= 5 for group in groups)
    return like and 9 <= sum(map(len, groups)) <= 15 and not re.match(other, text)


def _card(digits: str) -> bool:
    """The checksum of card numbers (Luhn)."""
    figures = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * figure, 10)) for figure in figures[-2::-2]]
    return len(set(figures)) > 1 and (sum(doubled) + sum(figures[::-2])) % 10 == 0


def _secret(text: str) -> bool:
    """A key of a known form, or a value that is no plain word."""
    name, _, value = text.replace("=", ":", 1).partition(":")
    return name == text or not value.strip(" \"',;.!?").isalpha()


def masked(text: str) -> str:
    """Without the secrets in it: reports are read by others."""
    for pattern in PATTERNS:
        if pattern.secret:
            text = pattern.regex.sub(
                lambda found, holds=pattern.holds: (  # type: ignore[misc]
                    found[0][:4] + "…" if holds(found[0]) else found[0]
                ),
                text,
            )
    return text


CONTINUES = "[\u0080-\u00bf\u0152-\u0192\u02c6-\u02dc\u2013-\u203a\u20ac\u2122]"
"""A byte of UTF-8 after the first, as Windows-1252 or Latin-1 have it."""

DIGITS = _points("0-9")

PATTERNS = (
    Pattern(
        name="control characters",
        regex=re.compile(f"[{CONTROL}]"),
        points=_points(CONTROL),
        what="control characters",
        mend="--clean",
    ),
    Pattern(
        name="invisible characters",
        regex=re.compile(f"[{INVISIBLE}]"),
        points=_points(INVISIBLE),
        what="characters that cannot be seen (soft hyphens, marks, directions)",
        mend="--clean",
    ),
    Pattern(
        name="lost characters",
        regex=re.compile("\ufffd"),
        points=frozenset([0xFFFD]),
        what="characters that an earlier conversion lost (U+FFFD)",
        grave=True,
    ),
    Pattern(
        name="mojibake",
        regex=re.compile(
            f"[\u00c2-\u00df]{CONTINUES}|[\u00e0-\u00ef]{CONTINUES}{{2}}|[\u00f0-\u00f4]{CONTINUES}{{3}}"
        ),
        points=_points("\u00c2-\u00f4"),
        what="places that look like UTF-8 taken for Windows-1252",
        holds=_doubly_encoded,
        grave=True,
    ),
    Pattern(
        name="secrets",
        regex=re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_\w{36,}"
            r"|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bsk-[\w-]{20,}"
            r"|(?<![\w-])eyJ[\w-]{10,999}\.eyJ[\w-]{10,999}\.[\w-]{10,999}"
            r"|(?i:(?<![^\W_])(?:password|passwd|secret|api[_-]?key|access[_-]?token)[\"']?\s{0,9}"
            r"[:=]\s{0,9}[\"']?[^\s\"']{8,})"
        ),
        hints=("private key", "akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "aiza", "sk-",
               "eyj", "passw", "secret", "apikey", "api_key", "api-key", "accesstoken",
               "access_token", "access-token"),
        what="passwords, keys or tokens, perhaps; take them out before you train",
        holds=_secret,
        grave=True,
        secret=True,
    ),
    Pattern(
        name="e-mail addresses",
        regex=re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}\b"),
        points=frozenset([ord("@")]),
        what="e-mail addresses, which a model may repeat",
    ),
    Pattern(
        name="telephone numbers",
        regex=re.compile(r"(?<![\w.+])(?:\+\d{9,15}|\d[\d ()./-]{8,20}\d)(?!\w|[.-]\d)"),
        points=DIGITS,
        what="telephone numbers, perhaps, which a model may repeat",
        holds=_telephone,
    ),
    Pattern(
        name="card numbers",
        regex=re.compile(r"(?<![\d.])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,4}(?!\d)"),
        points=DIGITS,
        what="numbers of payment cards, perhaps; take them out before you train",
        holds=_card,
        grave=True,
        secret=True,
    ),
)  # fmt: skip


def matches(pattern: Pattern, text: str) -> Iterator[re.Match[str]]:
    """All that the expression finds; where it has hints, only lines with one are looked at."""
    small = text.lower() if pattern.hints else ""
    if not pattern.hints or len(small) != len(text):  # a few capitals are two small letters
        yield from pattern.regex.finditer(text)
        return
    lines = set()
    for hint in pattern.hints:
        at = small.find(hint)
        while at >= 0:
            begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            end = len(text) if end < 0 else end
            lines.add((begin, end))
            at = small.find(hint, end)
    for begin, end in sorted(lines):
        yield from pattern.regex.finditer(text, begin, end)


def around(text: str, start: int, end: int) -> str:
    """What was found, and what stands beside it in its line, without secrets."""
    begin, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    line = masked(text[max(begin, start - 2000) : min(last, end + 2000)])
    at = max(0, line.find(text[start:end]))
    cut = max(0, at - SHOWN // 3)
    return ("…" if cut else "") + line[cut:]
