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
from typing import Any

import numpy as np

from moreish.data.shard_layout import MANIFEST, PROGRESS, TOKENIZER, preparation_state
from moreish.data.sharded_array import Array
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
    ShardInfo,
    SourceInfo,
)
from moreish.data.shards.output import (
    check_folder,
    check_same_arguments,
    check_sources_outside,
    check_sources_unchanged,
    clear_folder,
    has_no_shards,
    locked_folder,
)
from moreish.data.shards.readers import SourceFormat
from moreish.data.shards.sources import Source, find_sources
from moreish.data.shards.train_tokenizer import build_tokenizer, cut_function
from moreish.data.shards.writer import Shard, ShardWriter, file_sha256
from moreish.data.split import SPLITS, SplitName
from moreish.errors import MoreishError
from moreish.tokenizers import (
    Ids,
    Tokenizer,
    VocabularyLimits,
    check_vocab_size,
    tokenizer_from_json,
)
from moreish.utils.files import (
    check_disk_space,
    encode_json,
    fsync_folder,
    read_json,
    remove_partial_files,
    summarize_paths,
    write_atomic,
)

HELD_OUT_BYTES, MAX_HELD_OUT = 1_000_000, 0.1
"""Approximate amount of text for each of validation and test, and the largest fraction of all text
for each. A laptop takes minutes to evaluate four times as much with the vocabulary of GPT-2."""

SAVE_SECONDS = 5.0
"""Interval at which the progress is stored; a killed process loses no more work than that."""

WAITING_BLOCKS = 2
"""Number of blocks that wait for a free core."""

