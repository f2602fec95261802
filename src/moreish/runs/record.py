"""The content of run.json, which is verified whenever a run is opened."""

import functools
import hashlib
import json
import os
import platform
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field

from moreish.config import RunConfig
from moreish.data import CorpusKind, SplitName
from moreish.errors import MoreishError
from moreish.evaluate import Score
from moreish.settings import Settings
from moreish.tokenizers import TargetForm

FORMAT: Literal[1] = 1
"""Version of the run folder's format; a newer one is rejected."""

Status = Literal["created", "training", "interrupted", "diverged", "stopped early", "finished"]
"""How training stands or ended; after `RunFolder.extend`, its last phase, whether or not that
lowered the validation loss."""

ENDED_STATUSES: tuple[Status, ...] = ("finished", "stopped early", "diverged")
"""Statuses of a run that cannot be resumed."""


LATER_FIELDS = ("sources", "targets", "labels", "outputs", "longest_target")
"""Fields of `DatasetInfo` that older runs do not have."""


class DatasetInfo(Settings):
    """What is known of the data of a run; the defaults are those of a model without data."""

    name: str
    kind: CorpusKind
    documents: int = 0
    """Number of items of a list, or of files of running text."""
    distinct: int = 0
    """Number of distinct ones."""
    characters: int = 0
    shortest: int = 0
    """In characters, like `longest`."""
    longest: int = 0
    targets: TargetForm | None = None
    """What the targets of examples are; None for other data."""
    labels: int | None = None
    """Number of different labels, where targets are labels."""
    outputs: int | None = None
    """Number of tokens that can be predicted, where targets are labels."""
    longest_target: int | None = None
    """Predictions of the longest target of examples."""
    longest_item: int | None = None
    """In tokens; None for running text."""
    vocabulary: int
    boundary: bool
    alphabet: str = ""
    """The first characters that occur, for display."""
    split_documents: dict[SplitName, int] | None = None
    tokens: dict[SplitName, int] = {}
    sha256: dict[SplitName, str] = {}
    """Hash of the tokens of each split, see `moreish.data.fingerprint`."""
    notes: list[str] = []
    sources: dict[str, int] | None = None
    """Number of training tokens of each source of a prepared dataset; None for other data."""


class RunRecord(Settings):
    """The content of run.json; the results are None or empty until training has ended."""

    format: Literal[1] = FORMAT
    status: Status = "created"
    created: str
    config: dict[str, Any]
    data: DatasetInfo
    tokenizer: str
    """Its fingerprint."""
    sha256: str
    """Hash of `config`, `data` and `tokenizer`, which never change; it detects edits."""
    versions: dict[str, str]
    machine: dict[str, Any]
    command: list[str]
    first_step: int = Field(0, ge=0)
    """The step from which `RunFolder.extend` lets a finished run go on; 0 if it never did."""
    test_evaluations: int = Field(0, ge=0)
    parameters: int | None = None
    splits: dict[SplitName, Score] = {}
    """The exact losses of the best weights."""
    seconds: float | None = None
    """Duration of training, including the evaluations during it; after `RunFolder.extend`, that of
    the last phase."""
    earlier_seconds: float = Field(0.0, ge=0)
    """Duration of the phases before it."""
    evaluation_seconds: float | None = None
    """Part of `seconds` that was spent on these evaluations."""
    scoring_seconds: float | None = None
    """Duration of the exact evaluation of the splits after training."""
    tokens_per_second: float | None = None

    @classmethod
    def new(cls, config: RunConfig, data: DatasetInfo, tokenizer: str) -> Self:
        """The record of a run that starts now, on this machine.

        Args:
            config, data: what to record.
            tokenizer: its fingerprint.
        """
        settings = config.model_dump(mode="json")
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=settings,
            data=data,
            tokenizer=tokenizer,
            sha256=record_sha256(settings, data, tokenizer),
            versions=library_versions(),
            machine=machine_info(),
            command=sys.argv,
        )

    @classmethod
    def read(cls, tree: Any, where: str) -> Self:
        """Validate a parsed run.json.

        Args:
            tree: the JSON value.
            where: the name of the file, for messages.

        Raises:
            MoreishError: it is damaged, edited, or written by a newer Moreish.
        """
        record = cls.parse_stored(tree, where, FORMAT)
        if record.sha256 != record_sha256(record.config, record.data, record.tokenizer):
            raise MoreishError(
                f"{where} was edited: its config, data or tokenizer are not those that the run was "
                "trained with, so its results are meaningless; undo the edit, or train again"
            )
        return record


_cached_version = functools.cache(version)  # it reads and parses a file


def library_versions() -> dict[str, str]:
    """The versions of the libraries that numerical results depend on."""
    versions = {name: _cached_version(name) for name in ("moreish", "torch", "numpy")}
    return {**versions, "python": platform.python_version()}


def machine_info() -> dict[str, Any]:
    """The operating system and processors of this machine."""
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def environment(device: torch.device, processes: int) -> dict[str, str]:
    """Return everything but settings and data that the bits of a run depend on."""
    versions = library_versions()
    del versions["python"]
    is_gpu = device.type == "cuda"
    return {
        **versions,
        "threads": str(torch.get_num_threads()),
        "processor": _processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if is_gpu else str(device),
        **({"processes": str(processes)} if processes > 1 else {}),
    }


def _processor_name() -> str:
    with suppress(OSError, IndexError):
        info = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        return info.split("model name")[1].split("\n")[0].strip("\t :")
    return platform.processor() or platform.machine()


def record_sha256(config: dict[str, Any], data: DatasetInfo, tokenizer: str) -> str:
    """The sha256 of what never changes in a run.json, with which edits are detected."""
    # Older runs do not have these fields, so they are not part of the hash where they are None.
    absent = {name for name in LATER_FIELDS if getattr(data, name) is None}
    info = data.model_dump(mode="json", exclude=absent)
    content = json.dumps([config, info, tokenizer], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
