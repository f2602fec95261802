"""A trained run: sampling, exact losses, and what is new in a text."""

import math
import random
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moreish.data import SplitName, TokenDataset
from moreish.distributed import SINGLE_PROCESS, ProcessGroup
from moreish.errors import MoreishError, command, nearest
from moreish.evaluate import (
    AdaptiveModel,
    NearestItemIndex,
    NextToken,
    OverlapIndex,
    Score,
    TextNovelty,
    TokenSurprisal,
    TrainingIndex,
    adaptive_losses,
    coded_bytes,
    evaluate_losses,
    next_tokens,
    pair_loss,
    running_loss,
    running_losses,
    score,
    surprisal,
    uniform_loss,
)
from moreish.generate import (
    CompileLimits,
    Constraint,
    Prediction,
    Predictor,
    Sampling,
    Search,
    TextGenerator,
    compile_constraint,
    parse_length,
)
from moreish.models import Model
from moreish.python_errors import names_arguments
from moreish.runs.folder import RunFolder
from moreish.runs.notebook import run_html
from moreish.runs.predicting import (
    MAX_PREDICTED,
    MAX_PREDICTED_IN_TRAINING,
    Predicted,
    make_predictor,
    predict_split,
    score_predictions,
)
from moreish.tokenizers import Ids
from moreish.utils.extras import import_extra

NORMAL_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
"""Unicode normal forms in which accented letters of a prompt are tried."""

RANKS = ("likelihood", "novelty")

MAX_BEAMS = 100
"""Largest number of hypotheses of beam search."""

MAX_TEMPERATURE = 100
"""Largest temperature at which targets are sampled."""

MAX_SCORED_TRAINING_TOKENS = 2_000_000
"""Largest training split of prepared text that an evaluation includes."""

MAX_VALIDATION_PREDICTIONS = 250_000
"""Predictions that an evaluation during training scores."""

MAX_VALIDATION_LOGITS = 1 << 25
"""The same number times the size of the vocabulary."""

MIN_VALIDATION_PREDICTIONS = 4096
"""Predictions that are scored with any vocabulary."""

MIN_VALIDATION_EXAMPLES = 200
"""Examples that are scored with any vocabulary, however long they are."""

VALIDATION_BLOCK = 16_384
"""Maximum length in tokens of the blocks of running text that they are spread over."""

TEXT_TOKENS = 500
"""Default length of a sample of running text, in tokens."""


INTERNAL = frozenset({
    "add_running_loss", "check_text", "count_test_evaluation", "create", "default_max_tokens",
    "encode_remembered", "extend", "handle_unknown", "has_data", "has_weights",
    "initial_context", "load_initial_weights", "load_weights", "mean_surprisal", "memory",
    "nearest_item_index", "new_model", "overlap_index", "predict_split", "predictor",
    "read_metrics", "save_weights", "score", "text_generator", "training_bytes",
    "training_index", "unseen_items", "update", "uses_prepared_data", "validation_sample",
})  # fmt: skip
"""Members of `Run` for the other packages of Moreish, which completion leaves out."""

PREVIEW_TOKENS = 80
"""Length of the sample of running text that a notebook shows."""


class Samples(list[str]):
    """Sampled texts, and the random seed that gives the same ones again."""

    def __init__(self, texts: Iterable[str], seed: int) -> None:
        super().__init__(texts)
        self.seed = seed


