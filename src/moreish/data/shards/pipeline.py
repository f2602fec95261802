"""The preparation of a dataset: sources are read once, on all cores, in bounded memory, and an
interrupted preparation can be resumed."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np

from moreish.data.shard_layout import MANIFEST, PROGRESS, TOKENIZER, preparation_state
from moreish.data.sharded_array import Array
from moreish.data.shards import output
from moreish.data.shards.chunks import (
    Block,
    HashSplitter,
    ReadPosition,
    SourceCounts,
    chunk_characters,
    read_blocks,
)
from moreish.data.shards.dataset import (
    FORMAT,
    FileInfo,
    Manifest,
    PreparedDataset,
    SourceInfo,
    tokens_by_split,
)
from moreish.data.shards.readers import SourceFormat
from moreish.data.shards.sources import Source, find_sources
from moreish.data.shards.train_tokenizer import build_tokenizer
from moreish.data.shards.writer import Shard, ShardWriter
from moreish.data.split import SplitName
from moreish.errors import MoreishError, one_line
from moreish.settings import Settings
from moreish.tokenizers import (
    REGISTRY,
    Tokenizer,
    VocabularyLimits,
    check_vocab_size,
    cut_before_space,
    tokenizer_from_json,
)
from moreish.utils.files import (
    check_disk_space,
    encode_json,
    file_sha256,
    fsync_folder,
    read_json,
    remove_partial_files,
    summarize_paths,
    write_atomic,
)
from moreish.utils.text import plural

HELD_OUT_BYTES, MAX_HELD_OUT = 1_000_000, 0.1
"""Approximate amount of text for each of validation and test, and the largest fraction of all text
for each. A laptop takes minutes to evaluate four times as much with the vocabulary of GPT-2."""

SAVE_SECONDS = 5.0
"""Interval at which the progress is stored; a killed process loses no more work than that."""

WAITING_BLOCKS = 2
"""Number of blocks that wait for a free core."""

ProgressCallback = Callable[[str, int, int], None]
"""Called with a description, the number of bytes that are done, and the total."""

NoteCallback = Callable[[str], None]
"""Called with remarks for the user."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare; equal settings and sources give equal files, bit for bit."""

    sources: tuple[str, ...]
    source_format: SourceFormat = SourceFormat()  # noqa: RUF009 (it is immutable)
    tokenizer: str = "gpt2"
    limits: VocabularyLimits = VocabularyLimits()  # noqa: RUF009
    hold_out: float | None = None
    """Fraction of the text for each of validation and test; None: set by the size."""
    split_seed: int = 42

    def arguments(self) -> dict[str, Any]:
        """Return the settings as the manifest stores them."""
        return {
            "sources": list(self.sources),
            **asdict(self.source_format),
            "tokenizer": self.tokenizer,
            "vocab_size": self.limits.vocab_size,
            "hold_out": self.hold_out,
            "split_seed": self.split_seed,
        }


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """A prepared dataset."""

    prepared: PreparedDataset
    new: bool
    """Whether it was prepared now; otherwise it was complete already, and has been verified."""


def prepare_dataset(
    config: PrepareConfig,
    out: Path,
    *,
    overwrite: bool,
    workers: int | None = None,
    progress: ProgressCallback = lambda what, done, total: None,
    note: NoteCallback = lambda text: None,
) -> PrepareResult:
    """Prepare a dataset in a folder, resume an interrupted preparation, or verify a complete one.

    Args:
        config: what to prepare.
        out: the folder.
        overwrite: whether to replace a dataset in it.
        workers: number of threads (default: one per core), which affects only the speed.
        progress, note: called while work is done.

    Raises:
        MoreishError: a source, an option or the folder is invalid, or the text is too small.
        OSError: the disk is full; the same call resumes when that is fixed.
    """
    output.check_folder(out)
    if config.hold_out is not None and not 0 < config.hold_out <= 0.4:
        raise MoreishError(f"--hold-out {config.hold_out}: give a fraction above 0, up to 0.4")
    if config.source_format.separator == "":
        raise MoreishError("--separator '': give the text between documents, or leave it out")
    check_vocab_size(config.tokenizer, config.limits)
    workers = workers or available_cores()
    is_complete = preparation_state(out) == "prepared" and not overwrite
    sources = [] if is_complete else find_sources(config.sources, config.source_format)
    output.check_sources_outside(out, sources)
    with output.locked_folder(out):
        remove_partial_files(out)
        if overwrite or output.has_no_shards(out):
            output.clear_folder(out)
        if preparation_state(out) == "prepared":
            (out / PROGRESS).unlink(missing_ok=True)  # left by a kill at the last moment
            dataset = PreparedDataset.open(out)
            output.check_same_arguments(out, dataset.manifest.arguments, config.arguments())
            output.check_sources_unchanged(
                out, dataset.manifest, config.sources, config.source_format
            )
            progress("verifying", 0, 0)
            dataset.verify(workers)
            return PrepareResult(prepared=dataset, new=False)
        for source in sources:
            if skipped := source.skipped:
                note(
                    f"skipped {plural(len(skipped), 'file')} in {source.argument}: neither JSON "
                    f"lines nor Parquet nor {config.source_format.encoding} text (--encoding): "
                    f"{summarize_paths(skipped)}"
                )
        Preparation(config, sources, out, progress, note).run(workers)
        return PrepareResult(prepared=PreparedDataset.open(out), new=True)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class PreparationState(Settings, frozen=False):
    """The content of progress.json: what is on disk and where to resume."""

    moreish: Literal["begun"] = "begun"
    format: Literal[1] = FORMAT
    arguments: dict[str, Any]
    modified: str
    """Hash of the paths, sizes and modification times of the sources."""
    size: int
    """Approximate size of the text in bytes."""
    held_out: float
    passage: int
    """Chunk size in characters."""
    position: ReadPosition = ReadPosition()
    counts: dict[str, SourceCounts] = {}
    shards: list[Shard] = []

    @property
    def bytes_done(self) -> int:
        """Number of bytes of text that were written."""
        return sum(counts.bytes for counts in self.counts.values())


