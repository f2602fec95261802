"""Regular expressions for problems in a text: garbled or invisible characters, private data."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from moreish.data.text.clean import (
    BLACK_FLAG,
    BREAKS,
    C1,
    CONTROL,
    INVISIBLE,
    SPACES,
    STRAY_JOINERS,
    TAG_FLAG,
)

Severity = Literal["warning", "note"]

MAX_EXAMPLE = 60
"""Characters of an example."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A problem that a regular expression finds."""

    name: str
    regex: re.Pattern[str]
    description: str
    code_points: frozenset[int] = frozenset()
    """One of these is in every match, so that texts without them are skipped; empty: no filter."""
    keywords: tuple[str, ...] = ()
    """One of these, in lower case, is in every match; empty: no filter."""
    is_real: Callable[[str], bool] = lambda match: True
    """A closer check that rejects false matches."""
    fix: str = ""
    severity: Severity = "note"
    is_private: bool = False
    """Whether it finds data about persons, or secrets."""
    is_secret: bool = False
    """Whether examples must mask the match."""


KEYWORD_MARGIN = 4000
"""Characters before and after a keyword that are searched; all matches are shorter."""

MISREAD = "misread characters"
"""Name of the finding that another encoding may fix."""

MOJIBAKE = "mojibake"
"""Name of the finding that the encoding in which the text was read may have caused."""

TESTED_CHARACTERS = "".join(
    map(chr, [*range(0x3200), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0080)])
)


def _class_points(characters: str) -> frozenset[int]:
    """Return the code points of a character class of a regular expression."""
    return frozenset(map(ord, re.findall(f"[{characters}]", TESTED_CHARACTERS)))


def _doubly_encoded(text: str) -> bool:
    """Return whether a text is UTF-8 that was decoded as Windows-1252 (and its gaps as Latin-1)."""
    try:
        raw = b"".join(c.encode("latin-1" if "\x80" <= c <= "\x9f" else "cp1252") for c in text)
        return raw.decode("utf-8") != text
    except UnicodeError:
        return False


TELEPHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"(?:\+|00)[1-9](?:[ ()./-]{0,3}\d){7,14}"  # international: +33 1 23 45 67 89
    r"|\(?0[1-9]\d{0,3}\)?(?:[ /.-]{1,3}\d{2,8}){1,4}"  # national: 030 12345678
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
"""Dates and decimal fractions."""


def _is_telephone(text: str) -> bool:
    """Return whether a number has 9 to 13 digits or an international prefix, and is not a date."""
    digits = sum(map(str.isdigit, text))
    if NO_TELEPHONE.match(text):
        return False
    return text.startswith(("+", "00")) or 9 <= digits <= 13


def _is_card_number(digits: str) -> bool:
    """Return whether the Luhn checksum of card numbers is right."""
    figures = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [sum(divmod(2 * figure, 10)) for figure in figures[-2::-2]]
    return len(set(figures)) > 1 and (sum(doubled) + sum(figures[::-2])) % 10 == 0


def _is_secret(text: str) -> bool:
    """Return whether a match is a key of a known form, or a value that is neither a plain word nor
    code."""
    if text.startswith("sk-"):  # rejects names such as sk-a-long-name
        return any(len(part) >= 16 and DIGIT.search(part) for part in re.split("[-_]", text[3:]))
    match = NAMED_VALUE.match(text)
    if match is None:
        return True
    value = match["value"].rstrip(",;.!?)")
    if CODE.search(value) or len(value) < 6:
        return False
    if match["token"]:  # common in code and papers on language models
        return len(value) >= 12 and DIGIT.search(value) is not None and not value.isdigit()
    return NOT_PLAIN_WORD.search(value) is not None


DIGIT = re.compile("[0-9]")
NOT_PLAIN_WORD = re.compile("[0-9!@#%^&+/=]")
"""Characters that a plain word does not have."""

CODE = re.compile(r"[(\[{|]|^[/.=<>$]|://|^[^\W\d]\w*(?:\.[^\W\d]\w*)+$")
"""Code in the place of a value: a call, a variable, an attribute, a path."""

NAMED_VALUE = re.compile(
    r"(?i:(?:(?P<token>token)|(?:access|auth)[_-]?token|password|passwd|pwd|api[_-]?key"
    r"|(?:secret|access)[_-]?(?:access[_-]?)?key|secret)"
    r"[\"']?\s{0,9}[:=]\s{0,9}[\"']?(?!bearer\s)(?P<value>[^\s\"']{6,}))"
)
"""A value whose name suggests a secret."""


def mask_secrets(text: str) -> str:
    """Cut the secrets in `text` to four characters, because reports are read by others."""
    for pattern in PATTERNS:
        if pattern.is_secret:
            text = pattern.regex.sub(
                lambda match, is_real=pattern.is_real: (  # type: ignore[misc]
                    match[0][:4] + "…" if is_real(match[0]) else match[0]
                ),
                text,
            )
    return text


