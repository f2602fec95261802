"""Exports runs to the file formats of other libraries and checks that those give the same results.

To add a format, write one module with an `Exporter` and add a line to `REGISTRY`.

B batch, T time, V vocabulary.
"""

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from moreish.errors import MoreishError, command, nearest
from moreish.evaluate import format_bits
from moreish.models import Model
from moreish.runs import Run
from moreish.utils.files import PARTIAL_SUFFIX, write_atomic

REGISTRY = {
    "hf": "moreish.convert.hf_export:HFExporter",
    "gguf": "moreish.convert.gguf_export:GGUFExporter",
    "onnx": "moreish.convert.onnx.export:ONNXExporter",
}

MODEL_CARD = "README.md"

GREEDY_TOKENS = 200
"""How many tokens both programs must generate alike at temperature 0."""


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """How closely the other library reproduces a run."""

    max_difference: float
    """The largest absolute difference of logits, or of log-probabilities."""
    matching_tokens: int
    """The number of tokens that both generate alike at temperature 0."""
    ties: int
    """How many of those the run ranks equal to another token, so that either choice is right."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written, and how closely the other library reproduces the run."""

    path: Path
    program: str
    architecture: str
    """The type of the model, as the program calls it."""
    quantity: str
    """What was compared: "logits", or "log-probabilities" if the program returns no logits."""
    parity: ParityResult


class ParityError(Exception):
    """The other library does not reproduce the run; the message says what differs."""


class Exporter(ABC):
    """Writes one run in the format of another library, and reads it back there."""

    program: ClassVar[str]
    libraries: ClassVar[tuple[str, ...]]
    """The packages that `pip install moreish[NAME]` adds."""
    library_name: ClassVar[str]
    """The value of `library_name` in the model card."""
    main_file: ClassVar[str]
    """The file by which a folder is recognized as an export."""
    quantity: ClassVar[str] = "logits"
    architecture: str

    @abstractmethod
    def __init__(self, run: Run) -> None:
        """Raises MoreishError if the format cannot express the run."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Writes all files except the model card."""

    @abstractmethod
    def usage(self) -> str:
        """Returns the section of the model card on how to use the files (Markdown)."""

    @abstractmethod
    def check_parity(self, folder: Path) -> ParityResult:
        """Loads the folder with the other library and compares. Raises ParityError."""


def export(
    run: Run, out: Path, *, to: str = "hf", model_license: str = "unknown", overwrite: bool = False
) -> ExportResult:
    """Exports a run; the folder appears only if the other library reproduces the run from it.

    Args:
        out: the new folder.
        to: a name in `REGISTRY`.
        model_license: the license that the model card names.
        overwrite: replace an earlier export at `out`.

    Raises:
        MoreishError: the format cannot express the model, a library is missing or gives other
            results, or `out` exists.
    """
    exporter_class = _exporter_class(to)
    if out.exists() and not (overwrite and is_export(out)):
        hint = ": --overwrite replaces an export" if is_export(out) else ": choose another folder"
        raise MoreishError(f"{out} exists{hint}")
    for library in exporter_class.libraries:
        try:
            import_module(library)
        except ImportError:
            raise MoreishError(
                f"this format needs another package ({library}): pip install 'moreish[{to}]'"
            ) from None
    exporter = exporter_class(run)
    temporary = out.with_name(f".{out.name}{PARTIAL_SUFFIX}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        exporter.write(temporary)
        write_atomic(temporary / MODEL_CARD, _model_card(run, exporter, model_license).encode())
        try:
            parity = exporter.check_parity(temporary)
        except ParityError as error:
            raise MoreishError(
                f"{exporter.program} does not reproduce this run ({error}), so nothing was "
                f"exported. Please report this with the output of {command('eval', run.path)} "
                f"and of pip show {exporter.libraries[-1]}"
            ) from None
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ExportResult(
        path=out,
        program=exporter.program,
        architecture=exporter.architecture,
        quantity=exporter.quantity,
        parity=parity,
    )


def is_export(path: Path) -> bool:
    """Returns whether `path` is a folder that `export` could have written."""
    return any((path / _exporter_class(name).main_file).is_file() for name in REGISTRY)


def _exporter_class(name: str) -> type[Exporter]:
    if name not in REGISTRY:
        raise MoreishError(f"--to {name}: {nearest(name, REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    exporter_class: type[Exporter] = getattr(import_module(module), attribute)
    return exporter_class


def _model_card(run: Run, exporter: Exporter, model_license: str) -> str:
    record, data = run.record, run.record.data
    scores = "\n".join(
        f"| {name} | {score.loss:.4f} | {format_bits(score.bits_per_byte)} | {score.tokens:,} |"
        for name, score in run.scores.items()
    )
    hashes = "\n".join(f"- {name}: `{digest}`" for name, digest in data.sha256.items())
    return f"""---
license: {model_license}
library_name: {exporter.library_name}
pipeline_tag: text-generation
---

# {run.path.resolve().name}

A language model with {record.parameters or 0:,} parameters, trained on {data.name}
({data.characters:,} characters) with Moreish {record.versions["moreish"]}.

| split | loss (nats per token) | bits per byte | tokens |
|---|---|---|---|
{scores}

## Usage

{exporter.usage().strip()}

## Training data

SHA-256 of the tokens of each split:

{hashes}

## Settings

```json
{json.dumps(record.config, indent=2)}
```
"""


# --- shared by the parity checks ---


def validation_text(run: Run) -> str:
    """Returns a text from the validation split, or a fixed one if the run has no data."""
    if not run.split_names:
        return "The quick brown fox\njumps over 13 lazy dogs."
    tokens = run.split("val")
    ids = tokens.item(0) if tokens.items else tokens.ids_N[:500].astype(np.int64)
    return run.tokenizer.decode(ids).replace("\ufffd", "")


def start_token(run: Run) -> int:
    """Returns the token that a generated text starts from: the boundary, if there is one."""
    return 0 if run.tokenizer.boundary_id is None else run.tokenizer.boundary_id


def check_encoding(run: Run, text: str, ids: list[int]) -> None:
    """Raises ParityError unless `ids` are the tokens of `text`, without a boundary."""
    if ids != run.tokenizer.encode(text).tolist():
        raise ParityError(f"it encodes {text[:30]!r} differently")


@torch.inference_mode()
def check_greedy_decoding(model: Model, first: int, generated: list[int], tolerance: float) -> int:
    """Checks that the model would have generated the same tokens at temperature 0.

    If the model ranks two tokens equal, either choice is right; the comparison continues after the
    token that the other program chose.

    Args:
        first: the token that the text starts with.
        generated: the tokens that the other program generated after it.
        tolerance: logits that differ by less are equal.

    Returns:
        The number of such ties.

    Raises:
        ParityError: the model prefers another token.
    """
    state, ties, last_BT = None, 0, torch.tensor([[first]])
    for i, token in enumerate(generated, 1):
        logits_BTV, state = model(last_BT, state)
        logits_V = logits_BTV[0, -1]
        if int(logits_V.argmax()) != token:
            if not logits_V.max() - logits_V[token] < tolerance:
                raise ParityError(f"at temperature 0 it generates another token at position {i}")
            ties += 1
        last_BT = torch.tensor([[token]])
    return ties


def max_abs_difference(actual: Tensor, expected: Tensor) -> float:
    """Returns the largest absolute difference; infinite for NaN, 0 for equal infinities."""
    difference = torch.where(actual == expected, 0.0, (actual - expected).abs())
    return float(difference.nan_to_num(nan=torch.inf).max()) if difference.numel() else 0.0
