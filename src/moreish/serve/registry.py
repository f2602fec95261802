"""The models that are served, by name: a name from outside is looked up here and nowhere else."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from moreish.errors import MoreishError, nearest
from moreish.runs import Run
from moreish.serve.batching import Engine
from moreish.serve.http import ApiError, Limits, Metrics


@dataclass(frozen=True, eq=False, kw_only=True)
class ServedModel:
    """A run, and what writes with it."""

    name: str
    run: Run
    engine: Engine
    since: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""


class Registry:
    """What is served. Runs are added while the server runs, when a training has ended."""

    def __init__(self, limits: Limits, slots: int, measured: Metrics) -> None:
        self.limits, self.slots, self.measured = limits, slots, measured
        self._served: dict[str, ServedModel] = {}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._served.values()))

    def load(self, path: Path, *, again: bool = False) -> ServedModel:
        """Read a run and make it ready, without serving it yet: this takes a while.

        Args:
            again: it may be one that is served, and has changed.

        Raises:
            MoreishError: it is no run, or has no weights.
        """
        run = Run.open(path)
        name = path.resolve().name
        other = self._served.get(name)
        same = other is not None and other.run.path.resolve() == path.resolve()
        if other is not None and not (again and same):
            raise MoreishError(
                f"{path} and {other.run.path} would both be served as {name!r}: rename one folder"
            )
        engine = Engine(
            run.model,
            run.tokenizer,
            slots=self.slots,
            queue=self.limits.queue,
            ended=lambda answer: self.measured.completion(name, answer),
        )
        return ServedModel(name=name, run=run, engine=engine)

    def add(self, served: ServedModel) -> None:
        """Serve it, in the place of one of its name."""
        if old := self._served.get(served.name):
            old.engine.stop(0)
        self._served[served.name] = served

    def find(self, name: str) -> ServedModel:
        """Raises ApiError (404) when there is none of this name."""
        if found := self._served.get(name):
            return found
        raise ApiError(
            404,
            f"no model {name[:100]!r} is served here; {nearest(name, self._served)}",
            param="model",
            code="model_not_found",
        )

    def without_paths(self, message: str) -> str:
        """An error message in which runs, and the files in them, have the names of the runs: nobody
        learns where they lie."""
        for served in self:
            for path in (served.run.path.resolve(), served.run.path):
                message = re.sub(re.escape(str(path)) + r"(/[\w.]+)*", served.name, message)
        return message

    def stop(self, seconds: float) -> None:
        """Stop all engines at once; see `Engine.stop`."""
        stopping = [Thread(target=served.engine.stop, args=[seconds]) for served in self]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
