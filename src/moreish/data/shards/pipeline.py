"""Large text to token files: read once, on all cores, in bounded memory, and restartable."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from moreish.data.shard_layout import MANIFEST, PROGRESS, TOKENIZER, preparation_state
from moreish.data.sharded_array import Array
from moreish.data.shards.chunks import Block, Counts, HashSplitter, Position, blocks, passage_of
from moreish.data.shards.dataset import (
    FORMAT,
    FileFacts,
    Manifest,
    PreparedDataset,
    ShardFacts,
    SourceFacts,
)
from moreish.data.shards.sources import Source, SourceFormat, find_sources
from moreish.data.shards.train_tokenizer import cut_of, learned
from moreish.data.shards.writer import Shard, Shards, digest
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
    file_lock,
    fsync_folder,
    read_json,
    remove_partial_files,
    summarize_paths,
    write_atomic,
)

HELD_OUT, MOST_HELD_OUT = 1_000_000, 0.1
"""Bytes of text that validation and test have each, about, and the largest share of all that they
are. A laptop takes minutes to score four times as much with GPT-2's vocabulary."""

EVERY = 5.0
"""Seconds between two notes of how far it is; a process that is killed loses no more."""

AHEAD = 2
"""Blocks that wait for a core."""

Told = Callable[[str, int, int], None]
"""Is told what is being done, how many bytes of it, and of how many."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to prepare, and how. The same order and sources give the same files, bit for bit."""

    sources: tuple[str, ...]
    reading: SourceFormat = SourceFormat()  # noqa: RUF009 (it cannot be changed)
    tokenizer: str = "gpt2"
    limits: VocabularyLimits = VocabularyLimits()  # noqa: RUF009
    hold_out: float | None = None
    """Share of the text for each of validation and test; None: what suits its size."""
    split_seed: int = 42

    def arguments(self) -> dict[str, Any]:
        """As the manifest has them."""
        return {
            "sources": list(self.sources),
            **asdict(self.reading),
            "tokenizer": self.tokenizer,
            "vocab_size": self.limits.vocab_size,
            "hold_out": self.hold_out,
            "split_seed": self.split_seed,
        }


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """Prepared text."""

    prepared: PreparedDataset
    new: bool
    """Else it was there already, and was found to be whole."""


def prepare_dataset(
    order: PrepareConfig,
    out: Path,
    *,
    overwrite: bool,
    workers: int | None = None,
    told: Told = lambda what, done, of: None,
    note: Callable[[str], None] = lambda text: None,
) -> PrepareResult:
    """Make the folder `out` of token files, or go on with it; one that is finished is verified.

    Args:
        workers: threads; None: one for each core. They decide nothing but the speed.
        note: is told what the user should know.

    Raises:
        MoreishError: a source or the place is wrong, or the text is too small.
        OSError: the disk is full; the same order goes on when it no longer is.
    """
    _check_place(out)
    if order.hold_out is not None and not 0 < order.hold_out <= 0.4:
        raise MoreishError(f"--hold-out {order.hold_out}: give a share above 0, up to 0.4")
    if order.reading.separator == "":
        raise MoreishError("--separator '': give what stands between documents, or leave it out")
    check_vocab_size(order.tokenizer, order.limits)
    workers = workers or cores()
    there = preparation_state(out)
    finished = there == "prepared" and not overwrite
    sources = [] if finished else find_sources(order.sources, order.reading)
    for source in sources:
        if out.resolve() in [p for path in source.files for p in path.resolve().parents]:
            raise MoreishError(f"--out {out}: {source.given} lies in it; choose another folder")
        place = Path(source.given).expanduser().resolve()
        if place in (out.resolve(), *out.resolve().parents):  # of a data set, its name's
            raise MoreishError(f"--out {out} is {source.given} or in it; choose another folder")
    with _made(out):
        remove_partial_files(out)
        if overwrite or _untouched(out):
            _clear(out)
        if preparation_state(out) == "prepared":
            (out / PROGRESS).unlink(missing_ok=True)  # where the last moment was cut short
            found = PreparedDataset.open(out)
            _check_same(out, found.manifest.arguments, order.arguments())
            _check_unchanged(out, found.manifest, order)
            told("verifying", 0, 0)
            found.verify(workers)
            return PrepareResult(prepared=found, new=False)
        for source in sources:
            if left_out := source.left_out:
                note(
                    f"left out {len(left_out):,} file(s) in {source.given} that are no JSON lines, "
                    f"Parquet or {order.reading.encoding} text (--encoding): "
                    f"{summarize_paths(left_out)}"
                )
        work = _Work(order, sources, out, told, note)
        work.carry_out(workers)
        return PrepareResult(prepared=PreparedDataset.open(out), new=True)


