"""What run.json holds: every fact of a run, checked whenever one is opened."""

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
from pydantic import Field, ValidationError

from moreish.config import RunConfig
from moreish.data import CorpusKind, SplitName
from moreish.errors import MoreishError
from moreish.settings import Settings

FORMAT: Literal[1] = 1
"""Of the run folder; a newer one than this code knows is refused."""

Status = Literal["created", "training", "interrupted", "diverged", "stopped early", "finished"]

ENDED_STATUSES: tuple[Status, ...] = ("finished", "stopped early", "diverged")
"""There is nothing to resume."""


class DatasetInfo(Settings):
    """What a text was understood to be."""

    name: str
    kind: CorpusKind
    documents: int
    """Items of a list, or files of running text."""
    distinct: int
    characters: int
    shortest: int
    longest: int
    longest_item: int | None
    """In tokens; None for running text."""
    vocabulary: int
    boundary: bool
    alphabet: str
    """The first characters that occur, for people to read."""
    split_documents: dict[SplitName, int] | None
    tokens: dict[SplitName, int]
    sha256: dict[SplitName, str]
    """Of the tokens of each split, see `moreish.data.token_dataset.fingerprint`."""
    notes: list[str]
    sources: dict[str, int] | None = None
    """Of prepared text, the training tokens of each; None for other texts."""


class SavedScore(Settings):
    """A `Score` as JSON; what is not finite is None."""

    loss: float | None
    stderr: float | None
    bits_per_char: float | None
    bits_per_byte: float | None
    perplexity: float | None
    tokens: int


class RunRecord(Settings):
    """run.json. The results are None or empty until the training has ended."""

    format: Literal[1] = FORMAT
    status: Status = "created"
    created: str
    config: dict[str, Any]
    data: DatasetInfo
    tokenizer: str
    """Its fingerprint."""
    sha256: str
    """Of `config`, `data` and `tokenizer`, which never change: whoever edits them is told."""
    versions: dict[str, str]
    machine: dict[str, Any]
    command: list[str]
    test_evaluations: int = Field(0, ge=0)
    parameters: int | None = None
    splits: dict[SplitName, SavedScore] = {}
    """The exact losses of the best weights."""
    seconds: float | None = None
    """Trained, the evaluations on the way included."""
    evaluation_seconds: float | None = None
    """Of `seconds`: spent on evaluations on the way."""
    scoring_seconds: float | None = None
    """After the training: the exact losses of the splits."""
    tokens_per_second: float | None = None

    @classmethod
    def new(cls, config: RunConfig, data: DatasetInfo, tokenizer: str) -> Self:
        """The record of a run that begins now, here."""
        settings = config.model_dump(mode="json")
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            config=settings,
            data=data,
            tokenizer=tokenizer,
            sha256=_digest(settings, data, tokenizer),
            versions=library_versions(),
            machine=machine_info(),
            command=sys.argv,
        )

    @classmethod
    def read(cls, tree: Any, where: str) -> Self:
        """The record that a run.json holds as JSON; `where` names it in the error message.

        Raises:
            MoreishError: it is damaged, or newer than this Moreish.
        """
        if isinstance(tree, dict) and _number(tree.get("format")) > FORMAT:
            raise MoreishError(
                f"{where} was written by a newer Moreish: pip install --upgrade moreish"
            )
        try:
            record = cls.model_validate(tree)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise MoreishError(f"{where} is damaged ({key}: {first['msg']})") from None
        if record.sha256 != _digest(record.config, record.data, record.tokenizer):
            raise MoreishError(
                f"{where} was edited: its config, data or tokenizer are not those that the run was "
                "made with, so nothing in it counts; undo that, or train again"
            )
        return record


def library_versions() -> dict[str, str]:
    """Of what decides the numbers."""
    found = {name: version(name) for name in ("moreish", "torch", "numpy")}
    return {**found, "python": platform.python_version()}


def machine_info() -> dict[str, Any]:
    """Where this runs."""
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def environment(device: str) -> dict[str, str]:
    """What decides the bits of a training beside its settings and its data."""
    made = {name: found for name, found in library_versions().items() if name != "python"}
    if device.startswith("cuda"):
        device = torch.cuda.get_device_name(device)
    return {
        **made,
        "threads": str(torch.get_num_threads()),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": device,
    }


def _processor() -> str:
    """Its model, where the system tells."""
    with suppress(OSError, IndexError):
        told = Path("/proc/cpuinfo").read_text("utf-8", "replace")
        return told.split("model name")[1].split("\n")[0].strip("\t :")
    return platform.processor() or platform.machine()


def _digest(config: dict[str, Any], data: DatasetInfo, tokenizer: str) -> str:
    # Runs from before there were sources have none in their hash.
    facts = data.model_dump(mode="json", exclude={"sources"} if data.sources is None else None)
    content = json.dumps([config, facts, tokenizer], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _number(value: Any) -> float:
    return value if isinstance(value, int) else 0
