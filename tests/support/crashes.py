"""Kills training runs: run by test_faults.py in a process of its own, where forks are cheap.

    python tests/support/crashes.py FOLDER KILLS SEED

Prints one JSON object: what was done and found. Any guarantee that fails ends it with an
assertion.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from moreish import api
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.training.checkpoint import read_manifest
from moreish.training.events import ignore

torch.set_num_threads(1)

SETTINGS: dict[str, Any] = {
    "model": {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "dropout": 0.1},
    "train": {"batch_size": 8, "checkpoint_every": 1, "eval_every": 4, "steps": 12},
}


def forked(action: Callable[[], None]) -> int:
    """The process id of a fork that does `action` and nothing else."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except MoreishError as error:
            sys.stderr.write(f"{error}\n")
            os._exit(2)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def train(source: Path, out: Path) -> None:
    """Begin, or go on where a run is that has begun."""
    if (out / "run.json").exists():
        api.resume(out, report=ignore)
    else:
        api.train(source, out=out, settings=SETTINGS, report=ignore)


def newest(out: Path) -> int:
    """Steps of the newest checkpoint that is whole, 0 without one."""
    steps = [
        int(place.name.removeprefix("step-"))
        for place in out.glob("checkpoints/step-*")
        if not place.name.endswith(".part") and read_manifest(place) is not None
    ]
    return max(steps, default=0)


def result(out: Path) -> list[bytes | str]:
    """What two training runs must have in common."""
    files = [out / "model.safetensors", out / "samples.txt"]
    files += sorted(out.glob("checkpoints/*/*.safetensors"))
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    entries = [{key: value for key, value in line.items() if key != "seconds"} for line in log]
    return [json.dumps(entries), *(file.read_bytes() for file in files)]


def main() -> None:
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    source = folder / "names.txt"
    source.write_text("\n".join(catalog.load_dataset("names").split("\n")[:120]), encoding="utf-8")
    train(source, folder / "warm")  # torch imports much when it is first used
    began = time.perf_counter()
    train(source, folder / "whole")
    lasts = time.perf_counter() - began
    expected = result(folder / "whole")
    chance = random.Random(seed)
    out, before = folder / "run", 0
    done = {"kills": 0, "finished": 0, "lost": 0, "resumed_from": [0] * 13, "too_late": 0}
    while done["kills"] < kills:
        child = forked(lambda: train(source, out))
        time.sleep(chance.random() * lasts)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "a training run failed by itself"
            done["too_late"] += 1
        else:
            done["kills"] += 1
        if not out.exists():
            continue
        at = newest(out)
        done["lost"] += at < before
        assert at >= before, f"step {before} was saved, and now the newest is {at}"
        before = at
        done["resumed_from"][at] += 1
        run = Run.open(out)  # whatever is there is whole
        for name in run.split_names:
            run.split(name)
        if run.has_weights:
            run.load_weights(run.new_model())
        if run.record.status == "finished":
            assert result(out) == expected, "it does not end with the same bits"
            assert not list(out.rglob("*.part"))
            done["finished"] += 1
            shutil.rmtree(out)
            before = 0
    done["seconds_of_a_whole_training"] = round(lasts, 3)
    sys.stdout.write(json.dumps(done))


if __name__ == "__main__":
    main()