class Preparation:
    """A preparation in progress."""

    def __init__(
        self,
        config: PrepareConfig,
        sources: list[Source],
        out: Path,
        progress: ProgressCallback,
        note: NoteCallback,
    ) -> None:
        self.config, self.sources, self.out, self.progress = config, sources, out, progress
        if preparation_state(out) == "begun":
            self._resume(note)
        else:
            self._start()
        # The smallest type that holds a token, in little-endian byte order.
        self.dtype = np.min_scalar_type(self.tokenizer.vocab_size - 1).newbyteorder("<")
        assert self.tokenizer.boundary_id is not None
        self.boundary = self.tokenizer.boundary_id
        try:
            self.writer = ShardWriter(out, self.dtype, self.boundary, self.state.shards)
        except ValueError as error:
            raise MoreishError(f"{error}: start again with --overwrite") from None
        self.saved_at = time.monotonic()

    def _start(self) -> None:
        config = self.config
        size = max(1, sum(source.text_bytes() for source in self.sources))
        self.state = PreparationState(
            arguments=config.arguments(),
            modified=_modification_hash(self.sources),
            size=size,
            held_out=config.hold_out or min(MAX_HELD_OUT, HELD_OUT_BYTES / size),
            passage=chunk_characters(size),
        )
        self.tokenizer = build_tokenizer(
            config.tokenizer,
            config.limits,
            self.sources,
            self._splitter(),
            size,
            lambda what, done: self.progress(what, done, size),
        )
        write_atomic(self.out / TOKENIZER, encode_json(self.tokenizer.to_json()))
        self._save()

    def _resume(self, note: NoteCallback) -> None:
        try:
            self.state = PreparationState.model_validate(read_json(self.out / PROGRESS))
            self.tokenizer = tokenizer_from_json(read_json(self.out / TOKENIZER), boundary=True)
        except (OSError, ValueError) as error:
            raise MoreishError(
                f"{self.out} is damaged ({one_line(error)}): start again with --overwrite"
            ) from None
        output.check_same_arguments(self.out, self.state.arguments, self.config.arguments())
        self._check_unmodified(
            f"the sources have changed since the preparation of {self.out} started"
        )
        note(f"resuming after {self.state.bytes_done / 1e6:,.1f} MB")

    def _splitter(self) -> HashSplitter:
        return HashSplitter(
            share=self.state.held_out,
            seed=self.config.split_seed,
            chunk_characters=self.state.passage,
        )

    def _check_unmodified(self, message: str) -> None:
        if _modification_hash(self.sources) != self.state.modified:
            raise MoreishError(f"{message}: start again with --overwrite")

    def _save(self) -> None:
        write_atomic(self.out / PROGRESS, encode_json(self.state.model_dump(mode="json")))
        self.saved_at = time.monotonic()

    def run(self, workers: int) -> None:
        """Encode and write everything that is missing, in parallel threads."""
        stop = Event()
        with ThreadPoolExecutor(1) as hasher, ThreadPoolExecutor(workers) as pool:
            try:
                files = hasher.submit(_hash_files, self.sources, stop)
                self._encode_all(pool, workers)
                self.finish(pool, files)
            finally:
                stop.set()
                self.writer.close()
                pool.shutdown(cancel_futures=True)

    def _encode_all(self, pool: ThreadPoolExecutor, workers: int) -> None:
        # Registered tokenizers share one rule, so that their splits of a text are equal.
        is_registered = self.config.tokenizer in REGISTRY
        cut = cut_before_space if is_registered else self.tokenizer.safe_cut
        position, counts = self.state.position, self.state.counts
        blocks = read_blocks(self.sources, cut, self._splitter(), position, counts)
        waiting: deque[tuple[Block, Future[dict[SplitName, Array]]]] = deque()
        for number, block in enumerate(blocks):
            if (
                number == 0
            ):  # alone: it fills shared caches, and its size shows how much space is needed
                self._check_space(encode_block(block, self.tokenizer, self.dtype), block)
            task = pool.submit(encode_block, block, self.tokenizer, self.dtype)
            waiting.append((block, task))
            while len(waiting) > workers + WAITING_BLOCKS or (waiting and waiting[0][1].done()):
                self._write(*waiting.popleft())
        while waiting:
            self._write(*waiting.popleft())

    def _check_space(self, ids: dict[SplitName, Array], block: Block) -> None:
        """Check that the disk has room for the rest, if it is like this block."""
        read = sum(len(text.encode()) for texts in block.texts.values() for text in texts if text)
        per_byte = sum(part.nbytes for part in ids.values()) / max(1, read)
        rest = int(max(0, self.state.size - self.state.bytes_done) * per_byte)
        check_disk_space(self.out, rest, "the prepared text")

    def _write(self, block: Block, task: Future[dict[SplitName, Array]]) -> None:
        for split, ids_N in task.result().items():
            self.writer.add(block.source, split, ids_N)
        self.state.position = block.next_position
        self.state.counts[block.source] = block.counts
        done = self.state.bytes_done
        self.progress("preparing", done, max(done, self.state.size))
        if time.monotonic() - self.saved_at >= SAVE_SECONDS:
            self.writer.flush()
            self._save()

    def finish(self, pool: ThreadPoolExecutor, files: "Future[list[list[FileInfo]]]") -> None:
        """Write the manifest.

        Args:
            pool: threads for hashing.
            files: the hashes of the sources.

        Raises:
            MoreishError: the text is too small to be split, or a source has changed.
        """
        self._check_splits()
        self.writer.finalize()
        self._save()
        self.progress("hashing", 0, 0)
        state = self.state
        paths = [self.out / shard.file for shard in state.shards]
        for shard, sha256 in zip(state.shards, pool.map(file_sha256, paths), strict=True):
            shard.sha256 = sha256
        sources = [
            SourceInfo(
                name=source.name,
                given=source.argument,
                files=infos,
                **state.counts.get(source.name, SourceCounts()).model_dump(),
            )
            for source, infos in zip(self.sources, files.result(), strict=True)
        ]
        self._check_unmodified("the sources changed while they were read")
        manifest = Manifest(
            arguments=state.arguments,
            tokenizer=self.config.tokenizer,
            tokenizer_sha256=self.tokenizer.fingerprint(),
            vocabulary=self.tokenizer.vocab_size,
            boundary=self.boundary,
            dtype=self.dtype.str,
            held_out=state.held_out,
            split_seed=self.config.split_seed,
            passage=state.passage,
            sources=sources,
            shards=state.shards,
            versions={name: version(name) for name in ("moreish", "numpy")},
        )
        write_atomic(self.out / MANIFEST, encode_json(manifest.model_dump(mode="json")))
        (self.out / PROGRESS).unlink()
        fsync_folder(self.out)

    def _check_splits(self) -> None:
        """Check that every split has tokens; otherwise remove what was written."""
        tokens = tokens_by_split(self.state.shards)
        too_small = [name for name, count in tokens.items() if count < 2]
        if not too_small:
            return
        output.clear_folder(self.out)
        chunks = sum(counts.passages for counts in self.state.counts.values())
        if not chunks:
            raise MoreishError(f"there is no text in {', '.join(self.config.sources)}")
        raise MoreishError(
            f"the text has only {plural(chunks, 'chunk')}, too few to hold out some for "
            f"{' and '.join(too_small)}: give more text, a larger --hold-out, or the text itself "
            "to moreish train"
        )


