"""From a source to tokens on disk: catalog, text, split, batches."""

from moreish.data.audit import (
    TOKENS_PER_PARAMETER,
    AuditReport,
    Finding,
    audit_corpus,
    audit_source,
)
from moreish.data.catalog import (
    CATALOG,
    find_dataset,
    is_available_offline,
    load_dataset,
    local_path,
)
from moreish.data.encode import TokenBuffer, TrainingTexts, encode_corpus
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
    NON_PRINTING,
    CleaningOptions,
    Corpus,
    CorpusKind,
    NotTextError,
    decode_chunks,
    normalize_newlines,
    read_corpus,
)
from moreish.data.token_dataset import (
    CHUNK_TOKENS,
    IGNORE_INDEX,
    AnyIds,
    Batch,
    TokenDataset,
    Windows,
    count_tokens,
    fingerprint,
    load_tokens,
    save_tokens,
)

__all__ = [
    "CATALOG",
    "CHUNK_TOKENS",
    "IGNORE_INDEX",
    "MANIFEST",
    "NON_PRINTING",
    "SPLITS",
    "TOKENS_PER_PARAMETER",
    "AnyIds",
    "AuditReport",
    "Batch",
    "CleaningOptions",
    "Corpus",
    "CorpusKind",
    "Finding",
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
    "audit_corpus",
    "audit_source",
    "count_tokens",
    "decode_chunks",
    "encode_corpus",
    "find_dataset",
    "fingerprint",
    "is_available_offline",
    "load_dataset",
    "load_tokens",
    "local_path",
    "mixture_quotas",
    "normalize_newlines",
    "preparation_state",
    "prepare_dataset",
    "read_corpus",
    "save_tokens",
]
