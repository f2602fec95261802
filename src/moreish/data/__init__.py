"""From a source to tokens on disk: catalog, text, split, batches."""

from moreish.data.audit import PER_PARAMETER, Diagnosis, Finding, diagnose, examine
from moreish.data.catalog import CATALOG, find, is_here, load, place
from moreish.data.mixture_sampler import MixedSampler, quotas_of
from moreish.data.sampler import Sampler
from moreish.data.shard_layout import MANIFEST, kind_of
from moreish.data.sharded_array import Joined
from moreish.data.shards import Order, Outcome, Prepared, Reading, prepare_text
from moreish.data.split import SPLITS, Rule, SplitName
from moreish.data.text import (
    UNWANTED,
    Corpus,
    Kind,
    Mending,
    NotTextError,
    decoded,
    read_corpus,
    with_line_feeds,
)
from moreish.data.token_dataset import (
    PIECE,
    UNSCORED,
    AnyIds,
    Batch,
    Spans,
    Spool,
    Tokens,
    TrainingTexts,
    encode_corpus,
    fingerprint,
    load_tokens,
    occurrences,
    save_tokens,
)

__all__ = [
    "CATALOG",
    "MANIFEST",
    "PER_PARAMETER",
    "PIECE",
    "SPLITS",
    "UNSCORED",
    "UNWANTED",
    "AnyIds",
    "Batch",
    "Corpus",
    "Diagnosis",
    "Finding",
    "Joined",
    "Kind",
    "Mending",
    "MixedSampler",
    "NotTextError",
    "Order",
    "Outcome",
    "Prepared",
    "Reading",
    "Rule",
    "Sampler",
    "Spans",
    "SplitName",
    "Spool",
    "Tokens",
    "TrainingTexts",
    "decoded",
    "diagnose",
    "encode_corpus",
    "examine",
    "find",
    "fingerprint",
    "is_here",
    "kind_of",
    "load",
    "load_tokens",
    "occurrences",
    "place",
    "prepare_text",
    "quotas_of",
    "read_corpus",
    "save_tokens",
    "with_line_feeds",
]
