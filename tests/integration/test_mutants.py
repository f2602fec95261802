"""Damaged files of a run: they are rejected quickly, or change nothing."""

import copy
import hashlib
import json
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from conftest import STORY, Proved, repetitions
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.record import record_sha256
from moreish.runs.run import Run
from moreish.tokenizers import VocabularyLimits, tokenizer_builder
from moreish.training.checkpoint import MANIFEST, PARTS, Checkpoints
from moreish.training.events import ignore
from moreish.training.objectives import next_token_loss
from moreish.training.setup import build_sampler
from moreish.training.state import StepPlan, TrainState
from moreish.training.trainer import Trainer

T = TypeVar("T")

MEMORY = 300
"""Megabytes that reading thousands of damaged files may add."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**400, 1e308, "", "x", "\ud800", "../../etc/passwd",
    [], [[]], {}, {"name": "gpt"}, "9" * 100_000,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("mutants")
    (folder / "names.txt").write_text("\n".join(f"anna{n}" for n in range(40)))
    settings = {
        "model": {"name": "mlp", "context": 2, "embedding": 4, "hidden": 8},
        "train": {"steps": 3, "checkpoint_every": 1},
    }
    return api.train(folder / "names.txt", settings=settings, out=folder / "run", report=ignore)


def damage(raw: bytes, random: np.random.Generator) -> bytes:
    """Damage a file as disks, networks and editors do, mostly near its start, where the headers
    are."""
    mutant = bytearray(raw)
    reach = len(raw) if random.random() < 0.3 else min(len(raw), 400)
    place = int(random.integers(reach))
    match random.integers(7):
        case 0:
            mutant[place] ^= 1 << int(random.integers(8))
        case 1:
            del mutant[place:]
        case 2:
            mutant[place:place] = random.bytes(int(random.integers(1, 9)))
        case 3:
            mutant[place : place + 8] = bytes(8)
        case 4:
            mutant[place : place + 8] = b"\xff" * 8
        case 5:
            del mutant[place : place + int(random.integers(1, 9))]
        case 6:
            other = int(random.integers(len(raw)))
            mutant[place : place + 16] = raw[other : other + 16]
    return bytes(mutant)


def some(mutants: Iterable[T]) -> Iterator[T]:
    """Yield all mutants in `make soak`, else every tenth."""
    return islice(mutants, 0, None, 10 // repetitions(10))


def paths_in(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value of a JSON tree."""
    if path:
        yield path
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from paths_in(tree[key], (*path, key))


def tree_mutants(tree: Any) -> Iterator[Any]:
    """Yield the tree with each of its values replaced by each of `VALUES`, or removed."""
    for path in paths_in(tree):
        for value in (*VALUES, Removed):
            mutant = copy.deepcopy(tree)
            at = mutant
            for key in path[:-1]:
                at = at[key]
            if value is Removed:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            yield mutant


class Removed:
    """Stands for the removal of a value."""


def to_json(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=True).encode()


def header_mutants(raw: bytes) -> Iterator[bytes]:
    """Yield a safetensors file with wrong headers."""
    (length,) = struct.unpack("<Q", raw[:8])
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    names = [name for name in header if name != "__metadata__"]

    def made(tree: Any, padding: bytes = b"") -> bytes:
        text = (tree if isinstance(tree, bytes) else to_json(tree)) + padding
        return struct.pack("<Q", len(text)) + text + body

    for name in names:
        for offsets in ([0, 0], [0, 2**62], [2**62, 2**63], [-4, 4], [4, 0], [1, 5], [0], "x"):
            yield made({**header, name: {**header[name], "data_offsets": offsets}})
        for shape in ([2**62], [2**40, 2**40], [-1], [0], [], [1] * 100_000, "x", None, [1.5]):
            yield made({**header, name: {**header[name], "shape": shape}})
        for dtype in ("F64", "F16", "U8", "I64", "BOOL", "F99", "", None, 3):
            yield made({**header, name: {**header[name], "dtype": dtype}})
        yield made({key: value for key, value in header.items() if key != name})
        yield made({**header, "another": header[name]})  # two tensors in one place
        if len(names) > 1:
            first = names[0] if name != names[0] else names[1]
            yield made({**header, name: header[first], first: header[name]})
    for length in (0, 1, 2**20, 2**31, 2**63, 2**64 - 1):
        yield struct.pack("<Q", length) + raw[8:]
    yield made(header, b" " * 1_000_000)
    yield made(b"[" * 100_000)
    yield made(b"{" * 100_000)
    yield made(to_json(header)[:-1] + b',"__metadata__":{}}')
    for about in ("", "[" * 100_000, "{}", "null", 3):
        yield made({**header, "__metadata__": {"moreish": about}})
    yield made({**header, "__metadata__": {str(n): "x" * 100 for n in range(10_000)}})