def encode_block(block: Block, tokenizer: Tokenizer, dtype: np.dtype) -> dict[SplitName, Array]:
    """Return the tokens of a block, by split.

    Consecutive chunks are joined before they are encoded, which gives the same tokens.
    """
    boundary = np.array([tokenizer.boundary_id], dtype)
    ids = {}
    for split, texts in block.texts.items():
        parts = [np.empty(0, dtype)]
        for is_boundary, group in groupby(texts, key=lambda text: text is None):
            if is_boundary:
                parts += [boundary for _ in group]
            else:
                text = "".join(filter(None, group))
                # A chunk from inside a document begins before a space (see `cut_before_space`).
                is_inside = parts[-1] is not boundary and text.startswith(" ")
                parts.append(tokenizer.encode(text, "." if is_inside else "").astype(dtype))
        ids[split] = np.concatenate(parts)
    return ids


def _hash_files(sources: list[Source], stop: Event) -> list[list[FileInfo]]:
    """Hash all files of the sources, until `stop` is set."""
    return [
        [
            FileInfo(path=str(path), bytes=path.stat().st_size, sha256=file_sha256(path))
            for path in source.files
            if not stop.is_set()
        ]
        for source in sources
    ]


def _modification_hash(sources: list[Source]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for path in source.files:
            stat = path.stat()
            about = f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0"
            digest.update(about.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
