"""The run folder: everything that a training leaves behind, whole or not at all."""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import safetensors
import torch

from moreish.config import RunConfig, resolve
from moreish.data import (
    MANIFEST,
    SPLITS,
    PreparedDataset,
    ShardedArray,
    SplitName,
    TokenDataset,
    fingerprint,
    load_tokens,
    save_tokens,
)
from moreish.distributed import SINGLE_PROCESS, ProcessGroup, gather_full, load_state
from moreish.errors import MoreishError, command
from moreish.evaluate import Score
from moreish.models import Model, build_model
from moreish.runs.record import ENDED_STATUSES, DatasetInfo, RunRecord
from moreish.tokenizers import BOUNDARY_ID, Tokenizer, tokenizer_from_json
from moreish.utils.files import (
    PARTIAL_SUFFIX,
    encode_json,
    file_lock,
    fsync_folder,
    read_json,
    write_atomic,
)
from moreish.utils.safetensors_io import iter_safetensors_bytes, tensor_bytes

LONGEST_LINE = 1 << 24
"""Bytes of a line of metrics.jsonl; what is longer is damaged."""

REFERENCE = "data/train.json"
"""In place of the training tokens of prepared text: where they lie."""

MAX_SEARCHABLE_TOKENS = 1 << 25
"""Tokens of prepared text that are taken into memory to look up what stands there."""


