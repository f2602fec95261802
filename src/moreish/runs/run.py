"""What a trained model is for: samples, losses, what is new in a text."""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from moreish.data import SplitName
from moreish.distributed import SINGLE_PROCESS, ProcessGroup
from moreish.errors import MoreishError, nearest
from moreish.evaluate import (
    NearestItemIndex,
    OverlapIndex,
    Score,
    TextNovelty,
    TokenSurprisal,
    TrainingIndex,
    evaluate_losses,
    score,
    surprisal,
)
from moreish.generate import (
    CompileLimits,
    Constraint,
    Sampling,
    TextGenerator,
    compile_constraint,
    parse_length,
)
from moreish.models import Model
from moreish.runs.folder import RunFolder
from moreish.tokenizers import Ids

RANKS = ("likelihood", "novelty")

MAX_SCORED_TRAINING_TOKENS = 2_000_000
"""Training tokens of prepared text up to which their exact loss is part of an evaluation."""

TEXT_TOKENS = 500
"""Length of a sample of running text, where none is asked for."""


class Run(RunFolder):
    """One training and its results, in a folder that works without the source text.

    Open one with `moreish.load(path)`; `moreish.train(...)` returns one.
    """

    def sample(
        self,
        n: int = 1,
        *,
        prompt: str = "",
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        new_only: bool = False,
        unique: bool = False,
        unknown: str = "error",
        ends: str | None = None,
        contains: str | None = None,
        regex: str | None = None,
        length: str | None = None,
        max_overlap: int | None = None,
        rank: str | None = None,
    ) -> list[str]:
        """`n` texts that begin with `prompt`; the same seed gives the same texts.

        Args:
            max_tokens: the most tokens to draw; by default 500 of running text, and for items four
                times the longest one, which they reach hardly ever, or twice the least `length`.
            temperature: below 1 more likely, above 1 more surprising, 0 always the likeliest.
            new_only: nothing that stands in the data.
            unique: no text twice.
            unknown: "error" or "drop": what to do with characters that the model never saw.
            ends, contains, regex, length: of items only: how each ends, what stands in it, what
                matches it whole, and its characters (`5`, `3..7`, `3..`); by construction.
            max_overlap: no text with more characters in a row that stand in the training data.
            rank: "likelihood" (most likely first) or "novelty" (farthest from the training data
                first); None leaves them as drawn.

        Raises:
            MoreishError: a setting is out of range, the prompt has unknown characters, nothing can
                match, or too few texts that are wanted were found.
        """
        if n < 1:
            raise MoreishError(f"-n {n}: ask for at least one text")
        if max_overlap is not None and max_overlap < 1:
            raise MoreishError(f"--max-overlap {max_overlap}: give at least 1")
        if rank not in (None, *RANKS):
            raise MoreishError(f"--rank {rank}: {nearest(str(rank), RANKS)}")
        asked = Constraint(
            ends=ends,
            contains=contains,
            regex=regex,
            length=None if length is None else parse_length(length),
        )
        writer = self.writer(
            prompt=prompt,
            max_tokens=max_tokens,
            sampling=Sampling.parse(
                {"temperature": temperature, "top_k": top_k, "top_p": top_p}, "sample"
            ),
            seed=seed,
            unknown=unknown,
            asked=asked,
        )
        known = self.known if new_only else ()
        seen: set[str] = set()

        def wanted(ids: Ids) -> bool:
            if self.tokenizer.decode_bytes(ids) in known:
                return False
            if max_overlap is None and not unique:
                return True
            text = self.tokenizer.decode(ids)
            if (
                max_overlap is not None
                and len(self.passages.longest_overlap(text).text) > max_overlap
            ):
                return False
            if unique and text in seen:
                return False
            seen.add(text)
            return True

        texts = list(writer.texts(n, wanted))
        return texts if rank is None else self._ranked(texts, rank)

    def _ranked(self, texts: list[str], rank: str) -> list[str]:
        """Most likely first (by the mean over a text's tokens), or farthest from the data first."""

        def key(text: str) -> float:
            if rank == "likelihood":
                if not text:
                    return math.inf  # nothing was written, so nothing can be said of it
                tokens = self.surprisal(text)
                return sum(token.nats for token in tokens) / len(tokens)
            if self.kind == "lines":
                return -self.items.nearest(text)[1] / max(1, len(text))
            return len(self.passages.longest_overlap(text).text) / max(1, len(text))

        return sorted(texts, key=key)

    def stream(self, *, prompt: str = "", **options: Any) -> Iterator[str]:
        """One text in pieces, as it is drawn: the first that `sample` gives."""
        sampling = {key: options.pop(key, None) for key in ("top_k", "top_p")}
        sampling["temperature"] = options.pop("temperature", 1.0)
        return self.writer(
            prompt=prompt, sampling=Sampling.parse(sampling, "sample"), **options
        ).stream()

    def writer(
        self,
        *,
        prompt: str,
        sampling: Sampling,
        seed: int = 0,
        max_tokens: int | None = None,
        unknown: str = "error",
        model: Model | None = None,
        asked: Constraint | None = None,
        effort: CompileLimits = CompileLimits(),  # noqa: B008 (it cannot be changed)
    ) -> TextGenerator:
        """What draws texts: see `sample`. `model` None is the run's best."""
        if max_tokens is not None and max_tokens < 1:
            raise MoreishError(f"--max-tokens {max_tokens}: give at least 1")
        if seed < 0:
            raise MoreishError(f"--seed {seed}: give 0 or more")
        ids = self.tokenizer.encode(self.known_text(prompt, unknown))
        max_tokens = max_tokens or self.default_max_tokens(asked)
        automaton = None
        if asked:
            if self.kind == "text":
                raise MoreishError(f"{asked} is for lists; running text can be begun by --prompt")
            most = len(ids) + max_tokens - 1
            if asked.length and asked.length[0] > most:
                needed = asked.length[0] - len(ids) + 1
                raise MoreishError(f"{asked}: that takes --max-tokens {needed} or more")
            tokens = self.split("train")
            automaton = compile_constraint(asked, self.tokenizer, tokens, most, effort)
            automaton.state_after(ids)  # nothing can match: say so before anything is drawn
        return TextGenerator(
            model=model or self.model,
            tokenizer=self.tokenizer,
            prompt=ids,
            lead=self.lead(ids),
            max_tokens=max_tokens,
            sampling=sampling,
            seed=seed,
            automaton=automaton,
        )

    def default_max_tokens(self, asked: Constraint | None = None) -> int:
        """The most tokens that are drawn for a text where nothing is said of that."""
        longest = self.record.data.longest_item
        usual = TEXT_TOKENS if longest is None else max(4 * longest, 32)
        return max(usual, 2 * asked.length[0]) if asked and asked.length else usual

    def known_text(self, text: str, unknown: str) -> str:
        """`text` without the characters that the model never saw, if `unknown` is "drop"."""
        if unknown not in ("error", "drop"):
            raise MoreishError(f"--unknown {unknown}: {nearest(unknown, ['error', 'drop'])}")
        missing = self.tokenizer.find_unknown(text)
        if missing and unknown == "error":
            shown = " ".join(map(repr, missing[:10])) + (" …" if len(missing) > 10 else "")
            spaced = not self.tokenizer.find_unknown(f" {text}")
            raise MoreishError(
                f"the model never saw {shown}: change the text, or leave out what is unknown with "
                f"--unknown drop{'; with a space before it, it is known' if spaced else ''}"
            )
        return self.tokenizer.drop_unknown(text) if missing else text

    def lead(self, prompt: Ids) -> Ids:
        """What a text follows: a boundary; else, for an empty prompt, a line end or the like."""
        if self.tokenizer.boundary_id is not None:
            return np.array([self.tokenizer.boundary_id])
        if len(prompt):
            return prompt[:0]
        if not self.tokenizer.find_unknown("\n"):
            return self.tokenizer.encode("\n")
        return self.split("train").ids_N[:1].astype(np.int64)

    @cached_property
    def known(self) -> TrainingIndex:
        """Everything that stands in the data of this run, on whatever side of the split."""
        self.split("train")  # an imported model has none
        texts = (self._bytes_of(name) for name in self.split_names)
        return TrainingIndex(texts, items=self.kind == "lines")

    @cached_property
    def passages(self) -> OverlapIndex:
        """The training data as bytes, to look up what a text shares with them."""
        return OverlapIndex(self.training_bytes)

    @cached_property
    def training_bytes(self) -> bytes:
        """The training data in UTF-8, items and documents each on their line."""
        return self._bytes_of("train")

    def _bytes_of(self, name: SplitName) -> bytes:
        self.check_searchable()
        ids = self.split(name).ids_N[:].astype(np.int64)
        if (boundary := self.tokenizer.boundary_id) is None:
            return self.tokenizer.decode_bytes(ids)
        # Boundaries give no bytes, so each piece ends where those before it do.
        ends = np.cumsum(np.where(ids == boundary, 0, self.tokenizer.byte_lengths()[ids]))
        edges = np.unique(ends[ids == boundary]).tolist()
        whole = self.tokenizer.decode_bytes(ids)
        return b"\n".join(
            whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True) if a < b
        )

    @cached_property
    def items(self) -> NearestItemIndex:
        """The training items, to find the nearest to a text."""
        return NearestItemIndex(self.training_bytes.decode("utf-8", "replace").split("\n"))

    def novelty(self, texts: list[str]) -> list[TextNovelty]:
        """What each of `texts` owes to the training data."""
        return [self._novelty(text) for text in texts]

    def _novelty(self, text: str) -> TextNovelty:
        overlap = self.passages.longest_overlap(text)
        item, distance, known = None, None, len(overlap.text) == len(text)
        if self.kind == "lines":
            item, distance = self.items.nearest(text)
            known = distance == 0
        place, passage = self.passages.locate(overlap)
        return TextNovelty(
            text=text,
            known=known,
            overlap=overlap.text,
            place=place,
            passage=passage,
            nearest=item,
            distance=distance,
        )

    def evaluate(
        self,
        *,
        test: bool = False,
        stride: int | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> dict[SplitName, Score]:
        """Exact losses on the training and validation splits, and on the test split if asked. Of
        prepared text, the training split is left out unless it is small.

        Args:
            test: evaluate the test split too; run.json counts how often that was done.
            stride: see `moreish.evaluate.metrics.evaluation_spans`.
            progress: is told the split and the share of it that is done.
        """
        self.split("val")  # an imported model has none: say so at once
        names = self.split_names if test else [n for n in self.split_names if n != "test"]
        large = (
            self.uses_prepared_data
            and self.record.data.tokens["train"] > MAX_SCORED_TRAINING_TOKENS
        )
        if large or self.is_training_data_missing:  # it would take longer than the training did
            names.remove("train")
        if test:
            self.split("test")  # the lecture's split of running text has none: say so at once
        return {name: self.score(name, stride=stride, progress=progress) for name in names}

    def score(
        self,
        name: SplitName,
        model: Model | None = None,
        *,
        stride: int | None = None,
        progress: Callable[[str, float], None] | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> Score:
        """The exact score of one split; `model` None is the run's best. Of the test split it is
        counted. The processes of `group` share the work."""
        tokens = self.split(name)
        told = None if progress is None else lambda share: progress(name, share)
        losses = evaluate_losses(model or self.model, tokens, stride, told, group)
        if name == "test":
            self.count_test_evaluation()
        return score(losses, tokens, self.tokenizer)

    def surprisal(self, text: str, *, unknown: str = "error") -> list[TokenSurprisal]:
        """Each token of `text` with minus its log-probability in nats; `unknown` as in `sample`.

        It follows what a sample follows: the start of an item or a document, else a line end.
        """
        text = self.known_text(text, unknown)
        lead = self.lead(self.tokenizer.encode(""))
        return surprisal(self.model, self.tokenizer, text, lead=lead, items=self.kind == "lines")
