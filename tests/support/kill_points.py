"""Kills training at every file operation: run by test_kill_points.py in a process of its own, where
forks are cheap.

    python tests/support/kill_points.py FOLDER < cases.json

A case has a name, settings, the options `overwrite`, `init_from` and `prepared`, and `every`: of
how many operations one is killed. Prints the number of kills of each phase as one JSON object. A
run that cannot be resumed, or ends otherwise than one that nothing interrupted, is an assertion.
"""

import itertools
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from crashes import forked

from moreish import api
from moreish.data import catalog
from moreish.training.events import ignore

KILLED = 137

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def die_at(number: int, folder: Path) -> None:
    """End this process at its file operation of this number below `folder`: Python announces each
    to an audit hook, except for flushing."""
    operations = itertools.count(1)

    def operation() -> None:
        if next(operations) == number:
            os._exit(KILLED)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING and is_below(path):
                operation()
        elif event in CHANGES and (is_below(arguments[0]) or arguments[-1] != -1):
            operation()  # in a folder that is given by its descriptor as well

    def is_below(path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(folder))

    sys.addaudithook(hook)
    os.fsync = lambda descriptor: operation()  # what is killed loses nothing that it has written


def is_finished(action: Callable[[], None], kill: int, folder: Path) -> bool:
    """Do `action` in a fork that is killed at an operation; return whether it had fewer."""

    def killed() -> None:
        die_at(kill, folder)
        action()

    _, status = os.waitpid(forked(killed), 0)
    assert os.WEXITSTATUS(status) in (0, KILLED), f"ended with {os.WEXITSTATUS(status)}"
    return os.WEXITSTATUS(status) == 0


def outcome(folder: Path) -> list[Any]:
    """Everything that a run leaves in `folder`, but for its times."""
    out = folder / "run"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    record = json.loads((out / "run.json").read_text())
    log = (out / "metrics.jsonl").read_text() if (out / "metrics.jsonl").exists() else ""
    entries = [json.loads(line) | {"seconds": 0} for line in log.splitlines()]
    files = [path for path in out.rglob("*") if path.suffix in (".safetensors", ".txt", ".npy")]
    contents = [path.read_bytes() for path in sorted(files)]
    return [names, record["status"], record["splits"], entries, contents]


class Case:
    """A training run that is killed and resumed."""

    def __init__(self, folder: Path, case: dict[str, Any]) -> None:
        self.folder, self.every = folder, case["every"]
        self.source = folder / "names.txt"
        names = catalog.load_dataset("names").split("\n")[: 5000 if case.get("prepared") else 60]
        self.source.write_text("\n".join(names), "utf-8")
        self.settings = case["settings"]
        self.before = folder / "before"
        self.before.mkdir()
        if case.get("prepared"):
            self.source = folder / "prepared"
            api.prepare(
                folder / "names.txt", out=self.source, tokenizer="byte", hold_out=0.2, report=ignore
            )
        if case.get("init_from"):
            run = api.train(
                self.source, out=folder / "first", settings=self.settings, report=ignore
            )
            self.settings = {"init_from": str(run.path), "train": self.settings["train"]}
        self.overwrite = case.get("overwrite", False)
        if self.overwrite:
            path = self.before / "run"
            api.train(self.source, out=path, model="ngram", report=ignore)
        self.work = folder / "work"
        self.kills: Counter[str] = Counter()

    def fresh(self, state: Path) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(state, self.work)

    @property
    def is_started(self) -> bool:
        """Whether the run folder is there: after that, the run can be resumed."""
        record = self.work / "run" / "run.json"
        if not record.exists():
            return False
        return (
            not self.overwrite
            or json.loads(record.read_text())["config"]["model"]["name"] != "ngram"
        )

    def train(self) -> None:
        out = self.work / "run"
        api.train(
            self.source, out=out, settings=self.settings, overwrite=self.overwrite, report=ignore
        )

    def resume(self) -> None:
        api.resume(self.work / "run", report=ignore)

    def go_on(self) -> None:
        """Do what a user would after a kill."""
        if not self.is_started:
            self.train()
        elif json.loads((self.work / "run" / "run.json").read_text())["status"] != "finished":
            self.resume()

    def run(self) -> dict[str, int]:
        """Kill everything at every operation, and compare."""
        self.fresh(self.before)
        assert is_finished(self.train, 0, self.folder)
        self.expected = outcome(self.work)
        states = self.folder / "states"
        saved: dict[str, Path] = {}
        for kill in itertools.count(1, self.every):
            self.fresh(self.before)
            if is_finished(self.train, kill, self.work):
                break
            state = self.state()
            if state is not None and state not in saved:
                saved[state] = Path(shutil.copytree(self.work, states / state))
            self.check("starting, training and scoring", kill)
        for state, place in saved.items():
            for kill in itertools.count(1, self.every):
                self.fresh(place)
                if is_finished(self.resume, kill, self.work):
                    break
                self.check(f"resuming {state}", kill)
        return self.kills

    def state(self) -> str | None:
        """The first of these states is resumed with kills."""
        if not self.is_started:
            return None
        if (self.work / "run" / "checkpoints" / "step-000002" / "manifest.json").exists():
            return "before the last scores"
        if any((self.work / "run").glob("checkpoints/step-??????")):
            return "after a checkpoint"
        return "before the first checkpoint"

    def check(self, phase: str, kill: int) -> None:
        self.kills[phase] += 1
        where = f"{phase}, killed at operation {kill}"
        assert is_finished(self.go_on, 0, self.folder), where
        found = outcome(self.work)
        assert found[0] == self.expected[0], (where, set(found[0]) ^ set(self.expected[0]))
        assert found == self.expected, where


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    api.train("names", model="bigram", steps=1, out=folder / "warm", report=ignore)  # imports
    kills: Counter[str] = Counter()
    for number, case in enumerate(json.load(sys.stdin)):
        place = folder / str(number)
        place.mkdir()
        try:
            kills.update(Case(place, case).run())
        except AssertionError as error:
            raise AssertionError(f"{case['name']}: {error}") from error
        shutil.rmtree(place)
    sys.stdout.write(json.dumps(kills))


if __name__ == "__main__":
    main()