class Judge:
    """Reads mutants and counts those that were rejected and those that changed nothing."""

    def __init__(self, read: Callable[[], Any]) -> None:
        self.read = read
        self.before = read()
        self.refused = self.same = 0
        self.slowest = 0.0
        self.memory = self._memory()

    def __call__(self, *, strict: bool = True) -> None:
        """Read a mutant; if `strict`, it must be rejected or change nothing."""
        began = time.process_time()
        try:
            found = self.read()
        except MoreishError as error:
            assert "\n" not in str(error)
            self.refused += 1
        else:
            assert not strict or found == self.before
            self.same += 1
        self.slowest = max(self.slowest, time.process_time() - began)

    @staticmethod
    def _memory() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    def verdict(self) -> dict[str, int]:
        assert self.slowest < 1, "seconds of the processor"
        assert self._memory() - self.memory < MEMORY
        assert self.refused > self.same
        return {"damaged files": self.refused + self.same, "rejected": self.refused}


def read_weights(path: Path) -> Callable[[], Any]:
    def read() -> Any:
        run = Run.open(path)
        model = run.new_model()
        run.load_weights(model)
        return [tensor.tolist() for tensor in model.state_dict().values()]

    return read


@pytest.fixture
def mutable(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.path, tmp_path / "run"))


@pytest.mark.repeated
def test_weights(mutable: Path, proved: Proved) -> None:
    file, random = mutable / "model.safetensors", np.random.default_rng(1)
    raw = file.read_bytes()
    judge = Judge(read_weights(mutable))
    for mutant in some(header_mutants(raw)):
        file.write_bytes(mutant)
        judge()
    for _ in range(repetitions(3000)):
        file.write_bytes(damage(raw, random))
        judge()
    proved(3, "weights (safetensors)", judge.verdict())


@pytest.mark.repeated
def test_run_json(mutable: Path, proved: Proved) -> None:
    """Mutants keep their hash, or get a correct one."""
    file, random = mutable / "run.json", np.random.default_rng(2)
    raw = file.read_bytes()
    tree = json.loads(raw)

    def read() -> Any:
        run = Run.open(mutable)
        return run.config.model_dump(), run.record.data.model_dump(), run.scores

    judge = Judge(read)
    for _ in range(repetitions(2000)):
        file.write_bytes(damage(raw, random))
        judge(strict=False)  # a time or a version may be another one
    for mutant in some(tree_mutants(tree)):
        for signed in (False, True):
            if signed:
                try:
                    data = type(Run.open(mutable).record.data).model_validate(mutant["data"])
                    mutant["sha256"] = record_sha256(mutant["config"], data, mutant["tokenizer"])
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
            file.write_bytes(to_json(mutant))
            judge(strict=False)
            file.write_bytes(raw)
    proved(3, "run.json", judge.verdict())


@pytest.mark.repeated
def test_tokenizer(mutable: Path, proved: Proved) -> None:
    file, random = mutable / "tokenizer.json", np.random.default_rng(3)
    raw = file.read_bytes()
    judge = Judge(lambda: Run.open(mutable).tokenizer.to_json())
    for mutant in some(tree_mutants(json.loads(raw))):
        file.write_bytes(to_json(mutant))
        judge()
    for _ in range(repetitions(1500)):
        file.write_bytes(damage(raw, random))
        judge()
    for bomb in (b"[" * 10, b'{"a":', b"\\", b"1"):
        file.write_bytes(bomb * 1_000_000)
        judge()
    proved(3, "tokenizer.json", judge.verdict())


@pytest.mark.repeated
@pytest.mark.parametrize("name", ["bpe", "word", "char"])
def test_tokenizers_without_a_hash(name: str, tmp_path: Path, proved: Proved) -> None:
    """A tokenizer of another project has no hash: it is rejected, or encodes and decodes."""
    file, random = tmp_path / "tokenizer.json", np.random.default_rng(5)
    limits = VocabularyLimits(vocab_size=290, min_word_count=1)
    built = tokenizer_builder(name).build([STORY], boundary=True, limits=limits)
    raw = to_json(built.to_json())

    def read() -> None:
        tokenizer = tokenizer_builder(str(file)).build([], boundary=True)
        ids = tokenizer.encode(STORY[:200])
        assert isinstance(tokenizer.decode(ids), str)
        assert len(tokenizer.byte_lengths()) == tokenizer.vocab_size
        assert len(tokenizer.char_lengths()) == tokenizer.vocab_size

    file.write_bytes(raw)
    judge = Judge(read)
    trees = list(islice(tree_mutants(json.loads(raw)), 0, None, 20))
    for mutant in (trees[place] for place in random.permutation(len(trees))[: repetitions(400)]):
        file.write_bytes(to_json(mutant))
        judge(strict=False)
    for _ in range(repetitions(400)):
        file.write_bytes(damage(raw, random))
        judge(strict=False)
    assert judge.slowest < 1 and judge.refused > 5
    counted = {"damaged files": judge.refused + judge.same, "rejected": judge.refused}
    proved(3, "tokenizer.json of other programs", counted)


