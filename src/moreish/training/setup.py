"""The setup of a training run, before anything is written: load the corpus, build its tokenizer,
encode its splits, and resolve the settings that depend on them.

A corpus is text that is read now, or a folder of token files that `moreish prepare` made before.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from moreish.config import AUTO, DataConfig, RunConfig
from moreish.data import (
    CATALOG,
    AuditReport,
    BatchSampler,
    Corpus,
    CorpusKind,
    ExampleCorpus,
    ExampleFormat,
    MixtureSampler,
    PreparedDataset,
    ShardedArray,
    SplitName,
    StreamSampler,
    TokenDataset,
    TrainingTexts,
    audit_corpus,
    audit_examples,
    count_tokens,
    encode_corpus,
    encode_examples,
    fingerprint,
    looks_like_examples,
    mixture_quotas,
    preparation_state,
    read_corpus,
    read_examples,
    task_corpus,
)
from moreish.distributed import launched_world_size, local_rank, local_world_size
from moreish.errors import MoreishError
from moreish.models import (
    CountBasedModel,
    Model,
    ModelConfig,
    NetworkWithCounts,
    build_model,
    model_class,
)
from moreish.runs import DatasetInfo
from moreish.tasks import build_task
from moreish.tokenizers import (
    CharTokenizer,
    ExampleTokenizer,
    Tokenizer,
    check_vocab_size,
    tokenizer_builder,
)
from moreish.training.unique_windows import unique_windows
from moreish.utils.files import user_path
from moreish.utils.platforms import total_memory

MAX_UNIQUE_WINDOW_LOGITS = 1 << 24
"""Largest number of logits of a batch of unique windows: 64 MB."""

DEFAULT_WINDOW = 64
"""Predictions per training window of running text, for models without a maximum length."""

AUDIT_CHARACTERS = 1 << 20
"""Characters at the beginning of a text that are audited before training: under a second."""

MIN_WORDS = 2.5
"""Mean number of words of an input from which examples are read in words or byte pairs."""

MAX_CLASSIFIED_CHARACTERS = 4_000_000
"""Characters of all texts up to which a planned classifier of two labels counts n-grams of
characters too; the time that it takes is proportional to the number of labels."""

EXAMPLE_VOCABULARY = 4096
"""Size of the vocabulary of byte pairs of examples."""

SAMPLED_EXAMPLES = 1000
"""Examples whose words are counted."""

ALPHABET_SHOWN = 200
"""Characters of the alphabet that run.json holds."""


AnyCorpus = Corpus | ExampleCorpus | PreparedDataset


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The data of a run, and settings that were resolved with them."""

    config: RunConfig
    corpus: AnyCorpus
    tokenizer: Tokenizer
    splits: dict[SplitName, TokenDataset]
    facts: DatasetInfo
    device: torch.device

    def build_model(self) -> Model:
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
            memory = total_memory() / local_world_size()
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
    data = config.data
    if isinstance(corpus, ExampleCorpus):
        data = choose_example_settings(data, corpus, is_planned=config.model.name == AUTO)
        if data.fold_case:
            corpus = corpus.with_lower_case()
    tokenizer = build_tokenizer(data, corpus)
    splits = encode_splits(corpus, tokenizer, data)
    facts = describe_dataset(corpus, tokenizer, splits)
    if isinstance(corpus, PreparedDataset):
        data = data.model_copy(update={"tokenizer": corpus.manifest.tokenizer})
    model = fit_model_config(config.model, facts, tokenizer)
    if not data.mask_inputs and model.name != AUTO and model_class(model.name).needs_examples:
        raise MoreishError(
            f"data.mask_inputs=false: model {model.name} predicts targets only; leave it out"
        )
    return TrainingSetup(
        config=config.model_copy(update={"data": data, "model": model}),
        corpus=corpus,
        tokenizer=tokenizer,
        splits=splits,
        facts=facts,
        device=resolve_device(
            config.train.device, None if model.name == AUTO else model_class(model.name)
        ),
    )


def fit_model_config(model: ModelConfig, facts: DatasetInfo, tokenizer: Tokenizer) -> ModelConfig:
    """Return the settings of a model with defaults that fit the data.

    Raises:
        MoreishError: the model is for other data.
    """
    if model.name != AUTO and model_class(model.name).needs_examples and facts.kind != "examples":
        raise MoreishError(
            f"model {model.name} predicts the targets of inputs: it needs examples (--input COLUMN "
            "--target COLUMN), not a text"
        )
    if model.name != AUTO and model_class(model.name).needs_labels and facts.targets != "label":
        raise MoreishError(
            f"model {model.name} predicts labels, and these targets are {facts.targets}: leave "
            "--model out, or read them as labels with --set data.target_form=label"
        )
    if facts.kind == "examples":
        assert facts.longest_item is not None
        model = model.for_examples(facts.longest_item)
    model = model.for_data(facts.longest_item, tokenizer.vocab_size)
    model = model.for_tokenizer(tokenizer)
    if (outputs := getattr(model, "outputs", None)) not in (None, facts.outputs):
        raise MoreishError(f"model.outputs={outputs}: leave it out, as the data decide it")
    return model