class Run(RunFolder):
    """A training run and its results, in a folder that works without the source text.

    `moreish.load(path)` opens one; `moreish.train(...)` returns one.
    """

    def __repr__(self) -> str:
        facts = f"{self.config.model.name} on {self.record.data.name}, {self.record.status}"
        if (score := self.scores.get("val")) is not None:
            guess = self.guessing_loss
            facts += f", validation loss {score.loss:.4f} nats/token (guessing: {guess:.4f})"
        return f"Run('{self.path}': {facts})"

    def _repr_html_(self) -> str:
        samples: list[str] = []
        with suppress(MoreishError):  # no weights yet, or damaged ones: the rest is still shown
            count, tokens = (6, None) if self.kind == "lines" else (1, PREVIEW_TOKENS)
            samples = self.sample(count, max_tokens=tokens, seed=0)
        return run_html(self, ["\n".join(samples)] if samples else [])

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in INTERNAL]

    # --- sampling ---

    @names_arguments
    def sample(
        self,
        n: int = 1,
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        best_of: int = 1,
        seed: int | None = None,
        new_only: bool = False,
        unique: bool = False,
        unknown: str = "error",
        remember: str = "",
        ends: str | None = None,
        contains: str | None = None,
        regex: str | None = None,
        length: str | int | None = None,
        max_overlap: int | None = None,
        rank: str | None = None,
    ) -> Samples:
        """Sample texts that begin with a prompt.

        Args:
            n: number of texts.
            prompt: how every text begins.
            max_tokens: largest number of tokens to sample (default: 500 for running text; for
                items, four times the longest training item or twice the smallest `length`).
            temperature: below 1 sharpens the distribution; 0 always takes the most likely token.
            top_k: sample from the k most likely tokens only.
            top_p: sample from the most likely tokens whose probabilities add up to this.
            min_p: sample from tokens at least this fraction as likely as the most likely one.
            repetition_penalty: above 1, tokens of the prompt and the text become less likely.
            stop: a text ends before this string, or before the first of several.
            best_of: sample this many times as many texts, and return the most likely ones, by
                their mean log-probability per token, most likely first.
            seed: random seed; the same seed gives the same texts. None draws a new one, which the
                result has as `seed`.
            new_only: reject texts that occur in the data.
            unique: return no text twice.
            unknown: "error" or "drop", for characters of the prompt that are not in the vocabulary.
            remember: text that the model has read before the prompt, for models with a memory of
                recent text (`model.memory`): its names and phrases are likely to recur.
            ends, contains, regex, length: constraints on items that hold by construction: the end,
                a substring, a pattern for the whole item, and its length in characters (`5`,
                `3..7`, `3..`).
            max_overlap: reject texts that share more consecutive characters with the training data.
            rank: "likelihood" (most likely first) or "novelty" (least similar to the training data
                first); None keeps the order in which they were sampled.

        Returns:
            A list of texts, whose attribute `seed` is the seed that was used.

        Raises:
            MoreishError: an option is out of range, the prompt has unknown characters, nothing can
                satisfy the constraints, or too few acceptable texts were found.
        """
        if n < 1:
            raise MoreishError(f"-n {n}: ask for at least one text")
        if max_overlap is not None and max_overlap < 1:
            raise MoreishError(f"--max-overlap {max_overlap}: give at least 1")
        if rank not in (None, *RANKS):
            raise MoreishError(f"--rank {rank}: {nearest(str(rank), RANKS)}")
        seed = _new_seed() if seed is None else seed
        constraint = Constraint(
            ends=ends,
            contains=contains,
            regex=regex,
            length=None if length is None else parse_length(str(length)),
        )
        if best_of < 1:
            raise MoreishError(f"--best-of {best_of}: give 1 or more")
        sampling = _parse_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        generator = self.text_generator(
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            stop=stop,
            seed=seed,
            unknown=unknown,
            remember=remember,
            constraint=constraint,
        )
        training_texts = self.training_index if new_only else ()
        seen: set[str] = set()

        def accept(ids: Ids) -> bool:
            text = generator.decode(ids)
            if new_only and text.encode() in training_texts:
                return False
            if max_overlap is not None and self._overlap(text) > max_overlap:
                return False
            if unique and text in seen:
                return False
            seen.add(text)
            return True

        texts = list(generator.texts(n * best_of, accept, distinct=unique))
        if best_of > 1:
            texts = sorted(texts, key=self.mean_surprisal)[:n]
        if rank is not None:
            texts.sort(key=self.mean_surprisal if rank == "likelihood" else self._similarity)
        return Samples(texts, seed)

    def mean_surprisal(self, text: str) -> float:
        """Return the mean surprisal of a text in nats per token; infinite for an empty one."""
        tokens = self.surprisal(text) if text else []
        return sum(token.nats for token in tokens) / len(tokens) if tokens else math.inf

    def _similarity(self, text: str) -> float:
        """Return how similar a text is to the training data, relative to its length."""
        if self.kind == "lines":
            return -self.nearest_item_index.nearest(text)[1] / max(1, len(text))
        return self._overlap(text) / max(1, len(text))

    @names_arguments
    def stream(
        self,
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        unknown: str = "error",
        remember: str = "",
    ) -> Iterator[str]:
        """Sample one text in pieces: the first text that `sample` returns for the same seed.

        Args:
            prompt, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, stop, seed,
                unknown, remember: as in `sample`.

        Raises:
            MoreishError: as in `sample`.
        """
        sampling = _parse_sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        generator = self.text_generator(
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=sampling,
            seed=_new_seed() if seed is None else seed,
            unknown=unknown,
            remember=remember,
            stop=stop,
        )
        return generator.stream()

    @names_arguments
    def next(
        self, prompt: str = "", n: int = 10, *, unknown: str = "error", remember: str = ""
    ) -> list[NextToken]:
        """Return the most likely tokens after a prompt, with their probabilities.

        Args:
            prompt: the text before; empty for the start of a text.
            n: how many tokens to return, at most as many as there are in the vocabulary.
            unknown, remember: as in `sample`.

        Raises:
            MoreishError: `n` is below 1, the prompt or the text to remember has unknown
                characters, or the model has no memory.
        """
        self.check_text()
        if n < 1:
            raise MoreishError(f"-n {n}: ask for at least one token")
        ids = self.tokenizer.encode(self.handle_unknown(prompt, unknown))
        ids = np.concatenate([self.encode_remembered(remember, unknown, ids), ids])
        return next_tokens(self.model, self.tokenizer, ids, n)

    def text_generator(
        self,
        *,
        prompt: str,
        sampling: Sampling,
        seed: int = 0,
        max_tokens: int | None = None,
        unknown: str = "error",
        remember: str = "",
        model: Model | None = None,
        constraint: Constraint | None = None,
        stop: str | Sequence[str] = (),
        limits: CompileLimits = CompileLimits(),  # noqa: B008 (it is immutable)
    ) -> TextGenerator:
        """Set up sampling.

        Args:
            prompt, seed, max_tokens, unknown, remember: as in `sample`.
            sampling: temperature, top-k and top-p.
            model: None for the run's best.
            constraint: what each item must match.
            stop: as in `sample`.
            limits: bounds on the work of compiling it.

        Raises:
            MoreishError: as in `sample`.
        """
        self.check_text()
        if max_tokens is not None and max_tokens < 1:
            raise MoreishError(f"--max-tokens {max_tokens}: give at least 1")
        if seed < 0:
            raise MoreishError(f"--seed {seed}: give 0 or more")
        ids = self.tokenizer.encode(self.handle_unknown(prompt, unknown))
        max_tokens = max_tokens or self.default_max_tokens(constraint)
        automaton = None
        if constraint:
            if self.kind == "text":
                raise MoreishError(
                    f"{constraint} is for lists; for running text, use --prompt to set how a text "
                    "begins"
                )
            max_length = len(ids) + max_tokens - 1
            if constraint.length and constraint.length[0] > max_length:
                needed = constraint.length[0] - len(ids) + 1
                raise MoreishError(f"{constraint}: that takes --max-tokens {needed} or more")
            tokens = self.split("train")
            automaton = compile_constraint(constraint, self.tokenizer, tokens, max_length, limits)
            automaton.state_after(ids)  # raises if nothing can match
        return TextGenerator(
            model=model or self.model,
            tokenizer=self.tokenizer,
            prompt=ids,
            prefix=self.encode_remembered(remember, unknown, ids),
            max_tokens=max_tokens,
            sampling=sampling,
            seed=seed,
            automaton=automaton,
            stop=tuple(filter(None, [stop] if isinstance(stop, str) else stop)),
        )

    def default_max_tokens(self, constraint: Constraint | None = None) -> int:
        """Return the default of `max_tokens`."""
        longest = self.record.data.longest_item
        tokens = TEXT_TOKENS if longest is None else max(4 * longest, 32)
        return max(tokens, 2 * constraint.length[0]) if constraint and constraint.length else tokens

    def handle_unknown(self, text: str, unknown: str) -> str:
        """Check a text for characters that are not in the vocabulary.

        Args:
            text: any text.
            unknown: "error" to reject them, "drop" to remove them.

        Raises:
            MoreishError: there are some, and `unknown` is "error".
        """
        if unknown not in ("error", "drop"):
            raise MoreishError(f"--unknown {unknown}: {nearest(unknown, ['error', 'drop'])}")
        text = self.tokenizer.normalize_prompt(text)
        missing = self.tokenizer.find_unknown(text)
        for form in NORMAL_FORMS if missing else ():  # accents as in the training text
            other = unicodedata.normalize(form, text)
            if not self.tokenizer.find_unknown(other):
                return other
        if missing and unknown == "error":
            shown = " ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
            what = "words" if self.tokenizer.unk_id is not None else "characters"
            raise MoreishError(
                f"not in the model's vocabulary: {shown}; change the text, or remove unknown "
                f"{what} with --unknown drop"
            )
        return self.tokenizer.drop_unknown(text) if missing else text

    def initial_context(self, prompt: Ids) -> Ids:
        """Return the tokens before a text: a boundary if the tokenizer has one. Without one, a line
        feed (or the first training token) precedes an empty prompt, and nothing other prompts."""
        if self.tokenizer.boundary_id is not None:
            return np.array([self.tokenizer.boundary_id])
        if len(prompt):
            return prompt[:0]
        if not self.tokenizer.find_unknown("\n"):
            return self.tokenizer.encode("\n")
        return self.split("train").ids_N[:1].astype(np.int64)

    def encode_remembered(self, text: str, unknown: str, prompt: Ids) -> Ids:
        """Return the tokens before a prompt: those of a text to remember, and `initial_context`.

        Raises:
            MoreishError: the model has no memory, or does not know characters of the text; with
                `unknown` "drop", if it knows none of them.
        """
        if not text:
            return self.initial_context(prompt)
        if not self.memory:
            raise MoreishError(
                f"this model ({self.config.model.name}) has no memory of recent text; a hybrid of "
                "running text has one (--model hybrid)"
            )
        kept = self.handle_unknown(text, unknown)
        if text.strip() and not kept.strip():
            raise MoreishError("nothing of the text to remember is in the model's vocabulary")
        if self.tokenizer.boundary_id is None and not kept.endswith("\n"):
            kept += "\n" if not self.tokenizer.find_unknown("\n") else ""
        ids = self.tokenizer.encode(kept)
        boundary = self.initial_context(ids)
        return np.concatenate([boundary, ids, boundary]).astype(np.int64)

    @property
    def memory(self) -> int:
        """Number of tokens that the model's memory of recent text reaches; 0 without one."""
        return getattr(self.config.model, "memory", 0) or 0

    @property
    def guessing_loss(self) -> float:
        """The loss of a uniform guess, in nats per token."""
        return uniform_loss(self.record.data.vocabulary)

    @cached_property
    def baselines(self) -> dict[str, float]:
        """The validation losses, in nats per token, of a uniform guess and, unless the vocabulary
        is large, of counted pairs of tokens."""
        size = self.tokenizer.vocab_size
        found = {"guessing": self.guessing_loss}
        if self.kind == "examples":
            return found
        pairs = pair_loss(self.split("train"), self.split("val"), size)
        if pairs is not None:
            is_char = self.config.data.tokenizer == "char"
            found["letter pairs" if is_char else "token pairs"] = pairs
        return found

    # --- novelty ---

    @cached_property
    def training_index(self) -> TrainingIndex:
        """Index of the data of all splits, to look up whole texts."""
        self.split("train")  # an imported model has none
        texts = (self._bytes_of(name) for name in self.split_names)
        return TrainingIndex(texts, items=self.kind == "lines")

    @cached_property
    def overlap_index(self) -> OverlapIndex:
        """Index of the training data, to find the longest substring that a text shares with
        them."""
        return OverlapIndex(self.training_bytes)

    @cached_property
    def nearest_item_index(self) -> NearestItemIndex:
        """Index of the items of all splits, as in `training_index`, to find the one nearest to a
        text."""
        texts = (self._bytes_of(name) for name in self.split_names)
        return NearestItemIndex(b"\n".join(texts).decode("utf-8", "replace").split("\n"))

    @cached_property
    def training_bytes(self) -> bytes:
        """The training data in UTF-8, one item or document per line."""
        return self._bytes_of("train")

    def _bytes_of(self, name: SplitName) -> bytes:
        self._check_searchable()
        ids = self.split(name).ids_N[:].astype(np.int64)
        if (boundary := self.tokenizer.boundary_id) is None:
            return self.tokenizer.decode_bytes(ids)
        # Boundaries have no bytes, so a document ends where the bytes before its boundary end.
        lengths = self.tokenizer.byte_lengths()[ids] - self.tokenizer.implied_spaces(ids)
        ends = np.cumsum(np.where(ids == boundary, 0, lengths))
        edges = np.unique(ends[ids == boundary]).tolist()
        content = self.tokenizer.decode_bytes(ids)
        return b"\n".join(
            content[a:b] for a, b in zip([0, *edges], [*edges, len(content)], strict=True) if a < b
        )

    def _overlap(self, text: str) -> int:
        """Return how many consecutive characters a text shares with the training data."""
        return len(self.overlap_index.longest_overlap(text).text)

    @names_arguments
    def novelty(self, texts: Sequence[str]) -> list[TextNovelty]:
        """Compare each text with the training data."""
        self.check_text()
        results = []
        for text in texts:
            overlap = self.overlap_index.longest_overlap(text)
            place, passage = self.overlap_index.locate(overlap)
            item, distance, known = None, None, len(overlap.text) == len(text)
            if self.kind == "lines":
                item, distance = self.nearest_item_index.nearest(text)
                known = distance == 0
            results.append(
                TextNovelty(
                    text=text,
                    known=known,
                    overlap=overlap.text,
                    place=place,
                    passage=passage,
                    nearest=item,
                    distance=distance,
                )
            )
        return results

    # --- losses ---

    def history(self) -> list[dict[str, Any]]:
        """Return the log of training, one record for each logged step, as pandas.DataFrame takes
        it.

        The keys are those of metrics.jsonl (step, tokens, seconds, loss, lr, …), and `val_loss`,
        `val_stderr` and the like where the validation split was evaluated. Models that only count
        have no steps, so their log is empty.
        """
        records: dict[int, dict[str, Any]] = {}
        for entry in self.read_metrics():
            record = records.setdefault(entry["step"], {})
            record |= {k: v for k, v in entry.items() if k not in ("val", "samples")}
            record |= {f"val_{key}": value for key, value in entry.get("val", {}).items()}
        return [records[step] for step in sorted(records)]

    @names_arguments
    def plot(self) -> Any:
        """Draw the training and validation losses by step.

        Returns:
            A matplotlib Figure, which a notebook shows and `savefig` writes.

        Raises:
            MoreishError: matplotlib is not installed (`pip install 'moreish[figures]'`), or the
                run has no log of losses.
        """
        import_extra("matplotlib", "figures", "drawing")
        # Figures come after runs in the order of imports; only a call of this method needs them.
        return import_module("moreish.figures").plot_losses(self)

    @names_arguments
    def evaluate(
        self,
        *,
        test: bool = False,
        stride: int | None = None,
        adaptive: bool = False,
        code: bool = False,
        progress: Callable[[str, float], None] | None = None,
    ) -> dict[SplitName, Score]:
        """Compute the exact loss on the training and validation splits, and optionally on test.

        A training split of prepared text is left out if it has more than 2,000,000 tokens.

        Args:
            test: whether to evaluate the test split too; run.json counts how often that was done.
            stride: as in `moreish.evaluate.evaluate_losses`.
            adaptive: whether to compute the loss of a copy that learns from the text it has read.
            code: whether to write validation and test with an arithmetic coder, with the adaptive
                copy if there is one, and to decode them again.
            progress: called with the name of a split and the fraction of it that is done.

        Raises:
            MoreishError: the run has no data, or they are damaged; or it is a list and `adaptive`.
        """
        if adaptive and self.kind != "text":
            what = "items of a list" if self.kind == "lines" else "examples"
            raise MoreishError(
                f"adaptive evaluation is for running text: the {what} are independent"
            )
        if code:
            self.check_text()
        names: list[SplitName] = ["val", "test"] if test else ["val"]
        for name in names:
            self.split(name)  # raises at once if there is none
        train_tokens = self.record.data.tokens["train"]
        is_large = self.uses_prepared_data and train_tokens > MAX_SCORED_TRAINING_TOKENS
        if not (is_large or self._is_training_data_missing):
            names.insert(0, "train")
        scores = {}
        for name in names:
            scores[name] = self.score(name, stride=stride, progress=progress)
            if name != "train":
                scores[name] = self.add_running_loss(scores[name], name, progress=progress)
                report = None if progress is None else partial(progress, name)
                scores[name] = self._add_adaptive(scores[name], name, adaptive, code, report)
        return scores

    def _add_adaptive(
        self,
        score: Score,
        name: SplitName,
        adaptive: bool,
        code: bool,
        progress: Callable[[float], None] | None,
    ) -> Score:
        """Return the score of a split with its adaptive loss and the length of its code, if they
        were asked for."""
        tokens, more = self.split(name), {}
        training = self.split("train") if adaptive and not self._is_training_data_missing else None
        if adaptive:
            losses = adaptive_losses(self.model, tokens, training, progress)
            more["adaptive_loss"] = float(losses.mean(dtype=np.float64))
        if code:
            fresh = partial(AdaptiveModel, self.model, training) if adaptive else lambda: None
            more["code_bytes"] = coded_bytes(self.model, tokens, fresh, progress)
        return score.model_copy(update=more)

    def score(
        self,
        name: SplitName,
        model: Model | None = None,
        *,
        stride: int | None = None,
        progress: Callable[[str, float], None] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
        tokens: TokenDataset | None = None,
        brief: bool = False,
    ) -> Score:
        """Compute the exact score of one split; evaluations of the test split are counted.

        Args:
            name: the split.
            model: None for the run's best.
            stride, progress: as in `evaluate`.
            group: the processes that share the work.
            tokens: a sample of the split, such as `validation_sample`, in place of all of it.
            brief: whether few targets of examples are predicted, as in evaluations during training.
        """
        tokens = tokens or self.split(name)
        report = None if progress is None else lambda share: progress(name, share)
        losses = evaluate_losses(model or self.model, tokens, stride, report, group)
        if name == "test":
            self.count_test_evaluation()
        found = score(losses, tokens, self.tokenizer, self.unseen_items(name, tokens))
        if self.kind != "examples":
            return found
        is_brief = brief or name == "train"
        number = MAX_PREDICTED_IN_TRAINING if is_brief else MAX_PREDICTED
        predicted = self.predict_split(self.split(name), number, model=model)
        scores = score_predictions(predicted, full=not is_brief)
        return found.model_copy(update={"predicted": len(predicted.examples), **scores})

    def predict_split(
        self,
        tokens: TokenDataset,
        number: int,
        *,
        search: Search = Search(),  # noqa: B008 (it is immutable)
        model: Model | None = None,
    ) -> Predicted:
        """Predict the targets of a number of inputs of a split.

        Args:
            tokens: the split.
            number: how many different inputs, spread evenly over it; each with all of its targets.
            search: how targets are looked for.
            model: None for the run's best.
        """
        return predict_split(self.predictor(model), tokens, number, search)

    def predictor(self, model: Model | None = None) -> Predictor:
        """Return what predicts targets, with the run's best weights or another model.

        Raises:
            MoreishError: the run was trained on a text.
        """
        if self.kind != "examples":
            raise MoreishError(
                f"{self.path} was trained on a text, not on examples: predict needs inputs with "
                "targets; to continue a text, use sample"
            )
        return make_predictor(model or self.model, self.tokenizer, self.config, self.record.data)

    def check_text(self) -> None:
        """Raise MoreishError where the run predicts the targets of examples, and writes no text."""
        if self.kind == "examples":
            raise MoreishError(
                f"{self.path} predicts the targets of inputs: {command('predict', self.path)}"
            )

    @names_arguments
    def predict(
        self,
        inputs: str | Sequence[str],
        *,
        beams: int = 1,
        length_penalty: float = 1.0,
        temperature: float = 0.0,
        seed: int = 0,
        unknown: str = "error",
    ) -> list[Prediction]:
        """Predict the target of each input, for runs of examples.

        Args:
            inputs: one or several inputs.
            beams: number of hypotheses of beam search; 1 always takes the most likely token.
            length_penalty: exponent of the length by which beam search divides log-probabilities.
            temperature: above 0, targets are sampled at this temperature instead.
            seed: random seed of sampling.
            unknown: "error" or "drop", for characters that are not in the vocabulary. Of inputs to
                classify, they are left out in any case; unknown words have a token of their own.

        Returns:
            For each input, a `Prediction`: its target, the probability of that, and alternatives.

        Raises:
            MoreishError: the run is not one of examples, an option is out of range, or an input
                cannot be read.
        """
        predictor = self.predictor()
        if not 1 <= beams <= MAX_BEAMS:
            raise MoreishError(f"--beams {beams}: give 1 to {MAX_BEAMS}")
        if not 0 <= temperature <= MAX_TEMPERATURE:
            raise MoreishError(f"--temperature {temperature:g}: give 0 to {MAX_TEMPERATURE}")
        if temperature and beams > 1:
            raise MoreishError("--beams and --temperature: search for a target or sample it")
        if seed < 0:
            raise MoreishError(f"--seed {seed}: give 0 or more")
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        known = []
        for number, text in enumerate(texts, 1):
            try:
                known.append(self._known_input(text, unknown))
            except MoreishError as error:
                raise MoreishError(f"input {number:,}: {error}") from None
        search = Search(
            beams=beams, length_penalty=length_penalty, temperature=temperature, seed=seed
        )
        found = predictor.predict(known, search)
        return [replace(each, input=text) for each, text in zip(found, texts, strict=True)]

    def _known_input(self, text: str, unknown: str) -> str:
        """Return an input as the model can read it. Unknown words are read as such, as in the
        validation split; for unknown characters, see `handle_unknown`. Of an input to classify,
        they are left out, as what is known may well decide."""
        if self.config.task is not None:
            return text
        if self.tokenizer.unk_id is not None and unknown == "error":
            return self.tokenizer.normalize_prompt(text)
        is_label = self.record.data.targets == "label"
        return self.handle_unknown(text, "drop" if is_label and unknown == "error" else unknown)

    def add_running_loss(
        self,
        score: Score,
        name: SplitName,
        model: Model | None = None,
        *,
        progress: Callable[[str, float], None] | None = None,
        max_seconds: float = math.inf,
    ) -> Score:
        """Return the score of a split with the loss of a state that is carried through all of it;
        unchanged for lists, whose items are independent, or if it would take too long."""
        report = None if progress is None else lambda share: progress(name, share)
        losses = running_losses(model or self.model, self.split(name), report, max_seconds)
        return score if losses is None else score.model_copy(update=running_loss(losses))

    @cached_property
    def validation_sample(self) -> TokenDataset:
        """What evaluations during training score: the validation split, or a sample of a large
        one."""
        tokens = self.split("val")
        affordable = MAX_VALIDATION_LOGITS // (
            self.record.data.outputs or self.tokenizer.vocab_size
        )
        predictions = max(affordable, MIN_VALIDATION_PREDICTIONS)
        predictions = min(predictions, MAX_VALIDATION_PREDICTIONS)
        if self.kind == "examples":
            mean_length = tokens.num_predictions // len(tokens.separators)
            predictions = max(predictions, MIN_VALIDATION_EXAMPLES * mean_length)
        return tokens.sample(predictions, min(predictions, VALIDATION_BLOCK))

    def unseen_items(self, name: SplitName, tokens: TokenDataset) -> NDArray[np.bool_] | None:
        """Return for each item of a split, or of a sample of it, whether it is not in the training
        split."""
        if name == "train" or not tokens.items or self.kind == "examples":
            return None
        if tokens not in self._unseen:
            self._unseen[tokens] = ~np.isin(tokens.item_hashes(), self._training_hashes)
        return self._unseen[tokens]

    @cached_property
    def _training_hashes(self) -> NDArray[np.uint64]:
        return self.split("train").item_hashes()

    @names_arguments
    def surprisal(
        self, text: str, *, unknown: str = "error", remember: str = ""
    ) -> list[TokenSurprisal]:
        """Compute the surprisal (minus log-probability, in nats) of each token of a text.

        Args:
            text: an item, a document, or other running text.
            unknown, remember: as in `sample`.
        """
        self.check_text()
        text = self.handle_unknown(text, unknown)
        prefix = self.encode_remembered(remember, unknown, self.tokenizer.encode(""))
        return surprisal(
            self.model, self.tokenizer, text, prefix=prefix, items=self.kind == "lines"
        )


def _parse_sampling(
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float,
) -> Sampling:
    """Check these settings. Raises MoreishError if one is out of range."""
    return Sampling.parse(locals(), "sample")


def _new_seed() -> int:
    return random.SystemRandom().getrandbits(32)
