"""A tokenizer for sources of any size: what it needs is read from them first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moreish.data.shards.chunks import Cut, HashSplitter, encoded, passages
from moreish.data.shards.sources import Source, SourceFormat
from moreish.data.text import Alphabet
from moreish.tokenizers import (
    REGISTRY,
    Tokenizer,
    VocabularyLimits,
    cut_before_space,
    tokenizer_builder,
)

SAMPLE = 200_000_000
"""Bytes of training text that a vocabulary is learned from, about: more changes little."""

Progress = Callable[[str, int], None]
"""Is told what is being done, and how many bytes of text were read for it."""


def cut_of(name: str, tokenizer: Tokenizer | None = None) -> Cut:
    """Where passages may end. It is the same for all tokenizers of ours and GPT-2's, so that these
    have equal splits of a text."""
    if name in REGISTRY:
        return cut_before_space
    return (tokenizer or tokenizer_builder(name).build([], boundary=True)).safe_cut


@dataclass(frozen=True)
class TrainingSample:
    """Passages of the training split, chosen by their hashes, as often as wanted."""

    sources: list[Source]
    how: SourceFormat
    sides: HashSplitter
    share: float
    """Of the passages."""
    told: Progress

    def __iter__(self) -> Iterator[str]:
        done = 0
        for source in self.sources:
            for part in range(source.parts):
                pieces = source.pieces(part, self.how)
                for passage in passages(pieces, cut_before_space, self.sides.passage):
                    raw = encoded(passage, source, part)
                    place, chance = self.sides.hashed(raw)
                    if self.sides.side(place) == "train" and chance < self.share:
                        yield passage.text + "\n" * passage.ends
                    done += len(raw)
                    self.told("reading for the vocabulary", done)


def learned(
    name: str,
    limits: VocabularyLimits,
    sources: list[Source],
    how: SourceFormat,
    sides: HashSplitter,
    size: int,
    told: Progress,
) -> Tokenizer:
    """The tokenizer of that name; one that learns does so from a sample of the training split, and
    one of characters knows all that occur.

    Args:
        size: bytes that the sources have, about.

    Raises:
        MoreishError: there is none, or a library or a source is missing.
    """
    made = tokenizer_builder(name)
    if made.needs_text:
        sample = TrainingSample(sources, how, sides, min(1.0, SAMPLE / max(1, size)), told)
        return made.build(sample, boundary=True, limits=limits)
    if name != "char":
        return made.build([], boundary=True, limits=limits)
    alphabet, done = Alphabet(), 0
    for source in sources:
        for part in range(source.parts):
            for _, text, _ in source.pieces(part, how):
                if text:
                    alphabet.add(text)
                done += len(text)
                told("reading for the characters", done)
    characters = "".join(map(chr, sorted(alphabet.points)))
    return made.build([characters], boundary=True, limits=limits)
