"""Record the golden runs: `python -m tests.golden.record [FILE] [RECIPE …]`.

Trains every recipe in `recipes/` through the command line and writes what came out to FILE
(default `expected.json`, next to this script). Only outer surfaces are used: the command line, the
run folder, and the recipes, so that the records survive any change inside the package.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import platform
import runpy
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import typer.main

HERE = Path(__file__).parent

ENVIRONMENT = {
    # One thread each, and the code paths that every x86-64 CPU has, instead of the fastest ones.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "CUDA_VISIBLE_DEVICES": "",
}
"""Read when the libraries are loaded, so it must be set before the process starts."""

FIRST = ("gpt-classic",)
"""Recipes that others start from."""

BEFORE = {
    "gpt-prepared": (
        *("prepare", "story.txt", "voyage.txt", "--out", "prepared", "--json"),
        *("--tokenizer", "bpe", "--vocab-size", "300", "--hold-out", "0.1"),
    )
}
"""Commands to run before a recipe is trained."""

OPTIONAL = ("ngram-gpt2",)
"""Recipes whose vocabulary must be downloaded. It is large: their samples are short."""

NO_TEST_SPLIT = ("gpt-lecture",)
"""Recipes whose data have no test split: running text in the lecture's split."""

RESUMED = "mlp"
"""The recipe that is also resumed from its last but one checkpoint."""

TEXTS = {"towns.txt": "marbury", "names": "olivia"}
"""What is evaluated token by token, by source; running text otherwise."""

SHARPENED = ("--temperature", "0.7", "--top-k", "12", "--top-p", "0.9")


def main() -> None:
    arguments = sys.argv[1:]
    file = Path(arguments[0] if arguments else HERE / "expected.json").absolute()
    names = sorted(path.stem for path in (HERE / "recipes").glob("*.toml"))
    # To make the command line of all verbs anew takes longer than many a verb.
    typer.main.get_command = functools.cache(typer.main.get_command)
    names = [*FIRST, *(name for name in names if name not in FIRST)]
    if len(arguments) > 1:
        names = [name for name in names if name in arguments[1:]]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for path in (HERE / "data").iterdir():
            shutil.copy(path, folder)
        runs: dict[str, Any] = {}
        for name in names:
            began = time.perf_counter()
            try:
                runs[name] = train(name)
            except CommandError as error:
                if name not in OPTIONAL:
                    raise
                runs[name] = {"missing": str(error)}
            if name == RESUMED:
                runs[f"{name} (resumed)"] = resume(name)
            print(f"{time.perf_counter() - began:6.2f} s  {name}", file=sys.stderr)  # noqa: T201
        os.chdir(HERE)
    file.write_text(formatted({"machine": machine_info(), **dict(sorted(runs.items()))}), "utf-8")


def formatted(record: dict[str, dict[str, Any]]) -> str:
    """As JSON, one field a line."""
    groups = []
    for name, fields in record.items():
        lines = (
            f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in fields.items()
        )
        groups.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(groups) + "\n}\n"


class CommandError(RuntimeError):
    """A command failed; holds its last line on standard error."""


def moreish(*arguments: str) -> Any:
    """What a command prints as JSON; as `python -m moreish`, without starting another process."""
    out, err = io.StringIO(), io.StringIO()
    own, status = sys.argv, None
    sys.argv = ["moreish", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_module("moreish", run_name="__main__")
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.argv = own
    if status:
        raise CommandError(f"{' '.join(arguments)}: {err.getvalue().strip()}")
    return json.loads(out.getvalue())


def train(name: str) -> dict[str, Any]:
    """The record of a recipe."""
    if name in BEFORE:
        moreish(*BEFORE[name])
    config = HERE / "recipes" / f"{name}.toml"
    return measure(name, moreish("train", "--config", str(config), "--out", name, "--json"))


def resume(name: str) -> dict[str, Any]:
    """The record of a finished run after its training went on from its last but one checkpoint."""
    copy = Path(shutil.copytree(name, f"{name}-resumed"))
    record = json.loads((copy / "run.json").read_text("utf-8"))
    (copy / "run.json").write_text(json.dumps({**record, "status": "training", "splits": {}}))
    *_, last = sorted((copy / "checkpoints").iterdir())
    shutil.rmtree(last)
    return measure(copy.name, moreish("train", "--resume", copy.name, "--json"))


def measure(run: str, trained: dict[str, Any]) -> dict[str, Any]:
    """Everything that is compared."""
    metrics = Path(run, "metrics.jsonl")  # counted models have none
    lines = metrics.read_text("utf-8").splitlines() if metrics.exists() else []
    logged = [json.loads(line) for line in lines]
    config = json.loads(Path(run, "run.json").read_text("utf-8"))["config"]
    text = TEXTS.get(config["data"]["source"], "The miller")
    test = () if run in NO_TEST_SPLIT else ("--test",)
    evaluated = moreish("eval", run, *test, "--json")["splits"]
    surprisal = moreish("eval", run, "--text", text, "--unknown", "drop", "--json")
    return {
        "status": trained["status"],
        "parameters": trained["parameters"],
        "weights": weights(Path(run, "model.safetensors")),
        "losses": {str(line["step"]): line["loss"] for line in logged if "loss" in line},
        "gradient_norms": [line["gradient_norm"] for line in logged if "loss" in line],
        "learning_rates": [line["lr"] for line in logged if "loss" in line],
        "validation": {str(line["step"]): line["val"]["loss"] for line in logged if "val" in line},
        "scores_after_training": {split: score(s) for split, s in trained["splits"].items()},
        "scores": {split: score(s) for split, s in evaluated.items()},
        "nats_of_text": surprisal["nats"],
        "samples": samples(run, "--seed", "0"),
        "samples_sharpened": samples(run, "--seed", "1", *SHARPENED),
    }


def score(split: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a split, without what it took."""
    return {key: split[key] for key in ("loss", "stderr", "bits_per_char", "bits_per_byte")}


def samples(run: str, *options: str) -> list[str]:
    length = "6" if run in OPTIONAL else "60"
    return moreish("sample", run, "-n", "4", "--max-tokens", length, "--json", *options)["samples"]


def weights(path: Path) -> str:
    """A hash of all tensors of a safetensors file, whatever their names and their order."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    digests = []
    for tensor in header.values():
        first, last = tensor["data_offsets"]
        shape = json.dumps([tensor["dtype"], tensor["shape"]]).encode()
        digests.append(hashlib.sha256(shape + raw[8 + length :][first:last]).hexdigest())
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def machine_info() -> dict[str, str]:
    """What the last bits of a result may depend on."""
    import numpy
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "cpu": cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def cpu() -> str:
    """The model of the CPU: vendor, family, model and the name that it gives itself."""
    keys = ("vendor_id", "cpu family", "model", "model name")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    found = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    return ", ".join(found[key] for key in keys if key in found)


if __name__ == "__main__":
    if any(os.environ.get(key) != value for key, value in ENVIRONMENT.items()):
        script = str(Path(__file__).absolute())
        os.execve(  # noqa: S606 (itself, in another environment)
            sys.executable, [sys.executable, script, *sys.argv[1:]], {**os.environ, **ENVIRONMENT}
        )
    main()
