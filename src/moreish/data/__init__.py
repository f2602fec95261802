"""From a source to tokens on disk: catalog, text, split, batches."""

from moreish.data.audit import (
    AuditReport,
    Finding,
    audit_corpus,
    audit_examples,
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
from moreish.data.examples import (
    ExampleCorpus,
    ExampleFormat,
    ProblemStream,
    StreamSampler,
    encode_examples,
    example_dataset,
    looks_like_examples,
    read_examples,
    split_examples,
    table_columns,
    task_corpus,
    tokens_of,
)
from moreish.data.mixture_sampler import MixtureSampler, mixture_quotas
from moreish.data.sampler import BatchSampler
from moreish.data.shard_layout import MANIFEST, preparation_state
from moreish.data.sharded_array import ShardedArray
from moreish.data.shards import (
    PrepareConfig,
    PreparedDataset,
    PrepareResult,
    SourceFormat,
    prepare_dataset,
)
from moreish.data.split import SPLIT_TITLES, SPLITS, SplitName, SplitRule
from moreish.data.text import (
    NON_PRINTING,
    CleaningOptions,
    Corpus,
    CorpusKind,
    NotTextError,
    Source,
    decode_chunks,
    find_lines,
    normalize_newlines,
    read_corpus,
    source_settings,
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
    iter_chunks,
    load_tokens,
    save_tokens,
)
