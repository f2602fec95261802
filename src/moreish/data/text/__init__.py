"""From the bytes of files to a corpus of items or of running text."""

from moreish.data.text.clean import (
    MIN_UNIQUE_LINE,
    NON_PRINTING,
    CleaningOptions,
    is_composed,
    normalize,
)
from moreish.data.text.compression import COMPRESSED, decompress
from moreish.data.text.corpus import Corpus, CorpusStats, find_lines, read_corpus
from moreish.data.text.decode import (
    NotTextError,
    Text,
    decode_chunks,
    distinct_code_points,
    normalize_newlines,
)
from moreish.data.text.detect_encoding import first_guess, guess_encoding
from moreish.data.text.documents import UnsupportedFileError
from moreish.data.text.files import (
    TABLES,
    is_table,
    open_decoded,
    parse_json,
    sniff_table,
    uncompressed_name,
)
from moreish.data.text.lines import CorpusKind, bounded_lines
from moreish.data.text.patterns import (
    MAX_EXAMPLE,
    MISREAD,
    MOJIBAKE,
    PATTERNS,
    Severity,
    excerpt,
    find_matches,
    mask_secrets,
)
from moreish.data.text.sources import Source, source_settings
