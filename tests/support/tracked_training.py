"""A short training run with experiment trackers.

    python -m support.tracked_training FOLDER

Run as a script, it kills itself at step 15, after a checkpoint at step 12.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from conftest import STORY
from moreish import api
from moreish.runs.run import Run
from moreish.training.events import Event, Step, ignore

SETTINGS = {
    "model": {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 16},
    "train": {"steps": 16, "eval_every": 5, "checkpoint_every": 4, "batch_tokens": 64},
}


def train(folder: Path, name: str, track: str | None, report: Any = ignore) -> Run:
    source = folder / "story.txt"
    source.write_text(STORY * 4, encoding="utf-8")
    settings = {**SETTINGS, "train": {**SETTINGS["train"], "track": track}}
    return api.train(source, out=folder / name, settings=settings, report=report)


def kill_this_process(event: Event) -> None:
    if isinstance(event, Step) and event.step == 15:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    train(Path(sys.argv[1]), "run", "tensorboard", kill_this_process)
