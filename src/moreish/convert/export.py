"""Exports runs to the file formats of other libraries and checks that those give the same results.

To add a format, write one module with an `Exporter` and add a line to `REGISTRY`.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moreish.convert.exporter import Exporter, ParityError, ParityResult
from moreish.convert.gguf_export import GGUFExporter
from moreish.convert.hf_export import HFExporter
from moreish.convert.onnx import ONNXExporter
from moreish.errors import MoreishError, command, nearest
from moreish.evaluate import format_bits
from moreish.runs import Run
from moreish.utils.extras import import_extra
from moreish.utils.files import LOCK, partial_folder, user_path, write_atomic
from moreish.utils.platforms import rename_folder

REGISTRY: dict[str, type[Exporter]] = {"hf": HFExporter, "gguf": GGUFExporter, "onnx": ONNXExporter}


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written, and how closely the other library reproduces the run."""

    path: Path
    format: str
    """Its name in `REGISTRY`."""
    exporter: Exporter
    parity: ParityResult


def export(
    run: Run,
    out: str | Path,
    *,
    to: str | None = None,
    model_license: str = "unknown",
    overwrite: bool = False,
) -> ExportResult:
    """Export a run; the folder appears only if the other library reproduces the run from it.

    Args:
        out: the new folder.
        to: "hf" (Hugging Face's transformers), "gguf" (llama.cpp) or "onnx" (ONNX Runtime); None
            chooses "hf", or "onnx" where "hf" cannot express the model.
        model_license: the license that the model card names.
        overwrite: replace an earlier export at `out`.

    Raises:
        MoreishError: the format cannot express the model, a library is missing or gives other
            results, or `out` exists.
    """
    if run.kind == "examples":
        raise MoreishError(
            f"{run.path} predicts the targets of inputs, and cannot be exported yet: use moreish "
            "predict, or run.predict in Python"
        )
    out = user_path(out)
    if to is None:
        to = "onnx"
        with suppress(MoreishError):
            HFExporter(run)
            to = "hf"
    if to not in REGISTRY:
        raise MoreishError(f"--to {to}: {nearest(to, REGISTRY)}")
    if out.exists():
        is_export = any((out / each.main_file).is_file() for each in REGISTRY.values())
        if not (overwrite and is_export):
            hint = "--overwrite replaces an export" if is_export else "choose another folder"
            raise MoreishError(f"{out} exists: {hint}")
    for library in REGISTRY[to].libraries:
        import_extra(library, to, "this format")
    exporter = REGISTRY[to](run)
    with partial_folder(out) as temporary:
        exporter.write(temporary)
        write_atomic(temporary / "README.md", _model_card(run, exporter, model_license).encode())
        try:
            parity = exporter.check_parity(temporary)
        except ParityError as error:
            raise MoreishError(
                f"{exporter.program} does not reproduce this run ({error}), so nothing was "
                f"exported. Please report this with the output of {command('eval', run.path)} "
                f"and of pip show {exporter.libraries[-1]}"
            ) from None
    try:
        (temporary / LOCK).unlink(missing_ok=True)
        if out.exists():
            shutil.rmtree(out)
        rename_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return ExportResult(path=out, format=to, exporter=exporter, parity=parity)


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
