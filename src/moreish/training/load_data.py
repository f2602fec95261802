"""The first steps of a training: load the corpus, audit it, build its tokenizer, encode its splits.

A corpus is text that is read now, or a folder of token files that `moreish prepare` made before.
"""

from pathlib import Path
from typing import Any

from moreish.config import DataConfig, RunConfig
from moreish.data import (
    CATALOG,
    AuditReport,
    Corpus,
    PreparedDataset,
    SplitName,
    TokenDataset,
    TrainingTexts,
    audit_corpus,
    count_tokens,
    encode_corpus,
    fingerprint,
    mixture_quotas,
    preparation_state,
    read_corpus,
)
from moreish.errors import MoreishError
from moreish.runs import DatasetInfo
from moreish.tokenizers import CharTokenizer, Tokenizer, check_vocab_size, tokenizer_builder

AUDIT_CHARACTERS = 1 << 20
"""Characters at the beginning of a text that are audited before a training: under a second."""

ALPHABET_SHOWN = 200
"""Characters of the alphabet that run.json holds."""


def load_corpus(config: RunConfig) -> Corpus | PreparedDataset:
    """Read the source of a run, or open its token files.

    Raises:
        MoreishError: it cannot be read, or the settings do not go with it.
    """
    data = config.data
    path = Path(data.source).expanduser()
    if data.source not in CATALOG and preparation_state(path) == "prepared":
        prepared = PreparedDataset.open(path)
        _check_prepared(config, prepared)
        return prepared
    if data.weights is not None:
        raise MoreishError(
            f"--weight needs a folder made by moreish prepare, and {data.source} is not one"
        )
    check_vocab_size(data.tokenizer, data.limits)
    return read_corpus(data.source, data.kind, data.encoding, data.cleaning)


def _check_prepared(config: RunConfig, prepared: PreparedDataset) -> None:
    """Raises MoreishError when settings differ from what was decided by `moreish prepare`."""
    data, manifest = config.data, prepared.manifest
    decided = {**DataConfig().model_dump(), "kind": "text", "tokenizer": manifest.tokenizer}
    if config.init_from is not None:  # its tokenizer is compared when its weights are
        decided["tokenizer"] = data.tokenizer
    requested = data.model_dump(include=data.model_fields_set - {"source", "weights"})
    differing = sorted(f"data.{key}" for key, value in requested.items() if value != decided[key])
    if differing:
        raise MoreishError(
            f"{data.source} was made by moreish prepare, which decided {', '.join(differing)}: "
            f"leave {'them' if len(differing) > 1 else 'it'} out"
        )
    if data.weights is not None:
        with_text = manifest.training_tokens()
        for source in manifest.sources:
            if source.name in data.weights and source.name not in with_text:
                raise MoreishError(
                    f"--weight {source.name}: it has no text to train on; leave it out"
                )
        mixture_quotas(data.weights, list(with_text))


def audit_beginning(corpus: Corpus | PreparedDataset, data: DataConfig) -> AuditReport | None:
    """Audit the beginning of a user's text; None for built-in data and prepared folders."""
    if isinstance(corpus, PreparedDataset) or data.source in CATALOG:
        return None
    source_args = [data.source, *data.options()]
    return audit_corpus(corpus, data.split, most=AUDIT_CHARACTERS, source_args=source_args)


def build_tokenizer(data: DataConfig, corpus: Corpus | PreparedDataset) -> Tokenizer:
    """Build the tokenizer of the settings; one that learns does so from the training split."""
    if isinstance(corpus, PreparedDataset):
        return corpus.tokenizer()
    builder = tokenizer_builder(data.tokenizer)
    texts = TrainingTexts(corpus, data.split, data.split_seed)
    return builder.build(
        texts if builder.needs_text else [corpus.stats.alphabet],
        boundary=corpus.has_boundary,
        limits=data.limits,
    )


def encode_splits(
    corpus: Corpus | PreparedDataset, tokenizer: Tokenizer, data: DataConfig
) -> dict[SplitName, TokenDataset]:
    """Split the corpus and encode each split.

    Raises:
        MoreishError: the corpus is too small to be split, or most of it is unknown to the
            tokenizer.
    """
    checked: SplitName = "train"
    if isinstance(corpus, PreparedDataset):
        splits, checked = corpus.splits(), "val"  # its training split is too large to count
    else:
        splits = encode_corpus(corpus, tokenizer, data.split, data.split_seed)
    if tokenizer.unk_id is not None:
        counts_V = count_tokens(splits[checked].ids_N, tokenizer.vocab_size)
        boundaries = 0 if tokenizer.boundary_id is None else counts_V[tokenizer.boundary_id]
        unknown = counts_V[tokenizer.unk_id] / (counts_V.sum() - boundaries)
        if unknown > 0.5:
            raise MoreishError(
                f"{unknown:.0%} of the words are too rare to be known: --set "
                "data.min_word_count=1, or another --tokenizer"
            )
    return splits


def describe_dataset(
    corpus: Corpus | PreparedDataset, tokenizer: Tokenizer, splits: dict[SplitName, TokenDataset]
) -> DatasetInfo:
    """Describe the data of a run for its user and for later readers of run.json."""
    facts: dict[str, Any] = {
        "kind": "text",
        "vocabulary": tokenizer.vocab_size,
        "boundary": tokenizer.boundary_id is not None,
        "tokens": {name: len(tokens.ids_N) for name, tokens in splits.items()},
    }
    if isinstance(corpus, PreparedDataset):
        sources = corpus.manifest.sources
        documents = sum(source.documents for source in sources)
        alphabet = tokenizer.characters if isinstance(tokenizer, CharTokenizer) else ""
        sha256 = {n: corpus.sha256 if n == "train" else fingerprint(t) for n, t in splits.items()}
        return DatasetInfo(
            name=corpus.folder.resolve().name,
            documents=documents,
            distinct=documents,
            characters=sum(source.characters for source in sources),
            shortest=min(source.shortest for source in sources),
            longest=max(source.longest for source in sources),
            alphabet=alphabet[:ALPHABET_SHOWN],
            sha256=sha256,
            sources=corpus.manifest.training_tokens(),
            **facts,
        )
    stats = corpus.stats
    if corpus.kind == "lines":
        facts["kind"] = "lines"
        facts["longest_item"] = max(tokens.longest_item for tokens in splits.values())
        facts["split_documents"] = {n: len(t.boundaries) - 1 for n, t in splits.items()}
    return DatasetInfo(
        name=corpus.name,
        documents=stats.documents,
        distinct=stats.distinct,
        characters=stats.characters,
        shortest=stats.shortest,
        longest=stats.longest,
        alphabet=stats.alphabet[:ALPHABET_SHOWN],
        sha256={name: fingerprint(tokens) for name, tokens in splits.items()},
        notes=corpus.notes,
        **facts,
    )
