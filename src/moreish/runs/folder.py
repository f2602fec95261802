"""The run folder: the settings, data, weights and results of one training run."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray

from moreish.config import BUDGETS, RunConfig, resolve
from moreish.data import (
    MANIFEST,
    SPLITS,
    PreparedDataset,
    ShardedArray,
    SplitName,
    TokenDataset,
    example_dataset,
    fingerprint,
    load_tokens,
    save_tokens,
)
from moreish.distributed import SINGLE_PROCESS, ProcessGroup, gather_full, load_state
from moreish.errors import MoreishError, command, nearest, one_line
from moreish.evaluate import Score
from moreish.models import CountBasedModel, Model, build_model
from moreish.runs.paths import (
    backup_path,
    check_not_replaced,
    check_run_path,
    is_run,
    other_runs,
    remove_run,
)
from moreish.runs.record import ENDED_STATUSES, DatasetInfo, RunRecord, record_sha256
from moreish.tasks import build_task
from moreish.tokenizers import BOUNDARY_ID, ExampleTokenizer, Tokenizer, load_tokenizer
from moreish.utils.files import (
    encode_json,
    file_lock,
    fsync_folder,
    partial_folder,
    read_json,
    remove_partial_files,
    user_path,
    write_atomic,
)
from moreish.utils.platforms import rename_folder
from moreish.utils.safetensors_io import iter_safetensors_bytes, tensor_bytes

RENAMED_METRICS = {"utilisation": "mfu", "went_back": "rollback"}
"""Names in metrics.jsonl that runs of 0.1.0 used, and their names now."""

MAX_LINE_BYTES = 1 << 24
"""Longest line of metrics.jsonl that is parsed; a longer one is damaged."""

DAMAGE_ERRORS = (OSError, ValueError, LookupError, TypeError)
"""Errors that reading a damaged file can raise."""

REFERENCE = "data/train.json"
"""File that names the prepared dataset, in place of its training tokens."""

MAX_SEARCHABLE_TOKENS = 1 << 25
"""Largest prepared dataset that is loaded into memory to search texts in it."""


INITIAL_WEIGHTS = "initial.safetensors"
"""The weights with which `RunFolder.extend` lets a finished run go on."""


class RunFolder:
    """The files of one run, which do not depend on its source text."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        """
        Args:
            path: the folder.
            record: the content of its run.json; use `Run.open` or `Run.create` to read or write it.
        """
        self.path = path
        self.record = record
        self.config: RunConfig = resolve(record.config, warn=False)
        self.kind = record.data.kind
        self._splits: dict[SplitName, TokenDataset] = {}
        self._unseen: dict[TokenDataset, NDArray[np.bool_]] = {}

    # --- opening and creating ---

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run folder.

        Raises:
            MoreishError: it is not a run folder, damaged, or written by a newer Moreish.
        """
        path = user_path(path)
        if is_run(path):
            return cls(path, cls._read_record(path))
        if path.exists():
            raise MoreishError(f"{path} is not a run folder: it has no run.json{other_runs(path)}")
        check_not_replaced(path)
        raise MoreishError(f"no run at {path}{other_runs(path)}")

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
        files: Mapping[str, bytes] | None = None,
    ) -> Self:
        """Create a run folder with its data, its tokenizer and `files`, without weights.

        The folder appears complete or not at all. A run that it replaces is kept at
        `backup_path(path)` until the new one is under way.

        Raises:
            MoreishError: `path` exists, and is not a run that `overwrite` allows to replace.
            OSError: the disk is full, or the like.
        """
        check_run_path(path, overwrite=overwrite)
        is_replacing = is_run(path)
        record = RunRecord.new(config, data, tokenizer.fingerprint())
        partial: Path | None = None
        try:
            with partial_folder(path) as partial:
                cls._fill(partial, splits, tokenizer, files or {}, record)
            if is_replacing:
                remove_run(backup_path(path))
                rename_folder(path, backup_path(path))
            fsync_folder(partial / "data")
            rename_folder(partial, path)
            fsync_folder(path.parent)
        except BaseException as error:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            if is_replacing and not path.exists():
                rename_folder(backup_path(path), path)
            if isinstance(error, OSError):
                check_run_path(path, overwrite=overwrite)  # another process may have been faster
            raise
        return cls(path, record)

    @staticmethod
    def _fill(
        folder: Path,
        splits: Mapping[SplitName, TokenDataset],
        tokenizer: Tokenizer,
        files: Mapping[str, bytes],
        record: RunRecord,
    ) -> None:
        (folder / "data").mkdir()
        for name, tokens in splits.items():
            if name == "train" and isinstance(tokens.ids_N, ShardedArray):
                write_atomic(folder / REFERENCE, encode_json(tokens.ids_N.reference.as_json()))
            else:
                save_tokens(folder / "data" / f"{name}.npy", tokens)
        for file_name, content in files.items():
            write_atomic(folder / file_name, content)
        write_atomic(folder / "tokenizer.json", encode_json(tokenizer.to_json()))
        write_atomic(folder / "run.json", encode_json(record.model_dump(mode="json")))

    def update(self, **changes: Any) -> None:
        """Change fields of run.json.

        Raises:
            MoreishError: run.json is damaged, or another process is writing it.
        """
        with self._locked_record() as record:
            self.record = RunRecord.model_validate({**record.model_dump(), **changes})

    def extend(self, budget: Mapping[str, Any]) -> None:
        """Prepare a finished run to be trained further, from its best weights.

        It is a new phase of the run: the weights become those that training begins with, the steps
        go on, and the schedule begins again. A run that is killed here is as it was before, or is
        extended.

        Args:
            budget: the budget of the new phase, as in `BudgetConfig`.

        Raises:
            MoreishError: the run counts n-grams only, or has no weights.
        """
        model = self.new_model()
        if isinstance(model, CountBasedModel):
            name = self.config.model.name
            raise MoreishError(f"{self.path} cannot be trained longer: {name} has counted it all")
        self.load_weights(model)
        train = {**self.record.config["train"], **dict.fromkeys(BUDGETS), **budget}
        config = {**self.record.config, "train": train}
        self.config = resolve(config, warn=False)
        first_step = max((entry["step"] for entry in self.read_metrics()), default=0)
        weights = (self.path / "model.safetensors").read_bytes()
        write_atomic(self.path / INITIAL_WEIGHTS, weights)
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        sha256 = record_sha256(config, self.record.data, self.record.tokenizer)
        seconds = self.record.earlier_seconds + (self.record.seconds or 0.0)
        self.update(
            config=config,
            sha256=sha256,
            status="created",
            first_step=first_step,
            earlier_seconds=round(seconds, 3),
        )

    def count_test_evaluation(self) -> None:
        """Count one more evaluation of the test split in run.json."""
        with self._locked_record() as record:
            count = record.test_evaluations + 1
            self.record = record.model_copy(update={"test_evaluations": count})

    @contextmanager
    def _locked_record(self) -> Iterator[RunRecord]:
        """Read run.json, which another process may have changed, and write `self.record` at the
        end."""
        message = f"another process is writing {self.path}: try again"
        with file_lock(self.path / ".record.lock", message, seconds=10):
            yield self._read_record(self.path)
            remove_partial_files(self.path, "run.json")
            write_atomic(self.path / "run.json", encode_json(self.record.model_dump(mode="json")))

    @staticmethod
    def _read_record(path: Path) -> RunRecord:
        file = path / "run.json"
        try:
            tree = read_json(file)
        except ValueError as error:
            raise _damaged(file, error) from None
        return RunRecord.read(tree, str(file))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints, which training resumes from."""
        return self.path / "checkpoints"

    # --- tokenizer and model ---

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run.

        Raises:
            MoreishError: its file is damaged, or not the one that the run was trained with.
        """
        return load_tokenizer(
            self.path / "tokenizer.json",
            boundary=self.record.data.boundary,
            fingerprint=self.record.tokenizer,
            what="this run was trained",
        )

    @cached_property
    def model(self) -> Model:
        """The run's model with its best weights, in evaluation mode.

        Raises:
            MoreishError: there are no weights yet, or they are damaged or of another model.
        """
        model = self.new_model()
        self.load_weights(model)
        return model.eval()

    def new_model(self) -> Model:
        """The run's model, freshly initialized."""
        torch.manual_seed(self.config.seed)
        return build_model(self.config.model, self.tokenizer.vocab_size)

    @property
    def has_weights(self) -> bool:
        return (self.path / "model.safetensors").is_file()

    def load_initial_weights(self, model: Model) -> None:
        """Load the weights with which the phase of training that `extend` began starts.

        Raises:
            MoreishError: they are missing, damaged or of another model.
        """
        self._load(self.path / INITIAL_WEIGHTS, model)

    def load_weights(self, model: Model) -> None:
        """Load the best weights into `model`.

        Raises:
            MoreishError: there are no weights yet, or they are damaged or of another model.
        """
        if not self.has_weights:
            if self.record.status == "diverged":
                raise MoreishError(
                    f"{self.path} has no weights because the run diverged: train again with a "
                    "lower --set train.lr and --overwrite"
                )
            if self.record.status in ENDED_STATUSES:
                raise MoreishError(f"{self.path} is damaged: its model.safetensors is missing")
            resume = command("train", "--resume", self.path)
            raise MoreishError(f"{self.path} has no weights yet: resume with {resume}")
        self._load(self.path / "model.safetensors", model)

    def _load(self, path: Path, model: Model) -> None:
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})["moreish"])
                for name, parameter in model.named_parameters():
                    if file.get_slice(name).get_shape() != list(parameter.shape):
                        raise ValueError(f"{name} has another shape than in this model")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _state_sha256(state):
                raise ValueError("its sha256 is not the one that was saved with it")
            if metadata["tokenizer"] != self.record.tokenizer:
                raise ValueError("it was trained with another tokenizer")
            if metadata.get("data", self._data_sha256) != self._data_sha256:
                raise ValueError("it was trained on other data, or on another split of them")
            load_state(model, state)
        except (*DAMAGE_ERRORS, safetensors.SafetensorError, RuntimeError) as error:
            raise _damaged(path, error) from None

    def save_weights(self, model: Model, group: ProcessGroup = SINGLE_PROCESS) -> None:
        """Save the weights of `model` as the run's best; the first process of `group` writes them.

        Raises:
            OSError: the disk is full, or the like.
        """
        state = gather_full(model.state_dict())
        if group.is_main:
            metadata = {
                "sha256": _state_sha256(state),
                "tokenizer": self.record.tokenizer,
                "data": self._data_sha256,
            }
            # A single entry, because the order of several would depend on the library.
            content = iter_safetensors_bytes(state, {"moreish": json.dumps(metadata)})
            write_atomic(self.path / "model.safetensors", content)

    @property
    def _data_sha256(self) -> str:
        """A hash of all splits."""
        return hashlib.sha256(encode_json(self.record.data.sha256)).hexdigest()

    # --- data ---

    @property
    def split_names(self) -> list[SplitName]:
        return [name for name in SPLITS if name in self.record.data.tokens]

    def split(self, name: SplitName) -> TokenDataset:
        """The tokens of a split, verified to be those that the run was trained on.

        Raises:
            MoreishError: there is no such split, or its file is damaged or has other data.
        """
        if name not in self._splits:
            self._splits[name] = self._read_split(name)
        return self._splits[name]

    def _read_split(self, name: SplitName) -> TokenDataset:
        if not self.split_names:
            raise MoreishError(f"{self.path} has no data, because its model was imported")
        if name not in SPLITS:
            raise MoreishError(f"unknown split {name!r}: {nearest(str(name), SPLITS)}")
        if name not in self.split_names:
            raise MoreishError(f"this run has no {name} split: the lecture's split has none")
        if name == "train" and self.uses_prepared_data:
            return self._read_prepared_split()
        path = self.path / "data" / f"{name}.npy"
        try:
            items, boundary = self.kind != "text", self.tokenizer.boundary_id
            tokens = load_tokens(path, items=items, boundary=boundary or BOUNDARY_ID)
            if isinstance(self.tokenizer, ExampleTokenizer):
                is_drawn = name == "train" and self.config.task is not None
                task = build_task(self.config.task) if is_drawn else None
                tokens = example_dataset(tokens.ids_N, self.tokenizer, task)
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from None
        # Compare the length first: a wrong file may be far too long to hash.
        if len(tokens.ids_N) != self.record.data.tokens[name]:
            raise MoreishError(f"{path} is damaged: it holds {len(tokens.ids_N):,} tokens")
        if fingerprint(tokens) != self.record.data.sha256.get(name):
            raise MoreishError(
                f"{path} is damaged: its sha256 is not the one in run.json, so a loss on it would "
                "be meaningless"
            )
        return tokens

    def _read_prepared_split(self) -> TokenDataset:
        """The training split of a prepared dataset, which the run only refers to."""
        file = self.path / REFERENCE
        try:
            folder = Path(read_json(file)["folder"])
        except DAMAGE_ERRORS as error:
            raise _damaged(file, error) from None
        if not (folder / MANIFEST).is_file():
            raise MoreishError(
                f"the training data of {self.path} are missing: put {folder} back, or write its "
                f"new place into {file}"
            )
        prepared = PreparedDataset.open(folder)
        if prepared.sha256 != self.record.data.sha256["train"]:
            raise MoreishError(
                f"{folder} holds other data than those that {self.path} was trained on"
            )
        return prepared.tokens("train")

    @property
    def uses_prepared_data(self) -> bool:
        """Whether the run was trained on a prepared dataset, which is not part of the folder."""
        return self.record.data.sources is not None

    @property
    def _is_training_data_missing(self) -> bool:
        """Whether the run was trained on a prepared dataset that is no longer there."""
        if self.uses_prepared_data:
            try:
                self.split("train")
            except MoreishError:
                return True
        return False

    @property
    def has_data(self) -> bool:
        """Whether the files of all splits exist; their content is not verified."""
        return (
            bool(self.split_names)
            and not self._is_training_data_missing
            and all(
                name in self._splits or (self.path / "data" / f"{name}.npy").is_file()
                for name in self.split_names
            )
        )

    def _check_searchable(self) -> None:
        """Check that the training data can be searched for texts, which needs them in memory.

        Raises:
            MoreishError: they are too large.
        """
        tokens = self.record.data.tokens.get("train", 0)
        if self.uses_prepared_data and tokens > MAX_SEARCHABLE_TOKENS:
            raise MoreishError(
                f"the training data of {self.path} are prepared text of {tokens:,} tokens; only "
                f"{MAX_SEARCHABLE_TOKENS:,} or fewer can be searched for texts"
            )

    # --- results ---

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl; those that a full disk or a crash damaged are skipped."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                try:
                    entry = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                    for old in RENAMED_METRICS.keys() & entry:
                        entry[RENAMED_METRICS[old]] = entry.pop(old)
                    yield entry

    @property
    def scores(self) -> dict[SplitName, Score]:
        """The losses of the best weights at the end of training; empty before."""
        return self.record.splits


def _state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """The sha256 of the names, types, shapes and elements of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {state[name].dtype} {list(state[name].shape)}\n".encode())
        digest.update(tensor_bytes(state[name]))
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> MoreishError:
    return MoreishError(f"{path} is damaged ({type(error).__name__}: {one_line(error)})")