def load_corpus(config: RunConfig) -> AnyCorpus:
    """Read the source of a run, or open its token files.

    Raises:
        MoreishError: it cannot be read, or the settings do not go with it.
    """
    data = config.data
    if config.task is not None:
        return task_corpus(config.task.name, build_task(config.task), config.task.held_out)
    first, *more = data.sources
    path = user_path(first)
    if not more and first not in CATALOG and preparation_state(path) == "prepared":
        prepared = PreparedDataset.open(path)
        _check_prepared(config, prepared)
        return prepared
    if data.weights is not None:
        raise MoreishError(
            f"--weight needs a folder made by moreish prepare, and {first} is not one"
        )
    check_vocab_size(data.tokenizer, data.limits)
    if data.test_file is not None and data.validation_file is None:
        raise MoreishError(
            "--test-file needs --validation-file; the other splits come from the source"
        )

    if is_examples(data):
        return load_examples(data)

    def read(source: str | list[str], kind: CorpusKind | None) -> Corpus:
        return read_corpus(
            source,
            kind,
            data.encoding,
            data.cleaning,
            column=data.column,
            separator=data.separator,
        )

    corpus = read(data.source, data.kind)
    held_out = [source for source in (data.validation_file, data.test_file) if source is not None]
    if not held_out:
        return corpus
    return corpus.with_held_out(*(read(source, corpus.kind) for source in held_out))


def is_examples(data: DataConfig) -> bool:
    """Return whether the sources are examples: by an option, or by the names of their columns."""
    if data.kind == "examples" or data.input is not None or data.target is not None:
        if data.kind in ("lines", "text"):
            raise MoreishError(f"--as {data.kind}: --input and --target are for examples")
        return True
    return data.kind is None and data.column is None and all(map(looks_like_examples, data.sources))


def load_examples(data: DataConfig) -> ExampleCorpus:
    """Read examples, each split from files of its own where the settings name them.

    Raises:
        MoreishError: as `read_examples`.
    """
    file_format = ExampleFormat(
        encoding=data.encoding, input=data.input, target=data.target, target_form=data.target_form
    )
    corpus = read_examples(data.sources, file_format)
    held_out = [source for source in (data.validation_file, data.test_file) if source is not None]
    if not held_out:
        return corpus
    file_format = replace(file_format, target_form=corpus.form)
    return corpus.with_held_out(
        *(
            read_examples([source] if isinstance(source, str) else source, file_format)
            for source in held_out
        )
    )


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


def audit_beginning(corpus: AnyCorpus, data: DataConfig) -> AuditReport | None:
    """Audit the beginning of a user's text, or examples; None for built-in data, tasks and prepared
    folders."""
    if isinstance(corpus, PreparedDataset) or set(data.sources) <= CATALOG.keys():
        return None
    if isinstance(corpus, ExampleCorpus):
        if corpus.task is not None:
            return None
        return audit_examples(corpus, source_args=data.arguments())
    return audit_corpus(corpus, max_characters=AUDIT_CHARACTERS, source_args=data.arguments())


def build_tokenizer(data: DataConfig, corpus: AnyCorpus) -> Tokenizer:
    """Build the tokenizer of the settings; one that learns does so from the training split."""
    if isinstance(corpus, PreparedDataset):
        return corpus.tokenizer()
    builder = tokenizer_builder(data.tokenizer)
    if isinstance(corpus, ExampleCorpus):
        examples = corpus.split(data.split, data.split_seed)["train"]
        fold_case = data.fold_case or False
        lines = [text + "\n" for text in corpus.texts_of(examples, fold_case=fold_case)]
        base = builder.build(
            lines if builder.needs_text else corpus.texts_of(corpus.examples, fold_case=fold_case),
            boundary=True,
            limits=data.limits,
        )
        return ExampleTokenizer(base, corpus.form, corpus.symbols, fold_case=fold_case)
    texts = TrainingTexts(corpus, data.split, data.split_seed)
    return builder.build(
        texts if builder.needs_text else [corpus.stats.alphabet],
        boundary=corpus.has_boundary,
        limits=data.limits,
    )


