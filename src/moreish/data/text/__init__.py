"""From bytes to documents."""

from moreish.data.text.clean import (
    BREAKS,
    C1,
    CONTROL,
    INVISIBLE,
    REMARKABLE,
    SPACES,
    UNJOINING,
    UNWANTED,
    Mending,
    is_composed,
    normalized,
)
from moreish.data.text.corpus import Corpus, read_corpus
from moreish.data.text.decode import Alphabet, NotTextError, Text, decoded, with_line_feeds
from moreish.data.text.detect_encoding import first_guess, guess_encoding
from moreish.data.text.lines import Kind, short_lines
from moreish.data.text.patterns import MISREAD, PATTERNS, SHOWN, around, masked, matches

__all__ = [
    "BREAKS",
    "C1",
    "CONTROL",
    "INVISIBLE",
    "MISREAD",
    "PATTERNS",
    "REMARKABLE",
    "SHOWN",
    "SPACES",
    "UNJOINING",
    "UNWANTED",
    "Alphabet",
    "Corpus",
    "Kind",
    "Mending",
    "NotTextError",
    "Text",
    "around",
    "decoded",
    "first_guess",
    "guess_encoding",
    "is_composed",
    "masked",
    "matches",
    "normalized",
    "read_corpus",
    "short_lines",
    "with_line_feeds",
]
