"""Tokenizers for sources of any size; those that are trained read the sources first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moreish.data.shards.chunks import CutFunction, HashSplitter, encode_utf8, split_into_chunks
from moreish.data.shards.readers import SourceFormat
from moreish.data.shards.sources import Source
from moreish.data.text import Alphabet
from moreish.tokenizers import (
    REGISTRY,
    Tokenizer,
    VocabularyLimits,
    cut_before_space,
    tokenizer_builder,
)

SAMPLE_BYTES = 200_000_000
"""Approximate amount of training text that a vocabulary is learned from: more changes little."""

Progress = Callable[[str, int], None]
"""Called with a description and the number of bytes of text that were read."""


def cut_function(name: str, tokenizer: Tokenizer | None = None) -> CutFunction:
    """Where chunks may end.

    It is the same for all registered tokenizers, so that their splits of a text are equal.

    Args:
        name: a registered tokenizer, or the path of a tokenizer.json.
        tokenizer: the tokenizer, if it was built already.
    """
    if name in REGISTRY:
        return cut_before_space
    return (tokenizer or tokenizer_builder(name).build([], boundary=True)).safe_cut


@dataclass(frozen=True)
class TrainingSample:
    """Random chunks of the training split, chosen by their hash; it can be iterated repeatedly."""

    sources: list[Source]
    source_format: SourceFormat
    splitter: HashSplitter
    share: float
    """Fraction of the chunks."""
    progress: Progress

    def __iter__(self) -> Iterator[str]:
        done = 0
        for source in self.sources:
            for part in range(source.parts):
                pieces = source.pieces(part, self.source_format)
                size = self.splitter.chunk_characters
                for chunk in split_into_chunks(pieces, cut_before_space, size):
                    raw = encode_utf8(chunk, source, part)
                    hashed, chance = self.splitter.hash(raw)
                    if self.splitter.split_of(hashed) == "train" and chance < self.share:
                        yield chunk.text + "\n" * chunk.is_last
                    done += len(raw)
                    self.progress("reading text for the vocabulary", done)


def build_tokenizer(
    name: str,
    limits: VocabularyLimits,
    sources: list[Source],
    source_format: SourceFormat,
    splitter: HashSplitter,
    text_bytes: int,
    progress: Progress,
) -> Tokenizer:
    """Build a tokenizer for sources.

    A trained vocabulary is learned from a sample of the training split; the character tokenizer
    gets all characters that occur in the sources.

    Args:
        name: a registered tokenizer, or the path of a tokenizer.json.
        limits: limits of the vocabulary.
        sources, source_format, splitter: what to read, and its split.
        text_bytes: the approximate size of the sources, in bytes.
        progress: called while the sources are read.

    Raises:
        MoreishError: there is no such tokenizer, or a library or a source is missing.
    """
    recipe = tokenizer_builder(name)
    if recipe.needs_text:
        share = min(1.0, SAMPLE_BYTES / max(1, text_bytes))
        sample = TrainingSample(sources, source_format, splitter, share, progress)
        return recipe.build(sample, boundary=True, limits=limits)
    if name != "char":
        return recipe.build([], boundary=True, limits=limits)
    alphabet, done = Alphabet(), 0
    for source in sources:
        for part in range(source.parts):
            for _, text, _ in source.pieces(part, source_format):
                if text:
                    alphabet.add(text)
                done += len(text)
                progress("reading text for the alphabet", done)
    characters = "".join(map(chr, sorted(alphabet.points)))
    return recipe.build([characters], boundary=True, limits=limits)
