"""The served models by name; a name from a request is looked up here and nowhere else."""

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
    """A run and the engine that generates with its model."""

    name: str
    run: Run
    engine: Engine
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""


class Registry:
    """The served models; trained ones are added while the server runs."""

    def __init__(self, limits: Limits, slots: int, metrics: Metrics) -> None:
        """
        Args:
            limits: limits of the server.
            slots: maximum number of sequences that each model generates at a time.
            metrics: records the generation requests of all models.
        """
        self.limits, self.slots, self.metrics = limits, slots, metrics
        self._served: dict[str, ServedModel] = {}
        self.num_loading = 0
        """Runs that will be served as soon as they are loaded."""

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._served.values()))

    def load(self, path: Path, *, replace: bool = False) -> ServedModel:
        """Load a run and start its engine, without serving it yet; this takes a while.

        Args:
            path: the run folder.
            replace: allow a run that is served already and has changed.

        Raises:
            MoreishError: there is no run, it has no weights, or another run has its name.
        """
        run = Run.open(path)
        name = path.resolve().name
        other = self._served.get(name)
        same = other is not None and other.run.path.resolve() == path.resolve()
        if other is not None and not (replace and same):
            raise MoreishError(
                f"{path} and {other.run.path} would both be served as {name!r}: rename one folder"
            )
        engine = Engine(
            run.model,
            run.tokenizer,
            slots=self.slots,
            queue=self.limits.queue,
            on_finished=lambda stream: self.metrics.observe_generation(name, stream),
        )
        return ServedModel(name=name, run=run, engine=engine)

    def add(self, served: ServedModel) -> None:
        """Serve a loaded run; it replaces one of the same name."""
        if old := self._served.get(served.name):
            old.engine.stop(0)
        self._served[served.name] = served

    def remove(self, path: Path) -> bool:
        """Stop serving the run of a folder; return whether it was served."""
        found = [one for one in self if one.run.path.resolve() == path.resolve()]
        for served in found:
            del self._served[served.name]
            served.engine.stop(0)
        return bool(found)

    def __contains__(self, name: object) -> bool:
        return name in self._served

    def find(self, name: str) -> ServedModel:
        """Return the model of a name.

        Raises:
            ApiError: there is none (404).
        """
        if found := self._served.get(name):
            return found
        raise ApiError(
            404,
            f"no model {name[:100]!r} is served here; {nearest(name, self._served)}",
            param="model",
            code="model_not_found",
        )

    def find_writer(self, name: str) -> ServedModel:
        """Return the model of a name, which continues text.

        Raises:
            ApiError: there is none (404), or it predicts the targets of examples (400).
        """
        found = self.find(name)
        if found.run.kind == "examples":
            raise ApiError(
                400, f"{name} predicts the targets of inputs: use /api/predict", param="model"
            )
        return found

    def without_paths(self, message: str) -> str:
        """Replace the paths of runs and their files by the names of the runs, since clients must
        not learn where they are stored."""
        for served in self:
            for path in (served.run.path.resolve(), served.run.path):
                files = re.escape(str(path)) + r"(/[\w.]+)*"
                message = re.sub(files, served.name.replace("\\", r"\\"), message)
        return message

    def stop(self, timeout: float) -> None:
        """Stop all engines in parallel; see `Engine.stop`."""
        threads = [Thread(target=served.engine.stop, args=[timeout]) for served in self]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