Progress = Callable[[str, int, int], None]
"""Called with a description, the number of bytes that are done, and the total."""


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
        """The settings as the manifest stores them."""
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
    progress: Progress = lambda what, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> PrepareResult:
    """Prepare a dataset in a folder, resume an interrupted preparation, or verify a complete one.

    Args:
        config: what to prepare.
        out: the folder.
        overwrite: whether to replace a dataset in it.
        workers: number of threads (default: one per core), which affects only the speed.
        progress: called while work is done.
        note: called with remarks for the user.

    Raises:
        MoreishError: a source, an option or the folder is wrong, or the text is too small.
        OSError: the disk is full; the same call resumes when that is fixed.
    """
    check_folder(out)
    if config.hold_out is not None and not 0 < config.hold_out <= 0.4:
        raise MoreishError(f"--hold-out {config.hold_out}: give a fraction above 0, up to 0.4")
    if config.source_format.separator == "":
        raise MoreishError("--separator '': give the text between documents, or leave it out")
    check_vocab_size(config.tokenizer, config.limits)
    workers = workers or available_cores()
    is_complete = preparation_state(out) == "prepared" and not overwrite
    sources = [] if is_complete else find_sources(config.sources, config.source_format)
    check_sources_outside(out, sources)
    with locked_folder(out):
        remove_partial_files(out)
        if overwrite or has_no_shards(out):
            clear_folder(out)
        if preparation_state(out) == "prepared":
            (out / PROGRESS).unlink(missing_ok=True)  # left by a kill at the last moment
            dataset = PreparedDataset.open(out)
            check_same_arguments(out, dataset.manifest.arguments, config.arguments())
            check_sources_unchanged(out, dataset.manifest, config.sources, config.source_format)
            progress("verifying", 0, 0)
            dataset.verify(workers)
            return PrepareResult(prepared=dataset, new=False)
        for source in sources:
            if skipped := source.skipped:
                note(
                    f"skipped {len(skipped):,} file(s) in {source.given} that are not JSON lines, "
                    f"Parquet or {config.source_format.encoding} text (--encoding): "
                    f"{summarize_paths(skipped)}"
                )
        Preparation(config, sources, out, progress, note).run(workers)
        return PrepareResult(prepared=PreparedDataset.open(out), new=True)


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Preparation:
    """A preparation in progress, whose state is stored in progress.json."""

    def __init__(
        self,
        config: PrepareConfig,
        sources: list[Source],
        out: Path,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self.config, self.sources, self.out, self.progress = config, sources, out, progress
        self.modified = _modification_hash(sources)
        if preparation_state(out) == "begun":
            self._resume(note)
        else:
            self._start()
        # The smallest type that holds a token, in little-endian byte order.
        self.dtype = np.min_scalar_type(self.tokenizer.vocab_size - 1).newbyteorder("<")
        assert self.tokenizer.boundary_id is not None
        self.boundary = self.tokenizer.boundary_id
        try:
            self.writer = ShardWriter(out, self.dtype, self.boundary, self.shards)
        except ValueError as error:
            raise MoreishError(f"{error}: start again with --overwrite") from None
        self.saved_at = time.monotonic()

    def _start(self) -> None:
        config = self.config
        self.size = max(1, sum(s.text_bytes(config.source_format) for s in self.sources))
        self.splitter = HashSplitter(
            share=config.hold_out or min(MAX_HELD_OUT, HELD_OUT_BYTES / self.size),
            seed=config.split_seed,
            chunk_characters=chunk_characters(self.size),
        )
        self.tokenizer = build_tokenizer(
            config.tokenizer,
            config.limits,
            self.sources,
            config.source_format,
            self.splitter,
            self.size,
            lambda what, done: self.progress(what, done, self.size),
        )
        self.position = ReadPosition()
        self.counts: dict[str, SourceCounts] = {}
        self.shards: list[Shard] = []
        write_atomic(self.out / TOKENIZER, encode_json(self.tokenizer.to_json()))
        self._save()

    def _resume(self, note: Callable[[str], None]) -> None:
        try:
            saved = read_json(self.out / PROGRESS)
            check_same_arguments(self.out, saved["arguments"], self.config.arguments())
            if saved["modified"] != self.modified:
                raise MoreishError(
                    f"the sources have changed since {self.out} was begun: start again with "
                    "--overwrite"
                )
            self.size = saved["size"]
            self.splitter = HashSplitter(
                share=saved["held_out"],
                seed=self.config.split_seed,
                chunk_characters=saved["passage"],
            )
            self.position = ReadPosition(**saved["position"])
            self.counts = {name: SourceCounts(**of) for name, of in saved["counts"].items()}
            self.shards = [Shard(**shard) for shard in saved["shards"]]
            self.tokenizer = tokenizer_from_json(read_json(self.out / TOKENIZER), boundary=True)
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise MoreishError(
                f"{self.out} is damaged ({error}): start again with --overwrite"
            ) from None
        note(f"resuming after {self.bytes_done / 1e6:,.1f} MB")

    @property
    def bytes_done(self) -> int:
        """Number of bytes of text that were written."""
        return sum(counts.bytes for counts in self.counts.values())

    def _save(self) -> None:
        """Store what is on disk and where to resume."""
        content = {
            "moreish": "begun",
            "format": FORMAT,
            "arguments": self.config.arguments(),
            "modified": self.modified,
            "size": self.size,
            "held_out": self.splitter.share,
            "passage": self.splitter.chunk_characters,
            "position": asdict(self.position),
            "counts": {name: asdict(counts) for name, counts in self.counts.items()},
            "shards": [asdict(shard) for shard in self.shards],
        }
        write_atomic(self.out / PROGRESS, encode_json(content))
        self.saved_at = time.monotonic()

    def run(self, workers: int) -> None:
        """Encode and write everything that is missing.

        Args:
            workers: number of threads.
        """
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
        is_partly_read = self.position.source < len(self.sources)
        name = self.sources[self.position.source].name if is_partly_read else ""
        blocks = read_blocks(
            self.sources,
            self.config.source_format,
            cut_function(self.config.tokenizer, self.tokenizer),
            self.splitter,
            self.position,
            self.counts.get(name),
        )
        waiting: deque[tuple[Block, Future[dict[SplitName, Array]]]] = deque()
        is_first = True
        for block in blocks:
            if is_first:  # by itself: it fills shared caches, and shows how much is to be written
                self._check_space(encode_block(block, self.tokenizer, self.dtype), block)
                is_first = False
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
        rest = int(max(0, self.size - self.bytes_done) * per_byte)
        check_disk_space(self.out, rest, "the prepared text")

    def _write(self, block: Block, task: Future[dict[SplitName, Array]]) -> None:
        for split, ids_N in task.result().items():
            self.writer.add(block.source, split, ids_N)
        self.position, self.counts[block.source] = block.next_position, block.counts
        done = self.bytes_done
        self.progress("preparing", done, max(done, self.size))
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
        sha256s = list(pool.map(file_sha256, [self.out / shard.file for shard in self.shards]))
        sources = [
            SourceInfo(
                name=source.name,
                given=source.given,
                files=infos,
                **asdict(self.counts.get(source.name, SourceCounts())),
            )
            for source, infos in zip(self.sources, files.result(), strict=True)
        ]
        if _modification_hash(self.sources) != self.modified:
            raise MoreishError(
                "the sources changed while they were read: start again with --overwrite"
            )
        manifest = Manifest(
            arguments=self.config.arguments(),
            tokenizer=self.config.tokenizer,
            tokenizer_sha256=self.tokenizer.fingerprint(),
            vocabulary=self.tokenizer.vocab_size,
            boundary=self.boundary,
            dtype=self.dtype.str,
            held_out=self.splitter.share,
            split_seed=self.splitter.seed,
            passage=self.splitter.chunk_characters,
            sources=sources,
            shards=[
                ShardInfo(**asdict(shard), sha256=sha256)
                for shard, sha256 in zip(self.shards, sha256s, strict=True)
            ],
            versions={name: version(name) for name in ("moreish", "numpy")},
        )
        write_atomic(self.out / MANIFEST, encode_json(manifest.model_dump(mode="json")))
        (self.out / PROGRESS).unlink()
        fsync_folder(self.out)

    def _check_splits(self) -> None:
        """Check that every split has tokens; otherwise remove what was written."""
        tokens = dict.fromkeys(SPLITS, 0)
        for shard in self.shards:
            tokens[shard.split] += shard.tokens
        too_small = [name for name in SPLITS if tokens[name] < 2]
        if not too_small:
            return
        chunks = sum(counts.passages for counts in self.counts.values())
        clear_folder(self.out)
        if not chunks:
            raise MoreishError(f"there is no text in {', '.join(self.config.sources)}")
        raise MoreishError(
            f"{chunks:,} chunk(s) of text are too few to hold out some of them for "
            f"{' and '.join(too_small)}: give more text, a larger --hold-out, or the text itself "
            "to moreish train"
        )


def encode_block(block: Block, tokenizer: Tokenizer, dtype: np.dtype) -> dict[SplitName, Array]:
    """The tokens of a block, by split.

    Consecutive chunks are joined before they are encoded, which gives the same tokens.
    """
    boundary = np.array([tokenizer.boundary_id], dtype)
    ids = {}
    for split, texts in block.texts.items():
        parts = [np.empty(0, dtype)]
        for is_text, group in groupby(texts, key=lambda text: text is not None):
            if is_text:
                ids_N: Ids = tokenizer.encode("".join(text for text in group if text is not None))
                parts.append(ids_N.astype(dtype))
            else:
                parts += [boundary for _ in group]
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
    """A hash of the paths, sizes and modification times of all files."""
    digest = hashlib.sha256()
    for source in sources:
        for path in source.files:
            stat = path.stat()
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()