@contextmanager
def _made(out: Path) -> Iterator[None]:
    """The folder is there, and nobody else's; a new one goes again if nothing came into it."""
    new, lock = not out.exists(), out / ".lock"
    out.mkdir(parents=True, exist_ok=True)
    with file_lock(lock, f"{out} is being prepared by another process: wait for its end"):
        try:
            yield
        finally:
            if new and [*out.iterdir()] == [lock]:
                with suppress(OSError):  # Windows keeps what is open
                    lock.unlink()
                    out.rmdir()


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Work:
    """One order on its way."""

    def __init__(
        self,
        order: PrepareConfig,
        sources: list[Source],
        out: Path,
        told: Told,
        note: Callable[[str], None],
    ) -> None:
        self.order, self.sources, self.out, self.told = order, sources, out, told
        self.modified = _modified(sources)
        if preparation_state(out) == "begun":
            self._go_on(note)
        else:
            self._begin(note)
        try:
            self.shards = Shards(out, self.dtype, self.boundary, self.written)
        except ValueError as error:
            raise MoreishError(f"{error}: begin anew with --overwrite") from None
        self.saved_at = time.monotonic()

    def _begin(self, note: Callable[[str], None]) -> None:
        how = self.order.reading
        self.size = max(1, sum(source.size(how) for source in self.sources))
        share = min(MOST_HELD_OUT, HELD_OUT / self.size)
        self.sides = HashSplitter(
            share=self.order.hold_out or share,
            seed=self.order.split_seed,
            passage=passage_of(self.size),
        )
        self.tokenizer = learned(
            self.order.tokenizer,
            self.order.limits,
            self.sources,
            how,
            self.sides,
            self.size,
            lambda what, done: self.told(what, done, self.size),
        )
        self.position, self.counts, self.written = Position(), dict[str, Counts](), list[Shard]()
        write_atomic(self.out / TOKENIZER, encode_json(self.tokenizer.to_json()))
        self._save()

    def _go_on(self, note: Callable[[str], None]) -> None:
        try:
            saved = read_json(self.out / PROGRESS)
            _check_same(self.out, saved["arguments"], self.order.arguments())
            if saved["modified"] != self.modified:
                raise MoreishError(
                    f"the sources have changed since {self.out} was begun: begin anew with "
                    "--overwrite"
                )
            self.size = saved["size"]
            self.sides = HashSplitter(
                share=saved["held_out"], seed=self.order.split_seed, passage=saved["passage"]
            )
            self.position = Position(**saved["position"])
            self.counts = {name: Counts(**of) for name, of in saved["counts"].items()}
            self.written = [Shard(**of) for of in saved["shards"]]
            self.tokenizer = tokenizer_from_json(read_json(self.out / TOKENIZER), boundary=True)
        except (OSError, KeyError, TypeError, AttributeError) as error:
            raise MoreishError(
                f"{self.out} is damaged ({error}): begin anew with --overwrite"
            ) from None
        done = sum(counts.bytes for counts in self.counts.values())
        note(f"going on after {done / 1e6:,.1f} MB")

    @property
    def dtype(self) -> np.dtype:
        """Of the files: the fewest bytes that hold a token, the lowest first."""
        return np.min_scalar_type(self.tokenizer.vocab_size - 1).newbyteorder("<")

    @property
    def boundary(self) -> int:
        assert self.tokenizer.boundary_id is not None
        return self.tokenizer.boundary_id

    def _save(self) -> None:
        """What is on the disk, and where to go on."""
        content = {
            "moreish": "begun",
            "format": FORMAT,
            "arguments": self.order.arguments(),
            "modified": self.modified,
            "size": self.size,
            "held_out": self.sides.share,
            "passage": self.sides.passage,
            "position": asdict(self.position),
            "counts": {name: asdict(counts) for name, counts in self.counts.items()},
            "shards": [asdict(shard) for shard in self.written],
        }
        write_atomic(self.out / PROGRESS, encode_json(content))
        self.saved_at = time.monotonic()

    def carry_out(self, workers: int) -> None:
        stop = Event()
        with ThreadPoolExecutor(1) as beside, ThreadPoolExecutor(workers) as pool:
            try:
                files = beside.submit(_hashed_files, self.sources, stop)
                self._encode_all(pool, workers)
                self._finish(pool, files)
            finally:
                stop.set()
                self.shards.close()
                pool.shutdown(cancel_futures=True)

    def _encode_all(self, pool: ThreadPoolExecutor, workers: int) -> None:
        name = (
            self.sources[self.position.source].name
            if (self.position.source < len(self.sources))
            else ""
        )
        found = blocks(
            self.sources,
            self.order.reading,
            cut_of(self.order.tokenizer, self.tokenizer),
            self.sides,
            self.position,
            self.counts.get(name),
        )
        waiting: deque[tuple[Block, Future[dict[SplitName, Array]]]] = deque()
        first = True
        for block in found:
            if first:  # alone: it makes what all others share, and tells how much there will be
                self._check_space(encoded_block(block, self.tokenizer, self.dtype), block)
                first = False
            task = pool.submit(encoded_block, block, self.tokenizer, self.dtype)
            waiting.append((block, task))
            while len(waiting) > workers + AHEAD or (waiting and waiting[0][1].done()):
                self._write(*waiting.popleft())
        while waiting:
            self._write(*waiting.popleft())

    def _check_space(self, ids: dict[SplitName, Array], block: Block) -> None:
        """Raises OSError when the disk has no room for what is expected."""
        read = sum(len(text.encode()) for texts in block.texts.values() for text in texts if text)
        done = sum(counts.bytes for counts in self.counts.values())
        each = sum(part.nbytes for part in ids.values()) / max(1, read)
        check_disk_space(self.out, int(max(0, self.size - done) * each), "the prepared text")

    def _write(self, block: Block, task: Future[dict[SplitName, Array]]) -> None:
        for split, ids_N in task.result().items():
            self.shards.add(block.source, split, ids_N)
        self.position, self.counts[block.source] = block.after, block.counts
        done = sum(counts.bytes for counts in self.counts.values())
        self.told("preparing", done, max(done, self.size))
        if time.monotonic() - self.saved_at >= EVERY:
            self.shards.flush()
            self._save()

    def _finish(self, pool: ThreadPoolExecutor, files: "Future[list[list[FileFacts]]]") -> None:
        tokens = dict.fromkeys(SPLITS, 0)
        for shard in self.written:
            tokens[shard.split] += shard.tokens
        if few := [name for name in SPLITS if tokens[name] < 2]:
            passages = sum(counts.passages for counts in self.counts.values())
            _clear(self.out)
            if not passages:
                raise MoreishError(f"there is no text in {', '.join(self.order.sources)}")
            raise MoreishError(
                f"{passages:,} passage(s) of text are too few to hold out some of them for "
                f"{' and '.join(few)}: give more, a larger --hold-out, or the text itself to "
                "moreish train"
            )
        self.shards.seal()
        self._save()
        self.told("hashing", 0, 0)
        paths = [self.out / shard.file for shard in self.written]
        sums = list(pool.map(digest, paths))
        sources = [
            SourceFacts(
                name=source.name,
                given=source.given,
                files=facts,
                **asdict(self.counts.get(source.name, Counts())),
            )
            for source, facts in zip(self.sources, files.result(), strict=True)
        ]
        if _modified(self.sources) != self.modified:
            raise MoreishError("the sources changed while they were read: --overwrite")
        manifest = Manifest(
            arguments=self.order.arguments(),
            tokenizer=self.order.tokenizer,
            tokenizer_sha256=self.tokenizer.fingerprint(),
            vocabulary=self.tokenizer.vocab_size,
            boundary=self.boundary,
            dtype=self.dtype.str,
            held_out=self.sides.share,
            split_seed=self.sides.seed,
            passage=self.sides.passage,
            sources=sources,
            shards=[
                ShardFacts(**asdict(shard), sha256=found)
                for shard, found in zip(self.written, sums, strict=True)
            ],
            versions={name: version(name) for name in ("moreish", "numpy")},
        )
        write_atomic(self.out / MANIFEST, encode_json(manifest.model_dump(mode="json")))
        (self.out / PROGRESS).unlink()
        fsync_folder(self.out)


