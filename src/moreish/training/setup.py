"""Data and settings, understood and fitted to each other, before anything is written."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moreish.config import DataConfig, RunConfig
from moreish.data import (
    CATALOG,
    AuditReport,
    Corpus,
    MixtureSampler,
    PreparedDataset,
    Sampler,
    ShardedArray,
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
from moreish.distributed import launched_world_size, local_rank, local_world_size
from moreish.errors import MoreishError
from moreish.models import CountBasedModel, Model, ModelConfig, build_model
from moreish.runs import DatasetInfo
from moreish.tokenizers import CharTokenizer, Tokenizer, check_vocab_size, tokenizer_builder
from moreish.training.events import Progress, Report
from moreish.training.lr_range import LRRange, lr_range
from moreish.training.objectives import next_token_loss, with_weight_penalty
from moreish.training.unique_windows import unique_windows

MAX_UNIQUE_WINDOW_LOGITS = 1 << 24
"""Numbers that a batch of distinct windows may make: 64 MB."""

AUDIT_CHARACTERS = 1 << 20
"""Characters that the doctor looks at before a training: a fraction of a second."""

DEFAULT_WINDOW = 64
"""Predictions in a piece of training text, for models that set no length themselves."""


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """Data and settings, understood and fitted to each other."""

    config: RunConfig
    tokenizer: Tokenizer
    splits: dict[SplitName, TokenDataset]
    facts: DatasetInfo
    device: torch.device
    audit: AuditReport | None = None
    """What the doctor finds at the beginning of the text, where it was asked."""

    def model(self) -> Model:
        """Freshly initialised. Raises MoreishError when it is too large for the machine."""
        check_memory(self.config.model, self.tokenizer.vocab_size, self.device)
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)


def set_up(config: RunConfig, *, examined: bool = False) -> TrainingSetup:
    """Read and split the data, and fit to them what the settings leave open.

    Args:
        examined: whether to have the doctor look at the beginning of the user's own text.
    """
    device = resolve_device(config.train.device)
    data = config.data
    if (
        data.source not in CATALOG
        and preparation_state(Path(data.source).expanduser()) == "prepared"
    ):
        return from_prepared(config, device)
    if data.weights is not None:
        raise MoreishError(f"--weight is for prepared text, and {data.source} is none")
    check_vocab_size(data.tokenizer, data.limits)
    corpus = read_corpus(data.source, data.kind, data.encoding, data.cleaning)
    tokenizer = build_tokenizer(data, corpus)
    audit = None
    if examined and data.source not in CATALOG:
        given = [data.source, *data.options()]
        audit = audit_corpus(corpus, data.split, most=AUDIT_CHARACTERS, source_args=given)
    splits = encode_corpus(corpus, tokenizer, config.data.split, config.data.split_seed)
    _check_unknown(splits["train"], tokenizer)
    facts = describe(corpus, tokenizer, splits)
    model = config.model.for_data(facts.longest_item, tokenizer.vocab_size)
    config = config.model_copy(update={"model": model})
    return TrainingSetup(
        config=config,
        tokenizer=tokenizer,
        splits=splits,
        facts=facts,
        device=device,
        audit=audit,
    )


def from_prepared(config: RunConfig, device: torch.device) -> TrainingSetup:
    """As `set_up`, of a folder that `moreish prepare` made; its training tokens stay there.

    Raises:
        MoreishError: it is damaged, or settings are given that were decided when it was made.
    """
    found = PreparedDataset.open(Path(config.data.source).expanduser())
    tokenizer, splits, facts = found.tokenizer(), found.splits(), found.manifest
    decided = {**type(config.data)().model_dump(), "kind": "text", "tokenizer": facts.tokenizer}
    if config.init_from is not None:  # whether it is the same is asked when the weights are
        decided["tokenizer"] = config.data.tokenizer
    asked = config.data.model_dump(include=config.data.model_fields_set - {"source", "weights"})
    if given := sorted(f"data.{name}" for name, value in asked.items() if value != decided[name]):
        raise MoreishError(
            f"{config.data.source} is prepared, and moreish prepare decided {', '.join(given)}: "
            f"leave {'them' if len(given) > 1 else 'it'} out"
        )
    if config.data.weights is not None:
        with_text = list(facts.training_tokens())
        for source in facts.sources:
            if source.name in config.data.weights and source.name not in with_text:
                raise MoreishError(
                    f"--weight {source.name}: it has no text to train on; leave it out"
                )
        mixture_quotas(config.data.weights, with_text)
    _check_unknown(splits["val"], tokenizer)
    described = describe_prepared(found, tokenizer, splits)
    update = {
        "data": config.data.model_copy(update={"tokenizer": facts.tokenizer}),
        "model": config.model.for_data(None, tokenizer.vocab_size),
    }
    return TrainingSetup(
        config=config.model_copy(update=update),
        tokenizer=tokenizer,
        splits=splits,
        facts=described,
        device=device,
    )


def describe_prepared(
    found: PreparedDataset, tokenizer: Tokenizer, splits: dict[SplitName, TokenDataset]
) -> DatasetInfo:
    """As `describe`, as far as it is known without reading everything."""
    manifest = found.manifest
    documents = sum(source.documents for source in manifest.sources)
    return DatasetInfo(
        name=found.folder.resolve().name,
        kind="text",
        documents=documents,
        distinct=documents,
        characters=sum(source.characters for source in manifest.sources),
        shortest=min(source.shortest for source in manifest.sources),
        longest=max(source.longest for source in manifest.sources),
        longest_item=None,
        vocabulary=manifest.vocabulary,
        boundary=True,
        alphabet=tokenizer.characters[:200] if isinstance(tokenizer, CharTokenizer) else "",
        split_documents=None,
        tokens={name: len(tokens.ids_N) for name, tokens in splits.items()},
        sha256={
            "train": found.sha256,
            **{name: fingerprint(splits[name]) for name in splits if name != "train"},
        },
        notes=[],
        sources=manifest.training_tokens(),
    )


def build_tokenizer(data: DataConfig, corpus: Corpus) -> Tokenizer:
    """The tokenizer of these settings; one that learns does so from the training split."""
    made = tokenizer_builder(data.tokenizer)
    texts = TrainingTexts(corpus, data.split, data.split_seed)
    return made.build(
        texts if made.needs_text else [corpus.facts.alphabet],
        boundary=corpus.has_boundary,
        limits=data.limits,
    )


def _check_unknown(tokens: TokenDataset, tokenizer: Tokenizer) -> None:
    """Raises MoreishError when most of the training text is unknown to its own tokenizer."""
    if tokenizer.unk_id is None:
        return
    counts_V = count_tokens(tokens.ids_N, tokenizer.vocab_size)
    words = np.delete(
        counts_V, [] if tokenizer.boundary_id is None else [tokenizer.boundary_id]
    ).sum()
    unknown = counts_V[tokenizer.unk_id]
    if 2 * unknown > words:
        raise MoreishError(
            f"{unknown / words:.0%} of the words are too rare to be known: --set "
            "data.min_word_count=1, or another --tokenizer"
        )


def run_lr_range_test(ready: TrainingSetup, *, report: Report, **options: Any) -> LRRange:
    """The learning-rate range test of these settings; `options` as in `lr_range`.

    Raises:
        MoreishError: the model is counted, or no rate can be found.
    """
    model, config = ready.model(), ready.config
    if isinstance(model, CountBasedModel):
        raise MoreishError(f"{config.model.name} is counted: it has no learning rate")
    return lr_range(
        model,
        build_sampler(config, ready.splits["train"], model),
        config.train,
        with_weight_penalty(next_token_loss, config.train.squared_weights),
        device=ready.device,
        progress=lambda share: report(Progress(what="testing learning rates", share=share)),
        **options,
    )


def resolve_device(name: str) -> torch.device:
    """The device that `train.device` names; "auto" is a CUDA GPU where there is one, of several
    processes to each its own."""
    if name == "auto":
        there = torch.cuda.is_available()
        return torch.device("cuda", local_rank()) if there else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()  # some kinds exist and cannot reckon
    except (RuntimeError, AssertionError, ImportError, AttributeError):
        raise MoreishError(f"train.device={name}: there is no such device here; try auto") from None
    return device


def describe(
    corpus: Corpus, tokenizer: Tokenizer, splits: dict[SplitName, TokenDataset]
) -> DatasetInfo:
    """What the user and later readers of run.json want to know of the data."""
    items, counted = corpus.kind == "lines", corpus.facts
    return DatasetInfo(
        name=corpus.name,
        kind=corpus.kind,
        documents=counted.documents,
        distinct=counted.distinct,
        characters=counted.characters,
        shortest=counted.shortest,
        longest=counted.longest,
        longest_item=max(tokens.longest_item for tokens in splits.values()) if items else None,
        vocabulary=tokenizer.vocab_size,
        boundary=tokenizer.boundary_id is not None,
        alphabet=counted.alphabet[:200],
        split_documents={n: len(t.boundaries) - 1 for n, t in splits.items()} if items else None,
        tokens={name: len(tokens.ids_N) for name, tokens in splits.items()},
        sha256={name: fingerprint(tokens) for name, tokens in splits.items()},
        notes=corpus.notes,
    )


def count_parameters(config: ModelConfig, vocab_size: int) -> int:
    """How many a model will have. Raises MoreishError when it cannot be built."""
    try:
        with torch.device("meta"):  # shapes without memory
            return build_model(config, vocab_size).num_parameters()
    except RuntimeError as error:
        raise MoreishError(f"this model cannot be built: {error}") from None


def check_memory(config: ModelConfig, vocab_size: int, device: torch.device) -> None:
    """Raises MoreishError when the weights, as training needs them, cannot fit into the machine."""
    parameters = count_parameters(config, vocab_size)
    needed = parameters * 4 * 4  # float32: weights, gradients, AdamW's two moments
    there: float
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory * launched_world_size()
    else:
        there = _pages("SC_PHYS_PAGES") * launched_world_size() / local_world_size()
    if needed > there:
        raise MoreishError(
            f"a {config.name} of {parameters:,} parameters needs {needed / 1e9:,.0f} GB to train, "
            f"and this machine has {there / 1e9:,.0f} GB: make it smaller"
        )


def available_memory() -> float:
    """Bytes that can be had now; infinite where the system does not tell."""
    try:  # on Linux, where files that are only kept in memory count as free
        told = Path("/proc/meminfo").read_text()
        return 1024.0 * int(told.split("MemAvailable:")[1].split()[0])
    except (OSError, LookupError, ValueError):
        return _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> float:
    known = name in getattr(os, "sysconf_names", ())
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") if known else math.inf


def build_sampler(run_config: RunConfig, tokens: TokenDataset, model: Model) -> Sampler:
    """Training batches as the settings want them."""
    config, seed = run_config.train, run_config.seed
    if model.max_length is not None:
        length, overlap = model.max_length, 0
    else:
        length, overlap = DEFAULT_WINDOW + model.context - 1, model.context - 1
    dealt = Sampler(tokens, batch_size=1, length=length, overlap=overlap, seed=seed).num_windows
    mean_length = tokens.num_predictions / dealt
    rows = max(1, round(config.batch_tokens / mean_length))
    if isinstance(tokens.ids_N, ShardedArray):
        if config.batch_size == "all":
            raise MoreishError("train.batch_size=all: prepared text is too large for one batch")
        return MixtureSampler(
            tokens,
            weights=run_config.data.weights,
            batch_size=config.batch_size if isinstance(config.batch_size, int) else rows,
            length=length,
            overlap=overlap,
            seed=seed,
        )
    if config.batch_size in (None, "all"):
        most = config.batch_tokens if config.batch_size is None else tokens.num_predictions
        most = min(most, MAX_UNIQUE_WINDOW_LOGITS // model.vocab_size)
        if (found := unique_windows(tokens, model, seed, positions=most)) is not None:
            return found
    if config.batch_size is not None:
        rows = config.batch_size if isinstance(config.batch_size, int) else dealt
    return Sampler(tokens, batch_size=min(rows, dealt), length=length, overlap=overlap, seed=seed)