CONTINUATION = "[\u0080-\u00bf\u0152-\u0192\u02c6-\u02dc\u2013-\u203a\u20ac\u2122]"
"""Continuation bytes of UTF-8, decoded as Windows-1252 or Latin-1."""

DIGITS = _class_points("0-9")

PATTERNS = (
    Pattern(
        name="control characters",
        regex=re.compile(f"[{CONTROL}{BREAKS}]"),
        code_points=_class_points(CONTROL + BREAKS),
        description="control characters",
        fix="--clean",
    ),
    Pattern(
        name=MISREAD,
        regex=re.compile(f"[{C1}]"),
        code_points=_class_points(C1),
        description="control characters U+0080 to U+009F, usually letters or quotes in "
        "Windows-1252 or UTF-8 text that was read as Latin-1; --clean would delete them",
        severity="warning",
    ),
    Pattern(
        name="invisible characters",
        regex=re.compile(f"{TAG_FLAG}|[{INVISIBLE}{SPACES}]|{STRAY_JOINERS}"),
        is_real=lambda found: not found.startswith(BLACK_FLAG),
        code_points=_class_points(INVISIBLE + SPACES + "\u200c\u200d"),
        description="invisible characters and no-break spaces (also soft hyphens, directional "
        "marks and stray joiners)",
        fix="--clean",
    ),
    Pattern(
        name="lost characters",
        regex=re.compile("\ufffd"),
        code_points=frozenset([0xFFFD]),
        description="characters lost in an earlier conversion (U+FFFD)",
        severity="warning",
    ),
    Pattern(
        name=MOJIBAKE,
        regex=re.compile(
            f"[\u00c2-\u00df]{CONTINUATION}|[\u00e0-\u00ef]{CONTINUATION}{{2}}|[\u00f0-\u00f4]{CONTINUATION}{{3}}"
        ),
        code_points=_class_points("\u00c2-\u00f4"),
        description="character sequences that look like UTF-8 decoded as Windows-1252",
        is_real=_doubly_encoded,
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
            rf"|(?<![^\W_]){NAMED_VALUE.pattern}"
        ),
        keywords=("private key", "akia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "aiza",
                  "sk-", "eyj", "passw", "pwd", "secret", "apikey", "api_key", "api-key",
                  "accesskey", "access_key", "access-key", "token=", "token:", "token =",
                  "token :", 'token"', "token'", "bearer", "github_pat_", "glpat-", "k_live_",
                  "k_test_", "hf_", "npm_", "://"),
        description="possible passwords, keys or tokens; remove them before training",
        is_real=_is_secret,
        severity="warning",
        is_private=True,
        is_secret=True,
    ),
    Pattern(
        name="e-mail addresses",
        regex=re.compile(
            r"://[^\s/:@]{0,64}:[^\s/]{1,128}@|\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63}){1,4}\b"
        ),
        code_points=frozenset([ord("@")]),
        is_real=lambda match: not match.startswith("://"),  # user and password of a URL
        description="e-mail addresses, which a model may reproduce",
        is_private=True,
    ),
    Pattern(
        name="telephone numbers",
        regex=TELEPHONE,
        code_points=DIGITS,
        description="possible telephone numbers, which a model may reproduce",
        is_private=True,
        is_real=_is_telephone,
    ),
    Pattern(
        name="card numbers",
        regex=re.compile(r"(?<![\d.])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,4}(?!\d)"),
        code_points=DIGITS,
        description="possible payment card numbers; remove them before training",
        is_real=_is_card_number,
        severity="warning",
        is_private=True,
        is_secret=True,
    ),
)  # fmt: skip


def find_matches(pattern: Pattern, text: str) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern.

    A pattern with keywords is only searched in lines that contain one, and in very long lines only
    within `KEYWORD_MARGIN` of it.
    """
    lower = text.lower() if pattern.keywords else ""
    if not pattern.keywords or len(lower) != len(text):  # lower() lengthens a few capitals
        yield from pattern.regex.finditer(text)
        return
    spans = sorted(
        (at, at + len(keyword)) for keyword in pattern.keywords for at in _find_all(keyword, lower)
    )
    done = 0
    for start, end in spans:
        if start < done:
            continue
        line_start = text.rfind("\n", max(0, start - KEYWORD_MARGIN), start) + 1
        begin = max(done, line_start, start - KEYWORD_MARGIN)
        line_end = text.find("\n", end, end + KEYWORD_MARGIN)
        done = line_end if line_end >= 0 else min(len(text), end + KEYWORD_MARGIN)
        yield from pattern.regex.finditer(text, begin, done)


def _find_all(word: str, text: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def excerpt(text: str, start: int, end: int) -> str:
    """Return the line of a match from shortly before it, with secrets masked."""
    begin, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    last = len(text) if last < 0 else last
    line = mask_secrets(text[max(begin, start - 2000) : min(last, end + 2000)])
    at = max(0, line.find(text[start:end]))
    cut = max(0, at - MAX_EXAMPLE // 3)
    return ("…" if cut else "") + line[cut:]
