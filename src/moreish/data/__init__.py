"""From a source to tokens on disk: catalog, text, split, batches."""

from moreish.data.audit import PER_PARAMETER, Diagnosis, Finding, diagnose, examine
from moreish.data.catalog import CATALOG, find, is_here, load, place
from moreish.data.mixture_sampler import MixtureSampler, mixture_quotas
from moreish.data.sampler import Sampler
from moreish.data.shard_layout import MANIFEST, preparation_state
from moreish.data.sharded_array import ShardedArray
from moreish.data.shards import (
    PrepareConfig,
    PreparedDataset,
    PrepareResult,
    SourceFormat,
    prepare_dataset,
)
from moreish.data.split import SPLITS, SplitName, SplitRule
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
    CHUNK_TOKENS,
    IGNORE_INDEX,
    AnyIds,
    Batch,
    TokenBuffer,
    TokenDataset,
    TrainingTexts,
    Windows,
    count_tokens,
    encode_corpus,
    fingerprint,
    load_tokens,
    save_tokens,
)

__all__ = [
    "CATALOG",
    "CHUNK_TOKENS",
    "IGNORE_INDEX",
    "MANIFEST",
    "PER_PARAMETER",
    "SPLITS",
    "UNWANTED",
    "AnyIds",
    "Batch",
    "Corpus",
    "Diagnosis",
    "Finding",
    "Kind",
    "Mending",
    "MixtureSampler",
    "NotTextError",
    "PrepareConfig",
    "PrepareResult",
    "PreparedDataset",
    "Sampler",
    "ShardedArray",
    "SourceFormat",
    "SplitName",
    "SplitRule",
    "TokenBuffer",
    "TokenDataset",
    "TrainingTexts",
    "Windows",
    "count_tokens",
    "decoded",
    "diagnose",
    "encode_corpus",
    "examine",
    "find",
    "fingerprint",
    "is_here",
    "load",
    "load_tokens",
    "mixture_quotas",
    "place",
    "preparation_state",
    "prepare_dataset",
    "read_corpus",
    "save_tokens",
    "with_line_feeds",
]
