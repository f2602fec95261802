"""From bytes to documents."""

from moreish.data.text.clean import (
    BREAKS,
    C1,
    CONTROL,
    INVISIBLE,
    NON_PRINTING,
    REMARKABLE,
    SPACES,
    UNJOINING,
    CleaningOptions,
    is_composed,
    normalized,
)
from moreish.data.text.corpus import Corpus, read_corpus
from moreish.data.text.decode import Alphabet, NotTextError, Text, decode_chunks, normalize_newlines
from moreish.data.text.detect_encoding import first_guess, guess_encoding
from moreish.data.text.lines import CorpusKind, short_lines
from moreish.data.text.patterns import MISREAD, PATTERNS, SHOWN, Severity, around, masked, matches

__all__ = [
    "BREAKS",
    "C1",
    "CONTROL",
    "INVISIBLE",
    "MISREAD",
    "NON_PRINTING",
    "PATTERNS",
    "REMARKABLE",
    "SHOWN",
    "SPACES",
    "UNJOINING",
    "Alphabet",
    "CleaningOptions",
    "Corpus",
    "CorpusKind",
    "NotTextError",
    "Severity",
    "Text",
    "around",
    "decode_chunks",
    "first_guess",
    "guess_encoding",
    "is_composed",
    "masked",
    "matches",
    "normalize_newlines",
    "normalized",
    "read_corpus",
    "short_lines",
]