def encoded_block(block: Block, tokenizer: Tokenizer, dtype: np.dtype) -> dict[SplitName, Array]:
    """The tokens of each side of a block. Passages that follow one another are encoded in one go,
    which gives the same tokens."""
    boundary = np.array([tokenizer.boundary_id], dtype)
    found = {}
    for split, texts in block.texts.items():
        parts = [np.empty(0, dtype)]
        for is_text, some in groupby(texts, key=lambda text: text is not None):
            if is_text:
                ids_N: Ids = tokenizer.encode("".join(text for text in some if text is not None))
                parts.append(ids_N.astype(dtype))
            else:
                parts += [boundary for _ in some]
        found[split] = np.concatenate(parts)
    return found


def _hashed_files(sources: list[Source], stop: Event) -> list[list[FileFacts]]:
    """sha256 of all files, unless it is to stop; beside the reading, while they are in memory."""
    return [
        [
            FileFacts(path=str(path), bytes=path.stat().st_size, sha256=digest(path))
            for path in source.files
            if not stop.is_set()
        ]
        for source in sources
    ]


def _modified(sources: list[Source]) -> str:
    """Changes when a file does."""
    found = hashlib.sha256()
    for source in sources:
        for path in source.files:
            facts = path.stat()
            found.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return found.hexdigest()


