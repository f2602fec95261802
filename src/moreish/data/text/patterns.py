"""What the doctor finds by how it looks: garbled and invisible characters, addresses, secrets."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from moreish.data.text.clean import BREAKS, C1, CONTROL, INVISIBLE, SPACES, UNJOINING

Severity = Literal["warning", "note"]

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
    fix: str = ""
    severity: Severity = "note"
    secret: bool = False
    """Whether the example must not show what was found."""


AROUND = 4000
"""Characters before and after a hint that are looked at: what is found is shorter."""

MISREAD = "misread characters"
"""A finding that another encoding may mend."""

SMALL_POINTS = "".join(
    map(chr, [*range(0x3200), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0080)])
)


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


TELEPHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"(?:\+|00)[1-9](?:[ ()./-]{0,3}\d){7,14}"  # from anywhere: +33 1 23 45 67 89
    r"|\(?0[1-9]\d{0,3}\)?(?:[ /.-]{1,3}\d{2,8}){1,4}"  # from elsewhere in the land: 030 12345678
    r"|(?:1[-. ])?\(?[2-9]\d\d\)?[-. ]{1,2}\d{3}[-. ]\d{4}"  # North America: (555) 123-4567
    r"|[78][ -]?\(?\d{3}\)?[ -]{1,2}\d{3}[ -]\d\d[ -]\d\d"  # Russia: 8 (495) 123-45-67
    r"|\d{2,5}(?:-\d{2,5}){2,5}"
    r")(?!\w|[.:-]\d)"
)

NO_TELEPHONE = re.compile(
    r"(?:19|20)\d\d([-./ ])[01]?\d\1[0-3]?\d\b"  # 1999-12-31
    r"|[0-3]?\d([-./])[0-3]?\d\2(?:19|20)?\d\d(?!\2|\d)"  # 31.12.1999
    r"|\+\d+\.\d+$"
)
"""What begins with a date, and decimal fractions."""


def _telephone(text: str) -> bool:
    """Eight to fifteen digits after a sign of another land, else nine to thirteen."""
    digits = sum(map(str.isdigit, text))
    if NO_TELEPHONE.match(text):
        return False
    return text.startswith(("+", "00")) or 9 <= digits <= 13


def _card(digits: str) -> bool:
    """The checksum of card numbers (Luhn)."""
    figures = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * figure, 10)) for figure in figures[-2::-2]]
    return len(set(figures)) > 1 and (sum(doubled) + sum(figures[::-2])) % 10 == 0


def _secret(text: str) -> bool:
    """A key of a known form, or a value that is neither a plain word nor a piece of a program."""
    if text.startswith("sk-"):  # or the name of something: sk-a-long-name
        return any(len(part) >= 16 and NUMERAL.search(part) for part in re.split("[-_]", text[3:]))
    named = NAMED.match(text)
    if named is None:
        return True
    value = named["value"].rstrip(",;.!?)")
    if PROGRAM.search(value) or len(value) < 6:
        return False
    if named["token"]:  # of which programs and papers on language models are full
        return len(value) >= 12 and NUMERAL.search(value) is not None and not value.isdigit()
    return SIGN.search(value) is not None


NUMERAL = re.compile("[0-9]")
SIGN = re.compile("[0-9!@#%^&+/=]")
"""What a plain word does not have."""

PROGRAM = re.compile(r"[(\[{|]|^[/.=<>$]|://|^[^\W\d]\w*(?:\.[^\W\d]\w*)+$")
"""What stands in a program where a value might: a call, a variable, a part of something, a path."""

NAMED = re.compile(
    r"(?i:(?:(?P<token>token)|(?:access|auth)[_-]?token|password|passwd|pwd|api[_-]?key"
    r"|(?:secret|access)[_-]?(?:access[_-]?)?key|secret)"
    r"[\"']?\s{0,9}[:=]\s{0,9}[\"']?(?!bearer\s)(?P<value>[^\s\"']{6,}))"
)
"""A value with a name that tells of secrets."""


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
        regex=re.compile(f"[{CONTROL}{BREAKS}]"),
        points=_points(CONTROL + BREAKS),
        what="control characters",
        fix="--clean",
    ),
    Pattern(
        name=MISREAD,
        regex=re.compile(f"[{C1}]"),
        points=_points(C1),
        what="control characters (U+0080 to U+009F) that were letters or quotes, as a rule, in "
        "Windows-1252 or UTF-8 that was read as Latin-1; --clean would delete them",
        severity="warning",
    ),
    Pattern(
        name="invisible characters",
        regex=re.compile(f"[{INVISIBLE}{SPACES}]|{UNJOINING}"),
        points=_points(INVISIBLE + SPACES + "\u200c\u200d"),
        what="characters that cannot be seen, or not be told from a space (soft hyphens, marks, "
        "directions, joiners that join nothing, no-break spaces)",
        fix="--clean",
    ),
    Pattern(
        name="lost characters",
        regex=re.compile("\ufffd"),
        points=frozenset([0xFFFD]),
        what="characters that an earlier conversion lost (U+FFFD)",
        severity="warning",
    ),
    Pattern(
        name="mojibake",
        regex=re.compile(
            f"[\u00c2-\u00df]{CONTINUES}|[\u00e0-\u00ef]{CONTINUES}{{2}}|[\u00f0-\u00f4]{CONTINUES}{{3}}"
        ),
        points=_points("\u00c2-\u00f4"),
        what="places that look like UTF-8 taken for Windows-1252",
        holds=_doubly_encoded,
        severity="warning",
    ),
    Pattern(
        name="secrets",
        regex=re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\bAKIA[0-9A-Z]{16}\b"
            r"|\bgh[pousr]_\w{36,}|\bgithub_pat_\w{22,}|\bglpat-[\w-]{20,}"
            r"|\b[rs]k_(?:live|test)_\w{16,}|\bhf_[A-Za-z0-9]{30,}|\bnpm_[A-Za-z0-9]{36,}"
            r"|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}|\bsk-[\w-]{20,}"
            r"|://[^\s/:@]{0,64}:[^\s/]{1,128}@"
            r"|(?<![\w-])eyJ[\w-]{10,999}\.eyJ[\w-]{10,999}\.[\w-]{10,999}"
            r"|(?i:\bbearer\s{1,9}(?=[^\s\"']{0,99}\d)[\w.~+/=-]{16,})"
            rf"|(?<![^\W_]){NAMED.pattern}"
        ),
        hints=("private key", "akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "aiza", "sk-",
               "eyj", "passw", "pwd", "secret", "apikey", "api_key", "api-key", "accesskey",
               "access_key", "access-key", "token=", "token:", "token =", "token :", 'token"',
               "token'", "bearer", "github_pat_", "glpat-", "k_live_", "k_test_", "hf_", "npm_",
               "://"),
        what="passwords, keys or tokens, perhaps; take them out before you train",
        holds=_secret,
        severity="warning",
        secret=True,
    ),
    Pattern(
        name="e-mail addresses",
        regex=re.compile(
            r"://[^\s/:@]{0,64}:[^\s/]{1,128}@|\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}\b"
        ),
        points=frozenset([ord("@")]),
        holds=lambda found: not found.startswith("://"),  # but a user and the password
        what="e-mail addresses, which a model may repeat",
    ),
    Pattern(
        name="telephone numbers",
        regex=TELEPHONE,
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
        severity="warning",
        secret=True,
    ),
)  # fmt: skip


def matches(pattern: Pattern, text: str) -> Iterator[re.Match[str]]:
    """All that the expression finds; where it has hints, only lines with one are looked at, and of
    long lines only what stands around it."""
    small = text.lower() if pattern.hints else ""
    if not pattern.hints or len(small) != len(text):  # a few capitals are two small letters
        yield from pattern.regex.finditer(text)
        return
    places = sorted(
        (at, at + len(hint)) for hint in pattern.hints for at in _occurrences(hint, small)
    )
    done = 0
    for start, end in places:
        if start < done:
            continue
        begin = max(done, text.rfind("\n", max(0, start - AROUND), start) + 1, start - AROUND)
        line_end = text.find("\n", end, end + AROUND)
        done = line_end if line_end >= 0 else min(len(text), end + AROUND)
        yield from pattern.regex.finditer(text, begin, done)


def _occurrences(hint: str, text: str) -> Iterator[int]:
    at = text.find(hint)
    while at >= 0:
        yield at
        at = text.find(hint, at + len(hint))


def around(text: str, start: int, end: int) -> str:
    """What was found, and what stands beside it in its line, without secrets."""
    begin, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    line = masked(text[max(begin, start - 2000) : min(last, end + 2000)])
    at = max(0, line.find(text[start:end]))
    cut = max(0, at - SHOWN // 3)
    return ("…" if cut else "") + line[cut:]
