"""Tokenizers for sources of any size; those that are trained read the sources first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moreish.data.shards.chunks import HashSplitter, encode_utf8, split_into_chunks
from moreish.data.shards.sources import Source
from moreish.data.text import distinct_code_points
from moreish.tokenizers import Tokenizer, VocabularyLimits, cut_before_space, tokenizer_builder

SAMPLE_BYTES = 200_000_000
"""Approximate amount of training text that a vocabulary is learned from: more changes little."""

Progress = Callable[[str, int], None]
"""Called with a description and the number of bytes of text that were read."""


@dataclass(frozen=True)
class TrainingSample:
    """Random chunks of the training split, chosen by their hash; it can be iterated repeatedly."""

    sources: list[Source]
    splitter: HashSplitter
    share: float
    """Fraction of the chunks."""
    progress: Progress

    def __iter__(self) -> Iterator[str]:
        done = 0
        for source in self.sources:
            for part in range(source.parts):
                size = self.splitter.chunk_characters
                for chunk in split_into_chunks(source.pieces(part), cut_before_space, size):
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
        sources, splitter: what to read, and its split.
        text_bytes: the approximate size of the sources, in bytes.
        progress: called while the sources are read.

    Raises:
        MoreishError: there is no such tokenizer, or a library or a source is missing.
    """
    builder = tokenizer_builder(name)
    alphabet: set[int] = set()
    done = 0
    if builder.needs_text:
        share = min(1.0, SAMPLE_BYTES / text_bytes)
        sample = TrainingSample(sources, splitter, share, progress)
        return builder.build(sample, boundary=True, limits=limits)
    if name == "char":
        for source in sources:
            for part in range(source.parts):
                for _, text, _ in source.pieces(part):
                    alphabet.update(distinct_code_points(text))
                    done += len(text)
                    progress("reading text for the alphabet", done)
    characters = "".join(map(chr, alphabet))
    return builder.build([characters], boundary=True, limits=limits)
