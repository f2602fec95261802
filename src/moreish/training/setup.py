"""The setup of a training: data and resolved settings, before anything is written."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

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
from moreish.models import Model, ModelConfig, build_model
from moreish.runs import DatasetInfo
from moreish.tokenizers import Tokenizer
from moreish.training.load_data import build_tokenizer, describe_dataset, encode_splits, load_corpus
from moreish.training.unique_windows import unique_windows

MAX_UNIQUE_WINDOW_LOGITS = 1 << 24
"""Largest number of logits of a batch of unique windows: 64 MB."""

DEFAULT_WINDOW = 64
"""Predictions per training window of running text, for models without a maximum length."""


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The data of a run, and settings that were resolved with them."""

    config: RunConfig
    corpus: Corpus | PreparedDataset
    tokenizer: Tokenizer
    splits: dict[SplitName, TokenDataset]
    facts: DatasetInfo
    device: torch.device

    def model(self) -> Model:
        """Return a new model. Raises MoreishError when it is too large for the machine."""
        self._check_memory()
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)

    def _check_memory(self) -> None:
        config = self.config.model
        parameters = build_meta_model(config, self.tokenizer.vocab_size).num_parameters()
        needed = parameters * 4 * 4  # float32: weights, gradients, and AdamW's two moments
        if self.device.type == "cuda":
            memory: float = torch.cuda.get_device_properties(self.device).total_memory
        else:
            memory = _pages("SC_PHYS_PAGES") / local_world_size()
        memory *= launched_world_size()
        if needed > memory:
            raise MoreishError(
                f"a {config.name} of {parameters:,} parameters needs {needed / 1e9:,.0f} GB to "
                f"train, and this machine has {memory / 1e9:,.0f} GB: make it smaller"
            )


def set_up(config: RunConfig) -> TrainingSetup:
    """Load the data of a run and resolve the settings that depend on them, such as the context
    length for a list.

    Raises:
        MoreishError: the source cannot be read, or the settings do not go with it.
    """
    corpus = load_corpus(config)
    tokenizer = build_tokenizer(config.data, corpus)
    splits = encode_splits(corpus, tokenizer, config.data)
    facts = describe_dataset(corpus, tokenizer, splits)
    data = config.data
    if isinstance(corpus, PreparedDataset):
        data = data.model_copy(update={"tokenizer": corpus.manifest.tokenizer})
    model = config.model.for_data(facts.longest_item, tokenizer.vocab_size)
    return TrainingSetup(
        config=config.model_copy(update={"data": data, "model": model}),
        corpus=corpus,
        tokenizer=tokenizer,
        splits=splits,
        facts=facts,
        device=resolve_device(config.train.device),
    )


def resolve_device(name: str) -> torch.device:
    """Return the device that `train.device` names; "auto" is this process's CUDA GPU, or the CPU.

    Raises:
        MoreishError: there is no such device.
    """
    if name == "auto":
        has_gpu = torch.cuda.is_available()
        return torch.device("cuda", local_rank()) if has_gpu else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()  # some devices exist but cannot compute
    except (RuntimeError, AssertionError, ImportError, AttributeError):
        raise MoreishError(f"train.device={name}: there is no such device here; try auto") from None
    return device


def build_meta_model(config: ModelConfig, vocab_size: int) -> Model:
    """Build a model without memory for its weights. Raises MoreishError when it cannot be built."""
    try:
        with torch.device("meta"):
            return build_model(config, vocab_size)
    except RuntimeError as error:
        raise MoreishError(f"this model cannot be built: {error}") from None


def available_memory() -> float:
    """Return the free memory of the machine in bytes; infinite where the system does not say."""
    try:  # on Linux, where cached files count as free
        text = Path("/proc/meminfo").read_text()
        return 1024.0 * int(text.split("MemAvailable:")[1].split()[0])
    except (OSError, LookupError, ValueError):
        return _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> float:
    is_known = name in getattr(os, "sysconf_names", ())
    return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") if is_known else math.inf


def build_sampler(run_config: RunConfig, tokens: TokenDataset, model: Model) -> Sampler:
    """Create the sampler of training batches."""
    config, seed = run_config.train, run_config.seed
    overlap = 0 if model.max_length is not None else model.context - 1
    length = model.max_length or DEFAULT_WINDOW + overlap
    windows = Sampler(tokens, batch_size=1, length=length, overlap=overlap, seed=seed).num_windows
    rows = max(1, round(config.batch_tokens / (tokens.num_predictions / windows)))
    if isinstance(config.batch_size, int):
        rows = config.batch_size
    if isinstance(tokens.ids_N, ShardedArray):
        if config.batch_size == "all":
            raise MoreishError("train.batch_size=all: prepared text is too large for one batch")
        return MixtureSampler(
            tokens,
            weights=run_config.data.weights,
            batch_size=rows,
            length=length,
            overlap=overlap,
            seed=seed,
        )
    if config.batch_size in (None, "all"):
        positions = config.batch_tokens if config.batch_size is None else tokens.num_predictions
        positions = min(positions, MAX_UNIQUE_WINDOW_LOGITS // model.vocab_size)
        sampler = unique_windows(tokens, model, seed, positions=positions)
        if sampler is not None:
            return sampler
    rows = windows if config.batch_size == "all" else min(rows, windows)
    return Sampler(tokens, batch_size=rows, length=length, overlap=overlap, seed=seed)