@pytest.mark.repeated
def test_tokens(mutable: Path, proved: Proved) -> None:
    file, random = mutable / "data" / "val.npy", np.random.default_rng(4)
    raw = file.read_bytes()
    judge = Judge(lambda: Run.open(mutable).split("val").ids_N.tolist())
    for _ in range(repetitions(2500)):
        file.write_bytes(damage(raw, random))
        judge()
    proved(3, "tokens (npy)", judge.verdict())


@pytest.mark.repeated
def test_checkpoints(mutable: Path, run: Run, proved: Proved) -> None:
    """Mutants keep their hash, or get a correct one."""
    random = np.random.default_rng(5)
    folder = mutable / "checkpoints"
    newest = max(folder.glob("step-*"))
    for older in folder.glob("step-*"):
        if older != newest:
            shutil.rmtree(older)
    trainer = a_trainer(run)
    checkpoints = Checkpoints(folder, run.record.sha256, {})

    def read() -> Any:
        checkpoints.restore(trainer, inexact=True)
        return [tensor.tolist() for tensor in trainer.model.state_dict().values()]

    judge = Judge(read)
    raws = {name: (newest / name).read_bytes() for name in (*PARTS, MANIFEST)}
    manifest = json.loads(raws[MANIFEST])
    structured = {
        "state.json": [
            to_json(tree) for tree in some(tree_mutants(json.loads(raws["state.json"])))
        ],
        "weights.safetensors": list(some(header_mutants(raws["weights.safetensors"]))),
        "optimizer.safetensors": list(some(header_mutants(raws["optimizer.safetensors"]))),
        MANIFEST: [to_json(tree) for tree in some(tree_mutants(manifest))],
    }
    for name, raw in raws.items():
        mutants = structured[name] + [damage(raw, random) for _ in range(repetitions(600))]
        for mutant in mutants:
            (newest / name).write_bytes(mutant)
            judge(strict=name != MANIFEST)
            if name != MANIFEST:
                digests = {**manifest["sha256"], name: hashlib.sha256(mutant).hexdigest()}
                (newest / MANIFEST).write_bytes(to_json({**manifest, "sha256": digests}))
                judge(strict=False)
                (newest / MANIFEST).write_bytes(raws[MANIFEST])
        (newest / name).write_bytes(raw)
    proved(3, "checkpoints", judge.verdict())


def a_trainer(run: Run) -> Trainer:
    model = run.new_model()
    return Trainer(
        model,
        build_sampler(run.config, run.split("train"), model),
        run.config.train,
        objective=next_token_loss,
        state=TrainState(plan=StepPlan(steps=3, eval_every=1)),
        device=torch.device("cpu"),
    )


@pytest.mark.parametrize(
    "name", ["run.json", "tokenizer.json", "data/val.npy", "metrics.jsonl", "model.safetensors"]
)
def test_sparse_files_of_a_terabyte(mutable: Path, name: str, proved: Proved) -> None:
    """A sparse file takes no space on the disk."""
    file = mutable / name
    raw = file.read_bytes()
    with file.open("r+b") as opened:
        opened.truncate(1 << 40)
    if name == "data/val.npy":  # its header agrees
        changed = raw.replace(b"'shape': (", b"'shape': (9999999999")[: len(raw)]
        with file.open("r+b") as opened:
            opened.write(changed[:128])
    judge = Judge.__new__(Judge)
    judge.memory, judge.slowest, judge.refused, judge.same = judge._memory(), 0.0, 0, 0

    def read() -> None:
        found = Run.open(mutable)
        _ = found.tokenizer
        found.split("val")
        found.load_weights(found.new_model())

    if name == "metrics.jsonl":
        (mutable / name).write_bytes(raw)
        with file.open("r+b") as opened:
            opened.truncate(1 << 28)
        assert len(list(Run.open(mutable).read_metrics())) == len(raw.splitlines())
        return
    judge.read = read
    judge()
    assert judge.refused == 1
    assert judge.slowest < 1
    assert judge._memory() - judge.memory < MEMORY
    proved(3, "sparse files of a terabyte", {"damaged files": 1, "rejected": 1})