def _check_place(out: Path) -> None:
    """Raises MoreishError when `out` is something else than prepared text or nothing."""
    if out.exists() and not out.is_dir():
        raise MoreishError(f"--out {out} is a file, not a folder")
    ours = preparation_state(out) != "other" or not out.exists()
    before = (".lock", TOKENIZER, PROGRESS)  # there is, where a beginning was cut short
    if not ours and not all(path.name.startswith(before) for path in out.iterdir()):
        raise MoreishError(f"--out {out} holds something else: name a folder of its own")


def _check_same(out: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises MoreishError when a folder was made, or begun, by another order."""
    for name in now:
        if then.get(name) != now[name]:
            raise MoreishError(
                f"{out} was prepared with {name}={then.get(name)}, not {now[name]}: choose another "
                "--out, or --overwrite"
            )


def _check_unchanged(out: Path, manifest: Manifest, order: PrepareConfig) -> None:
    """Raises MoreishError when the sources that are still there are no longer those."""
    try:
        sources = find_sources(order.sources, order.reading)
    except MoreishError:
        return  # they are gone, and no longer needed
    then = [(file.path, file.bytes) for source in manifest.sources for file in source.files]
    if then != [(str(path), path.stat().st_size) for s in sources for path in s.files]:
        raise MoreishError(
            f"the sources have changed since {out} was prepared: choose another --out, or "
            "--overwrite"
        )


def _untouched(out: Path) -> bool:
    """Whether it was begun and nothing written yet: a mistake may be mended then."""
    if preparation_state(out) != "begun":
        return False
    try:
        return read_json(out / PROGRESS)["shards"] == []
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _clear(out: Path) -> None:
    """Remove what is ours, what says that it is last."""
    if preparation_state(out) == "other":
        return
    for path in (*out.glob("*.npy"), out / TOKENIZER, out / PROGRESS, out / MANIFEST):
        path.unlink(missing_ok=True)
