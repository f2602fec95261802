"""Training runs with several processes have the losses of one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from moreish.config import TrainConfig
from moreish.distributed.process_group import ProcessGroup
from moreish.models import build_model, model_config
from moreish.runs.run import Run
from moreish.training.parallel import should_shard
from support import ddp_worker

SMALL = ["--model", "gpt", "--set", "model.layers=2", "--set", "train.batch_tokens=512"]
SMALL += ["--set", "train.checkpoint_every=20", "--set", "train.eval_every=50", "--seed", "3"]

GENEROUS_DEADLINE_S = 90.0
"""Deadline of every process that is started here."""


def launcher(*options: str, size: int = 2) -> list[str]:
    """Return a command line of torchrun with a free port."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    return [*torchrun, "--master-port", str(port), *options]


def launched(*command: str | Path, options: tuple[str, ...] = (), size: int = 2) -> Any:
    return subprocess.run(
        [*launcher(*options, size=size), *map(str, command)],
        capture_output=True,
        text=True,
        timeout=3 * GENEROUS_DEADLINE_S,
    )


@contextmanager
def launching(
    out: Path, *options: str, steps: int = 400
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a training run with two processes; yield the process and the path of its weights."""
    train = ["-m", "moreish", "train", "names", *SMALL, "--steps", str(steps), "--out", str(out)]
    with subprocess.Popen(
        [*launcher(*options), *train], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process, out / "model.safetensors"
        finally:
            process.kill()


def wait_for(path: Path) -> None:
    until = time.monotonic() + GENEROUS_DEADLINE_S
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not exist"
        time.sleep(0.05)


def processes_of(out: Path) -> list[int]:
    """Return the ids of the processes that train at `out`, by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            variables = (place / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [word for word in variables if word.startswith(b"RANK=")]
        if str(out).encode() in words and ranks:
            found[int(ranks[0][5:])] = int(place.name)
    return [found[rank] for rank in sorted(found)]


def validation(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {entry["step"]: entry["val"]["loss"] for entry in lines if "val" in entry}


def test_weights_are_sharded_where_copies_do_not_fit() -> None:
    model = build_model(model_config({"name": "gpt"}), 100)
    needed = 16 * sum(parameter.numel() for parameter in model.parameters())
    two = ProcessGroup(0, 2)

    def chosen(memory: float, parallel: str = "auto", group: ProcessGroup = two) -> bool:
        return should_shard(model, TrainConfig(parallel=parallel), group, memory)

    assert not chosen(needed / 0.69)
    assert chosen(needed / 0.71)
    assert not chosen(needed / 2, group=ProcessGroup())
    assert chosen(1e15, "fsdp") and not chosen(1.0, "ddp")
    assert not chosen(1e15, "fsdp", ProcessGroup())


@pytest.mark.usefixtures("quick_processes")
@pytest.mark.parametrize(
    ("names", "steps"),
    [
        pytest.param(ddp_worker.FEW, 20, id="few"),
        pytest.param(
            list(ddp_worker.CASES), 50, id="all", marks=[pytest.mark.soak, pytest.mark.long]
        ),
    ],
)
def test_two_processes_have_the_losses_of_one(tmp_path: Path, names: list[str], steps: int) -> None:
    alone, shared = tmp_path / "one", tmp_path / "two"
    for folder in (alone, shared):
        folder.mkdir()
    done = launched(ddp_worker.__file__, shared, str(steps), *names)
    assert done.returncode == 0, done.stderr
    ddp_worker.train_all(alone, steps, names)
    for name in names:
        before, after = validation(alone / name), validation(shared / name)
        assert before.keys() == after.keys() and len(before) >= 2, name
        assert after == pytest.approx(before, abs=1e-4), name
        assert Run.open(shared / name).record.status == "finished"
    # A batch that is shared has as many tokens as a whole one.
    seen = [
        json.loads((folder / "gpt" / "metrics.jsonl").read_text().splitlines()[-3])["tokens"]
        for folder in (alone, shared)
    ]
    assert seen[0] == seen[1] > 0


@pytest.mark.soak
@pytest.mark.long
def test_a_job_restarts_after_a_kill_and_ends_with_the_same_bits(
    tmp_path: Path,
) -> None:
    for out, kill in ((tmp_path / "whole", False), (tmp_path / "killed", True)):
        with launching(out, "--max-restarts", "1") as (process, weights):
            wait_for(weights)  # beyond the first checkpoints
            if kill:
                os.kill(processes_of(out)[1], signal.SIGKILL)
            output, _ = process.communicate(timeout=GENEROUS_DEADLINE_S)
            assert process.returncode == 0, output
            assert ("steps 40 to 400" in output or "to 400 on 2" in output) == kill
    one, other = ((tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    assert validation(one.parent) == validation(other.parent)


@pytest.mark.soak
@pytest.mark.long
def test_without_restarts_a_kill_ends_the_job_with_the_cause(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with launching(out, steps=5000) as (process, weights):
        wait_for(weights)
        os.kill(processes_of(out)[1], signal.SIGKILL)
        output, _ = process.communicate(timeout=GENEROUS_DEADLINE_S)
    assert process.returncode == 1
    assert "Signal 9 (SIGKILL)" in output and output.count("moreish: ") <= 1
    assert processes_of(out) == []


@pytest.mark.soak
@pytest.mark.long
def test_an_interrupted_run_resumes_with_another_number_of_processes(tmp_path: Path) -> None:
    with launching(tmp_path / "whole") as (process, _):
        process.wait(GENEROUS_DEADLINE_S)
    out = tmp_path / "run"
    with launching(out) as (process, weights):
        wait_for(weights)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=GENEROUS_DEADLINE_S)
    assert "Resume with: moreish train --resume" in output
    assert Run.open(out).record.status == "interrupted"
    for size in (1, 3):
        copy = shutil.copytree(out, tmp_path / f"run-{size}")
        if size == 1:
            command = [sys.executable, "-m", "moreish", "train", "--resume", copy]
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=GENEROUS_DEADLINE_S
            )
        else:
            done = launched("-m", "moreish", "train", "--resume", copy, size=size)
        assert done.returncode == 0, done.stderr
        assert f"{size} processes now, 2 before" in done.stdout
        assert validation(copy) == pytest.approx(validation(tmp_path / "whole"), abs=1e-4)


@pytest.mark.soak
@pytest.mark.long
def test_errors_are_reported_once(tmp_path: Path) -> None:
    wrong = {
        "unknown model 'gtp': did you mean 'gpt'?": ["--model", "gtp"],
        "kneser-ney is fitted by counting, which takes one": ["--model", "kneser-ney"],
    }
    for message, options in wrong.items():
        done = launched("-m", "moreish", "train", "names", *options, "--out", tmp_path / "run")
        assert done.returncode == 1
        assert done.stderr.count(f"moreish: {message}") == 1
        assert f"traceback : {message}" in done.stderr  # in what torchrun says at the end
        assert not (tmp_path / "run").exists()
    whole = ["--set", "train.parallel=fsdp", "--set", "train.squared_weights=0.1"]
    run = tmp_path / "run"
    done = launched(
        "-m", "moreish", "train", "names", "--model", "mlp", *whole, "--steps", "2", "--out", run
    )
    assert done.stderr.count("moreish: train.squared_weights needs all weights") == 1
    assert not run.exists()
    options = ("--max-restarts", "1")
    done = launched("-m", "moreish", "train", "names", "--steps", "1", options=options)
    assert done.stderr.count("moreish: name the run, --out runs/") == 2  # torchrun tries again
    assert done.returncode == 1


@pytest.mark.soak
@pytest.mark.long
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_minutes_end_on_time(tmp_path: Path, parallel: str) -> None:
    done = launched(
        "-m", "moreish", "train", "names", "--model", "gpt", "--minutes", "0.2", "--set",
        f"train.parallel={parallel}", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = Run.open(tmp_path / "run").record
    assert record.seconds == pytest.approx(12, rel=0.25)
    assert record.status == "finished"


@contextmanager
def two_hosts() -> Iterator[list[list[str]]]:
    """Create two network namespaces that can reach only each other.

    Yields:
        The prefix of a command line for each of them.
    """
    names = [f"moreish-{os.getpid()}-{number}" for number in range(2)]
    cable = [f"mo{os.getpid()}{end}"[-12:] for end in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, (name, end) in enumerate(zip(names, cable, strict=True), 1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield [
            ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={end}"]
            for name, end in zip(names, cable, strict=True)
        ]
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.soak
@pytest.mark.long
def test_two_hosts_have_the_losses_of_one(tmp_path: Path) -> None:
    train = ["-m", "moreish", "train", "names", *SMALL, "--steps", "100", "--out"]
    subprocess.run(
        [sys.executable, *train, tmp_path / "one"],
        check=True,
        capture_output=True,
        timeout=GENEROUS_DEADLINE_S,
    )
    with two_hosts() as hosts:
        started = []
        for rank, within in enumerate(hosts):
            command = [*within, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
            command += ["--node-rank", str(rank), "--nproc-per-node", "1"]
            command += ["--master-addr", "10.77.0.1", "--master-port", "29511"]
            command += [*train, str(tmp_path / "two")]
            started.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
            )
        outputs = [process.communicate(timeout=GENEROUS_DEADLINE_S)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert "on 2 processes" in outputs[0] and "step" not in outputs[1]
    assert validation(tmp_path / "two") == pytest.approx(validation(tmp_path / "one"), abs=1e-4)
