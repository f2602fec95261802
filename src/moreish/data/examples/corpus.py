"""Examples in memory: inputs with their targets, and how they are split."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise

from moreish.data.split import (
    SPLITS,
    SplitName,
    SplitRule,
    split_items,
    split_items_as_lecture,
)
from moreish.data.text import CorpusStats
from moreish.errors import MoreishError
from moreish.tasks import Example, Task
from moreish.tokenizers import TargetForm
from moreish.utils.text import plural

MIN_EXAMPLES_PER_LABEL = 5
"""Mean number of examples of a target from which targets are labels."""

MAX_LABELS = 10_000
"""Largest number of labels."""

MAX_TARGET_WORDS = 256
"""Largest number of distinct words of targets that are sequences of symbols, such as phonemes."""

MIN_WORD_COUNT = 20
"""Mean number of occurrences of such a word."""


@dataclass(frozen=True, kw_only=True)
class ExampleCorpus:
    """Examples, in the form that a model reads and writes them."""

    name: str
    examples: Sequence[Example]
    notes: list[str] = field(default_factory=list)
    """What was changed or guessed while reading, for the user."""
    sizes_of_split: tuple[int, ...] = ()
    """Number of examples of the training, validation and test split, in this order, where each has
    examples of its own."""
    task: Task | None = None
    """The task that generates them; its training split is a sample of what training reads."""
    target_form: TargetForm | None = None
    """What the targets are, where that is not to be guessed."""

    kind = "examples"
    has_boundary = True

    def with_held_out(self, *held_out: "ExampleCorpus") -> "ExampleCorpus":
        """Return this corpus as the training split, with those of validation and test."""
        corpora = (self, *held_out)
        return replace(
            self,
            examples=[example for corpus in corpora for example in corpus.examples],
            notes=list(dict.fromkeys(note for corpus in corpora for note in corpus.notes)),
            sizes_of_split=tuple(len(corpus.examples) for corpus in corpora),
        )

    def with_lower_case(self) -> "ExampleCorpus":
        """Return this corpus with all inputs in lower case, so that those which are equal to a
        model are on one side of a split."""
        return replace(self, examples=[Example(e.input.lower(), e.target) for e in self.examples])

    @cached_property
    def stats(self) -> CorpusStats:
        """Statistics of the examples; lengths are those of inputs and targets together."""
        lengths = [len(e.input) + len(e.target) for e in self.examples]
        characters = set().union(*map(set, self.texts_of(self.examples)))
        return CorpusStats(
            documents=len(self.examples),
            distinct=len(set(self.examples)),
            characters=sum(lengths),
            shortest=min(lengths),
            longest=max(lengths),
            alphabet="".join(sorted(characters)),
        )

    def texts_of(self, examples: Iterable[Example], *, fold_case: bool = False) -> Iterable[str]:
        """Yield what is encoded as text: all inputs, in lower case with `fold_case`, and targets
        that are text."""
        is_text = self.form == "text"
        for example in examples:
            yield example.input.lower() if fold_case else example.input
            if is_text:
                yield example.target

    @cached_property
    def form(self) -> TargetForm:
        """What the targets are."""
        return self.target_form or guess_target_form([e.target for e in self.examples])

    @cached_property
    def symbols(self) -> list[str]:
        """The distinct labels or words of the targets, the most frequent first."""
        if self.form == "text":
            return []
        targets = (e.target for e in self.examples)
        counts = Counter(
            targets if self.form == "label" else (w for t in targets for w in t.split())
        )
        return sorted(counts, key=lambda symbol: (-counts[symbol], symbol))

    @cached_property
    def ambiguity(self) -> tuple[int, float]:
        """How many inputs have more than one target, and the largest share of targets that one
        prediction for each input can match."""
        counts: dict[str, Counter[str]] = {}
        for source, target in self.examples:
            counts.setdefault(source, Counter())[target] += 1
        several = sum(len(each) > 1 for each in counts.values())
        best = sum(max(each.values()) for each in counts.values())
        return several, best / len(self.examples)

    def split(self, rule: SplitRule, seed: int) -> Mapping[SplitName, Sequence[Example]]:
        """Split the examples 80/10/10, all that have the same input on one side.

        Args:
            rule: "seeded", or "lecture" for the shuffle of the makemore lectures.
            seed: random seed of the split.

        Raises:
            MoreishError: there are too few different inputs.
        """
        if self.sizes_of_split:
            bounds = pairwise(accumulate(self.sizes_of_split, initial=0))
            parts = (self.examples[first:last] for first, last in bounds)
            return dict(zip(SPLITS, parts, strict=False))
        index_of_input = {i: n for n, i in enumerate(dict.fromkeys(e.input for e in self.examples))}
        count = len(index_of_input)
        if count < len(SPLITS):
            raise MoreishError(
                f"{plural(count, 'different input')} cannot be split into training, validation and "
                "test: give at least 3"
            )
        indices = split_items_as_lecture(count) if rule == "lecture" else split_items(count, seed)
        side_of = {i: name for name, index_J in indices.items() for i in index_J.tolist()}
        parts_of: dict[SplitName, list[Example]] = {name: [] for name in indices}
        for example in self.examples:
            parts_of[side_of[index_of_input[example.input]]].append(example)
        return parts_of


def guess_target_form(targets: Sequence[str]) -> TargetForm:
    """Return whether targets are labels, sequences of words from a small vocabulary, or text."""
    distinct = len(set(targets))
    if distinct <= min(MAX_LABELS, max(2, len(targets) // MIN_EXAMPLES_PER_LABEL)):
        return "label"
    words = Counter(word for target in targets for word in target.split())
    total = words.total()
    is_small = len(words) <= min(MAX_TARGET_WORDS, total // MIN_WORD_COUNT)
    return "words" if is_small and total >= 2 * len(targets) else "text"