class RunFolder:
    """One training and its results, in a folder that works without the source text."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        """`record` is the content of run.json; use `Run.open` or `Run.create`."""
        self.path = path
        self.record = record
        self.config: RunConfig = resolve(record.config, warn=False)
        self.kind = record.data.kind
        self._splits: dict[SplitName, TokenDataset] = {}

    def __repr__(self) -> str:
        return f"Run('{self.path}': {self.record.status}, {self.config.model.name})"

    # --- opening and creating ---

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder.

        Raises:
            MoreishError: it is none, it is damaged, or it is newer than this Moreish.
        """
        path = Path(path).expanduser()
        aside = backup_path(path)
        if not path.exists() and (aside / "run.json").is_file():
            raise MoreishError(
                f"{path} was being replaced when that was cut short; the old run is still there: "
                f"{shlex.join(['mv', str(aside), str(path)])}"
            )
        if not path.exists():
            raise MoreishError(f"no run at {path}{_other_runs(path)}")
        if not (path / "run.json").is_file():
            raise MoreishError(f"{path} is not a run folder: it has no run.json{_other_runs(path)}")
        return cls(path, cls._read_record(path))

    @classmethod
    def create(
        cls,
        path: Path,
        config: RunConfig,
        tokenizer: Tokenizer,
        splits: Mapping[SplitName, TokenDataset],
        data: DatasetInfo,
        *,
        overwrite: bool,
    ) -> Self:
        """A new run folder, with its data but not yet with weights; it appears whole or not at all.

        What it replaces is kept at `backup_path(path)`, until the new one has proved itself.

        Raises:
            MoreishError: `path` exists (and is not a run that `overwrite` may replace).
        """
        check_run_path(path, overwrite=overwrite)
        replacing = (path / "run.json").is_file()
        record = RunRecord.new(config, data, tokenizer.fingerprint())
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
        try:
            for left in path.parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}"):  # of a killed process
                shutil.rmtree(left, ignore_errors=True)
            (beside / "data").mkdir(parents=True)
            for name, tokens in splits.items():
                if name == "train" and isinstance(tokens.ids_N, ShardedArray):
                    write_atomic(beside / REFERENCE, encode_json(tokens.ids_N.origin.as_json()))
                else:
                    save_tokens(beside / "data" / f"{name}.npy", tokens)
            write_atomic(beside / "tokenizer.json", encode_json(tokenizer.to_json()))
            write_atomic(beside / "run.json", encode_json(record.model_dump(mode="json")))
            if replacing:
                remove_run(backup_path(path))
                path.rename(backup_path(path))
            fsync_folder(beside / "data")
            beside.rename(path)
            fsync_folder(path.parent)
        except BaseException as error:
            shutil.rmtree(beside, ignore_errors=True)
            if replacing and not path.exists():
                backup_path(path).rename(path)
            if isinstance(error, OSError):
                check_run_path(path, overwrite=overwrite)  # another training was faster
            raise
        return cls(path, record)

    def update(self, **changes: Any) -> None:
        """Change entries of run.json."""
        with self._updating() as record:
            self.record = RunRecord.model_validate({**record.model_dump(), **changes})

    @contextmanager
    def _updating(self) -> Iterator[RunRecord]:
        """The record as it is on disk, where another process may have changed it; then the new one
        takes its place."""
        busy = f"{self.path} is being written by another process: try again"
        with file_lock(self.path / ".record.lock", busy, seconds=10):
            yield self._read_record(self.path)
            write_atomic(self.path / "run.json", encode_json(self.record.model_dump(mode="json")))

    @staticmethod
    def _read_record(path: Path) -> RunRecord:
        place = path / "run.json"
        try:
            tree = read_json(place)
        except ValueError as error:
            raise _damaged(place, error) from None
        return RunRecord.read(tree, str(place))

    @property
    def checkpoints(self) -> Path:
        """The folder of what resuming needs."""
        return self.path / "checkpoints"

    @property
    def has_weights(self) -> bool:
        return (self.path / "model.safetensors").is_file()

    # --- parts ---

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises MoreishError when it is damaged or not the one the run was trained with."""
        path = self.path / "tokenizer.json"
        try:
            data = read_json(path)
            tokenizer = tokenizer_from_json(data, boundary=self.record.data.boundary)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, error) from None
        if tokenizer.fingerprint() != self.record.tokenizer:
            raise MoreishError(f"{path} is not the tokenizer that this run was trained with")
        return tokenizer

    @cached_property
    def model(self) -> Model:
        """The best model of the run, ready to use.

        Raises:
            MoreishError: there are no weights yet, or they are damaged or of another model.
        """
        model = self.new_model()
        self.load_weights(model)
        return model.eval()

    def new_model(self) -> Model:
        """The model of this run, freshly initialised."""
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)

    def load_weights(self, model: Model) -> None:
        """Put the best weights into `model`; raises MoreishError as the property `model` does."""
        path = self.path / "model.safetensors"
        if not self.has_weights and self.record.status == "diverged":
            raise MoreishError(
                f"{self.path} has no weights, its training diverged: train again with a lower "
                "--set train.lr and --overwrite"
            )
        if not self.has_weights and self.record.status in ENDED_STATUSES:
            raise MoreishError(f"{self.path} is damaged: its model.safetensors is missing")
        if not self.has_weights:
            go_on = command("train", "--resume", self.path)
            raise MoreishError(f"{self.path} has no weights yet: go on with {go_on}")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["moreish"])
                for name, parameter in model.named_parameters():
                    if file.get_slice(name).get_shape() != list(parameter.shape):
                        raise ValueError(f"{name} has another shape than in this model")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["sha256"] != _digest(state):
                raise ValueError("its sha256 is not the one that was saved with it")
            if about["tokenizer"] != self.record.tokenizer:
                raise ValueError("it was trained with another tokenizer")
            if about.get("data", self._data) != self._data:
                raise ValueError("it was trained on other data, or on another split of them")
            load_state(model, state)
        except (
            OSError,
            safetensors.SafetensorError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
        ) as e:
            raise _damaged(path, e) from None

    def save_weights(self, model: Model, group: ProcessGroup = SINGLE_PROCESS) -> None:
        """Make the weights of `model` those of the run; the first process of several does it."""
        state = gather_full(model.state_dict())
        if not group.is_main:
            return
        about = {
            "sha256": _digest(state),
            "tokenizer": self.record.tokenizer,
            "data": self._data,
        }
        # One entry: safetensors writes several in any order, and equal runs have equal bytes.
        metadata = {"moreish": json.dumps(about)}
        write_atomic(self.path / "model.safetensors", iter_safetensors_bytes(state, metadata))

    @property
    def _data(self) -> str:
        """A hash of all splits."""
        return hashlib.sha256(encode_json(self.record.data.sha256)).hexdigest()

    @property
    def split_names(self) -> list[SplitName]:
        return [name for name in SPLITS if name in self.record.data.tokens]

    def split(self, name: SplitName) -> TokenDataset:
        """The tokens of a split, which are those that the run was made with.

        Raises:
            MoreishError: there is no such split, or its file is damaged or another's.
        """
        if name not in self._splits:
            self._splits[name] = self._read_split(name)
        return self._splits[name]

    def _read_split(self, name: SplitName) -> TokenDataset:
        if not self.split_names:
            raise MoreishError(f"{self.path} has no data: its model was trained elsewhere")
        if name not in self.split_names:
            raise MoreishError(f"this run has no {name} split: the lecture's split has none")
        if name == "train" and self.uses_prepared_data:
            return self._prepared_split()
        path = self.path / "data" / f"{name}.npy"
        try:
            items, boundary = self.kind == "lines", self.tokenizer.boundary_id
            tokens = load_tokens(path, items=items, boundary=boundary or BOUNDARY_ID)
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from None
        if len(tokens.ids_N) != self.record.data.tokens[name]:  # which may be far too many to read
            raise MoreishError(f"{path} is damaged: it holds {len(tokens.ids_N):,} tokens")
        if fingerprint(tokens) != self.record.data.sha256.get(name):
            raise MoreishError(
                f"{path} is damaged: its sha256 is not the one in run.json, so no loss on it counts"
            )
        return tokens

    @property
    def uses_prepared_data(self) -> bool:
        """Whether it was trained on prepared text, which lies elsewhere."""
        return self.record.data.sources is not None

    @property
    def is_training_data_missing(self) -> bool:
        """Whether its training data lie elsewhere, and are not there any more."""
        if not self.uses_prepared_data:
            return False
        try:
            self.split("train")
        except MoreishError:
            return True
        return False

    @property
    def has_data(self) -> bool:
        """Whether its data are held, or lie where they were; they are not read for that."""
        if self.is_training_data_missing:
            return False
        names = self.split_names
        places = [self.path / "data" / f"{name}.npy" for name in names if name not in self._splits]
        return bool(names) and all(place.is_file() for place in places)

    def _prepared_split(self) -> TokenDataset:
        """The training split of prepared text. Raises MoreishError when it is gone, or another."""
        place = self.path / REFERENCE
        try:
            folder = Path(read_json(place)["folder"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(place, error) from None
        if not (folder / MANIFEST).is_file():
            raise MoreishError(
                f"the training data of {self.path} are gone, {folder}: put them back, or say where "
                f"they are in {place}"
            )
        found = PreparedDataset.open(folder)
        if found.sha256 != self.record.data.sha256["train"]:
            raise MoreishError(
                f"{folder} holds other data than those that {self.path} was trained on"
            )
        return found.tokens("train")

    def check_searchable(self) -> None:
        """Raises MoreishError when the training data are too large to be held in memory."""
        tokens = self.record.data.tokens.get("train", 0)
        if self.uses_prepared_data and tokens > MAX_SEARCHABLE_TOKENS:
            raise MoreishError(
                f"the training data of {self.path} are prepared text of {tokens:,} tokens; only "
                f"{MAX_SEARCHABLE_TOKENS:,} or fewer can be looked through for what stands there"
            )

    def count_test_evaluation(self) -> None:
        """The test split was evaluated once more."""
        with self._updating() as record:
            counted = {"test_evaluations": record.test_evaluations + 1}
            self.record = record.model_copy(update=counted)

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl, but for those that a full disk or a crash cut short."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            while line := file.readline(LONGEST_LINE):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                    yield entry

    @property
    def scores(self) -> dict[SplitName, Score]:
        """The losses that the training ended with, from run.json; empty before its end."""
        return {
            name: Score.from_json(saved.model_dump()) for name, saved in self.record.splits.items()
        }


def backup_path(path: Path) -> Path:
    """Where the run that the one at `path` replaces is kept until that is clear of its start."""
    path = path if path.name else path.absolute()  # of the present folder
    return path.parent / f".{path.name}.replaced"


def remove_run(run: Path) -> None:
    """Remove a run folder; what is none is left alone."""
    if (run / "run.json").is_file():
        shutil.rmtree(run, ignore_errors=True)


def training_lock(path: Path) -> AbstractContextManager[None]:
    """While open, nobody else trains in the run folder at `path`. Raises MoreishError if another
    does."""
    return file_lock(
        path / ".lock", f"{path} is being trained by another process: wait for its end"
    )


def check_run_path(path: Path, *, overwrite: bool) -> None:
    """Raises MoreishError when a run cannot be made at `path`."""
    if path.name in ("", ".."):
        raise MoreishError(f"--out {path}: give the run a folder of its own, e.g. runs/mine")
    for above in path.absolute().parents:
        if (above / "run.json").is_file():
            raise MoreishError(f"--out {path}: {above} is a run, and holds no other")
        if above.is_file():
            raise MoreishError(f"--out {path}: {above} is a file, not a folder")
    if path.is_dir() and not any(path.iterdir()):
        return
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise MoreishError(f"{path} exists: choose another --out, or replace it with --overwrite")
    if path.is_symlink() or not (path / "run.json").is_file():
        raise MoreishError(f"{path} is not a run folder, so --overwrite will not replace it")
    if path.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise MoreishError(f"you are inside {path}: go elsewhere before you replace it")


def _digest(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, shapes and numbers of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {list(state[name].shape)}\n".encode())
        digest.update(tensor_bytes(state[name]))
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> MoreishError:
    reason = " ".join(str(error).split())
    return MoreishError(f"{path} is damaged ({type(error).__name__}: {reason[:200]})")


def _other_runs(path: Path) -> str:
    """The runs beside `path`, for an error message."""
    folder = path if path.is_dir() else path.parent
    runs = sorted(str(found.parent) for found in folder.glob("*/run.json"))
    return f"; there are {', '.join(runs[:5])}" if runs else ""
