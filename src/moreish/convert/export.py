"""Runs taken to other programs. A new one is one file and one line in `REGISTRY`.

B batch, T time, V vocabulary.
"""

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from moreish.errors import MoreishError, command, nearest
from moreish.evaluate import format_bits
from moreish.models import Model
from moreish.runs import Run
from moreish.utils.files import PARTIAL_SUFFIX, write_atomic

REGISTRY = {
    "hf": "moreish.convert.hf_export:ToTransformers",
    "gguf": "moreish.convert.gguf_export:ToLlamaCpp",
    "onnx": "moreish.convert.onnx.export:ToOnnx",
}

CARD = "README.md"

GREEDY = 200
"""Tokens that both must write alike."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well another program was found to agree with a run."""

    difference: float
    """The largest, of logits; of log-probabilities where the program tells no logits."""
    alike: int
    """Tokens that both write without chance."""
    ties: int
    """… of which the run had two that were as likely, so that either could be taken."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and how well it was found to agree."""

    path: Path
    program: str
    kind: str
    """Of model, as the program calls it."""
    compared: str
    """What was: logits, or log-probabilities where the program tells no logits."""
    logit_difference: float
    """The largest of those."""
    tokens_alike: int
    """Written without chance by both."""
    ties: int
    """… of which two tokens were as likely, so that either could be taken."""


class Export(ABC):
    """One run on its way to one program."""

    program: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """What the user installs as `moreish[NAME]`."""
    library_name: ClassVar[str]
    """For the model card."""
    main_file: ClassVar[str]
    """By which an export is known as one."""
    compared: ClassVar[str] = "logits"
    kind: str

    @classmethod
    @abstractmethod
    def of(cls, run: Run) -> Self:
        """Raises MoreishError when the program cannot express the run, before anything is
        written."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write everything but the model card."""

    @abstractmethod
    def usage(self) -> str:
        """For the model card: how to use what is in the folder."""

    @abstractmethod
    def agreement(self, folder: Path) -> Agreement:
        """Let the program read the folder, and compare. Raises DisagreementError."""


class DisagreementError(Exception):
    """The program makes something else of the folder than the run; the text says what."""


def export(
    run: Run, out: Path, *, to: str = "hf", licence: str = "unknown", overwrite: bool = False
) -> Exported:
    """A folder for another program; it appears only if what the program makes of it is what the
    run makes of it.

    Args:
        to: a name in `REGISTRY`.
        licence: for the model card.

    Raises:
        MoreishError: the model cannot be expressed, a library is missing or disagrees, or `out`
            exists.
    """
    exporter = _exporter(to)
    if out.exists() and not (overwrite and is_export(out)):
        raise MoreishError(
            f"{out} exists" + (": --overwrite replaces an export" if is_export(out) else "")
        )
    for library in exporter.libraries:
        try:
            import_module(library)
        except ImportError:
            raise MoreishError(
                f"this needs a library ({library}): pip install 'moreish[{to}]'"
            ) from None
    made = exporter.of(run)
    beside = out.with_name(f".{out.name}{PARTIAL_SUFFIX}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        made.write(beside)
        write_atomic(beside / CARD, _card(run, made, licence).encode())
        try:
            found = made.agreement(beside)
        except DisagreementError as error:
            raise MoreishError(
                f"{made.program} does not agree with this run ({error}), so nothing was exported: "
                f"please report that, with what {command('eval')} and pip show "
                f"{made.libraries[-1]} print"
            ) from None
        if out.exists():
            shutil.rmtree(out)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(
        path=out,
        program=made.program,
        kind=made.kind,
        compared=made.compared,
        logit_difference=found.difference,
        tokens_alike=found.alike,
        ties=found.ties,
    )


def is_export(path: Path) -> bool:
    """Whether it is a folder that an export made, of whatever kind."""
    return any((path / _exporter(name).main_file).is_file() for name in REGISTRY)


def _exporter(name: str) -> type[Export]:
    if name not in REGISTRY:
        raise MoreishError(f"--to {name}: {nearest(name, REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    found: type[Export] = getattr(import_module(module), attribute)
    return found


def _card(run: Run, made: Export, licence: str) -> str:
    """The model card."""
    record, data = run.record, run.record.data
    scores = "\n".join(
        f"| {name} | {score.loss:.4f} | {format_bits(score.bits_per_byte)} | {score.tokens:,} |"
        for name, score in run.scores.items()
    )
    hashes = "\n".join(f"- {name}: `{digest}`" for name, digest in data.sha256.items())
    return f"""---
license: {licence}
library_name: {made.library_name}
pipeline_tag: text-generation
---

# {run.path.resolve().name}

A language model of {data.name} ({data.characters:,} characters), trained with Moreish
{record.versions["moreish"]}: {record.parameters or 0:,} parameters.

| split | loss (nats per token) | bits per byte | tokens |
|---|---|---|---|
{scores}

## How to use it

{made.usage().strip()}

## What it was made of

sha256 of the tokens of each split:

{hashes}

Settings:

```json
{json.dumps(record.config, indent=2)}
```
"""


# --- what the checks share ---


def some_text(run: Run) -> str:
    """Of validation, where there is any."""
    if not run.split_names:
        return "The quick brown fox\njumps over 13 lazy dogs."
    tokens = run.split("val")
    ids = tokens.item(0) if tokens.items else tokens.ids_N[:500].astype(np.int64)
    return run.tokenizer.decode(ids).replace("\ufffd", "")


def first_token(run: Run) -> int:
    """What a text is begun with: the boundary, where there is one."""
    return 0 if run.tokenizer.boundary_id is None else run.tokenizer.boundary_id


@torch.inference_mode()
def greedy_agreement(
    model: Model, first: int, written: list[int], tolerance: float
) -> tuple[int, int]:
    """How many of the tokens that a program has `written` after `first`, without chance, the model
    writes too; and how many of them were ties.

    Where the model finds two tokens as likely, either may be taken: the program's is, and the
    comparison goes on after it.

    Args:
        tolerance: logits that differ by less are as likely.

    Raises:
        DisagreementError: the model finds another token likelier.
    """
    state, ties, last_BT = None, 0, torch.tensor([[first]])
    for place, token in enumerate(written):
        logits_BTV, state = model(last_BT, state)
        logits_V = logits_BTV[0, -1]
        if int(logits_V.argmax()) != token:
            if not logits_V.max() - logits_V[token] < tolerance:
                raise DisagreementError(
                    f"without chance it writes another token at place {place + 1}"
                )
            ties += 1
        last_BT = torch.tensor([[token]])
    return len(written), ties


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Of all numbers; infinities that are equal do not differ, and NaN is infinitely far."""
    apart = torch.where(found == expected, 0.0, (found - expected).abs())
    return float(apart.nan_to_num(nan=torch.inf).max()) if apart.numel() else 0.0