def choose_example_settings(
    data: DataConfig, corpus: ExampleCorpus, *, is_planned: bool
) -> DataConfig:
    """Choose the tokenizer of examples where the user did not: words in lower case to classify
    texts (for a classifier that is planned, characters, unless there are too many), byte pairs to
    translate them, characters for single words."""
    if corpus.task is not None or "tokenizer" in data.model_fields_set:
        return data
    sample = corpus.examples[:: max(1, len(corpus.examples) // SAMPLED_EXAMPLES)]
    texts = [text for text in corpus.texts_of(sample) if text]
    words = sum(len(text.split()) for text in texts) / max(1, len(texts))
    if words < MIN_WORDS:
        # Where all inputs are in lower case, so are those that people will write.
        is_lower = all(example.input == example.input.lower() for example in corpus.examples)
        if data.fold_case is None and is_lower:
            return data.model_copy(update={"fold_case": True})
        return data
    if corpus.form == "label":
        chosen: dict[str, Any] = {"tokenizer": "word", "min_word_count": 1, "fold_case": True}
        size = corpus.stats.characters * max(2, len(corpus.symbols))
        if is_planned and size <= 2 * MAX_CLASSIFIED_CHARACTERS:
            chosen = {"tokenizer": "char", "fold_case": True}
    else:
        chosen = {"tokenizer": "bpe", "vocab_size": EXAMPLE_VOCABULARY}
    new = {key: value for key, value in chosen.items() if key not in data.model_fields_set}
    return data.model_copy(update=new)


def encode_splits(
    corpus: AnyCorpus, tokenizer: Tokenizer, data: DataConfig
) -> dict[SplitName, TokenDataset]:
    """Split the corpus and encode each split.

    Raises:
        MoreishError: the corpus is too small to be split, or most of it is unknown to the
            tokenizer.
    """
    checked: SplitName = "train"
    if isinstance(corpus, PreparedDataset):
        splits, checked = corpus.splits(), "val"  # its training split is too large to count
    elif isinstance(corpus, ExampleCorpus):
        assert isinstance(tokenizer, ExampleTokenizer)
        splits = encode_examples(corpus, tokenizer, data.split, data.split_seed)
    else:
        splits = encode_corpus(corpus, tokenizer, data.split, data.split_seed)
    if tokenizer.unk_id is not None:
        counts_V = count_tokens(splits[checked].ids_N, tokenizer.vocab_size)
        boundaries = 0 if tokenizer.boundary_id is None else counts_V[tokenizer.boundary_id]
        unknown = counts_V[tokenizer.unk_id] / (counts_V.sum() - boundaries)
        if unknown > 0.5:
            raise MoreishError(
                f"{unknown:.0%} of the words are too rare for the vocabulary: --set "
                "data.min_word_count=1, or another --tokenizer"
            )
    return splits


def describe_dataset(
    corpus: AnyCorpus, tokenizer: Tokenizer, splits: dict[SplitName, TokenDataset]
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
    if isinstance(corpus, ExampleCorpus):
        facts["targets"] = corpus.form
        assert isinstance(tokenizer, ExampleTokenizer)
        facts["outputs"] = tokenizer.num_outputs
        facts["labels"] = len(corpus.symbols) if corpus.form == "label" else None
        facts["longest_target"] = max(tokens.longest_target for tokens in splits.values())
    if corpus.kind != "text":
        facts["kind"] = corpus.kind
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


def resolve_device(name: str, model: type[Model] | None = None) -> torch.device:
    """Return the device that `train.device` names.

    "auto" is this process's CUDA GPU; else, for a network without counts, the GPU of a Mac (MPS);
    else the CPU.

    Args:
        name: a PyTorch device, or "auto".
        model: the class of the model; None if the planner is to choose it.

    Raises:
        MoreishError: there is no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank())
        # Looking up counts takes operations, and float64, that MPS does not have.
        is_network = model and not issubclass(model, CountBasedModel | NetworkWithCounts)
        return torch.device("mps" if is_network and torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).sum().item()  # some devices exist but cannot compute
    except (RuntimeError, AssertionError, ImportError, AttributeError):
        raise MoreishError(f"train.device={name}: this device is not available; use auto") from None
    return device


class _SkippedInitialization(TorchFunctionMode):
    """Skips the initialization of weights, which takes most of the time that a model without memory
    takes to build."""

    _SKIPPED = {
        nn.init.kaiming_uniform_, nn.init.normal_, nn.init.ones_, nn.init.uniform_, nn.init.zeros_,
    }  # fmt: skip

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        options = options or {}
        if function in self._SKIPPED:
            return arguments[0] if arguments else options["tensor"]
        return function(*arguments, **options)


def build_meta_model(config: ModelConfig, vocab_size: int) -> Model:
    """Build a model without memory for its weights. Raises MoreishError when it cannot be built."""
    try:
        with torch.device("meta"), _SkippedInitialization():
            return build_model(config, vocab_size)
    except RuntimeError as error:
        raise MoreishError(f"this model cannot be built: {error}") from None


def build_sampler(run_config: RunConfig, tokens: TokenDataset, model: Model) -> BatchSampler:
    """Create the sampler of training batches."""
    config, seed = run_config.train, run_config.seed
    overlap = 0 if model.max_length is not None else model.context - 1
    length = model.max_length or DEFAULT_WINDOW + overlap
    windows = BatchSampler(
        tokens, batch_size=1, length=length, overlap=overlap, seed=seed
    ).num_windows
    rows = max(1, round(config.batch_tokens / (tokens.num_predictions / windows)))
    if isinstance(config.batch_size, int):
        rows = config.batch_size
    if tokens.separator is not None:
        tokens = replace(tokens, masks_inputs=run_config.data.mask_inputs)
        if tokens.stream is not None:
            return StreamSampler(tokens, batch_size=rows, length=length, overlap=overlap, seed=seed)
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
    return BatchSampler(tokens, batch_size=rows, length=length, overlap=overlap, seed=seed)
