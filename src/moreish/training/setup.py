"""Data and settings, understood and fitted to each other, before anything is written."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moreish.config import RunConfig
from moreish.data import (
    Corpus,
    MixtureSampler,
    PreparedDataset,
    Sampler,
    ShardedArray,
    SplitName,
    TokenDataset,
)
from moreish.distributed import launched_world_size, local_rank, local_world_size
from moreish.errors import MoreishError
from moreish.models import CountBasedModel, Model, ModelConfig, build_model
from moreish.runs import DatasetInfo
from moreish.tokenizers import Tokenizer
from moreish.training.events import Progress, Report
from moreish.training.load_data import (
    build_tokenizer,
    describe_dataset,
    encode_splits,
    load_corpus,
)
from moreish.training.lr_range import LRRange, lr_range
from moreish.training.objectives import next_token_loss, with_weight_penalty
from moreish.training.unique_windows import unique_windows

MAX_UNIQUE_WINDOW_LOGITS = 1 << 24
"""Numbers that a batch of distinct windows may make: 64 MB."""

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

    def model(self) -> Model:
        """Freshly initialised. Raises MoreishError when it is too large for the machine."""
        check_memory(self.config.model, self.tokenizer.vocab_size, self.device)
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)


def set_up(config: RunConfig) -> TrainingSetup:
    """Load the data of a run and fit to them what its settings leave open.

    Raises:
        MoreishError: the source cannot be read, or the settings do not go with it.
    """
    corpus = load_corpus(config)
    tokenizer = build_tokenizer(config.data, corpus)
    splits = encode_splits(corpus, tokenizer, config.data)
    return assemble(config, corpus, tokenizer, splits)


def assemble(
    config: RunConfig,
    corpus: Corpus | PreparedDataset,
    tokenizer: Tokenizer,
    splits: dict[SplitName, TokenDataset],
) -> TrainingSetup:
    """Fit to the data what the settings leave open, such as the context length of a list."""
    facts = describe_dataset(corpus, tokenizer, splits)
    data = config.data
    if isinstance(corpus, PreparedDataset):
        data = data.model_copy(update={"tokenizer": corpus.manifest.tokenizer})
    model = config.model.for_data(facts.longest_item, tokenizer.vocab_size)
    return TrainingSetup(
        config=config.model_copy(update={"data": data, "model": model}),
        tokenizer=tokenizer,
        splits=splits,
        facts=facts,
        device=resolve_device(config.train.device),
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
