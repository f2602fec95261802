"""Training with several processes: the main one creates or opens the run, and all fit it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moreish.distributed import ProcessGroup, join_process_group
from moreish.runs import Run
from moreish.training import Report, ignore, resolve_device
from moreish.workflows.fit import fit


class Coordinator:
    """The processes of one training, or the only one (see torch.distributed and torchrun)."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self._is_announced = False

    @classmethod
    @contextmanager
    def join(cls) -> Iterator["Coordinator"]:
        """Join the processes that the launcher started. When the main one fails before it has
        announced a run, the others exit as well."""
        with join_process_group() as group:
            coordinator = cls(group)
            try:
                yield coordinator
            except BaseException:
                if group.is_main and not coordinator._is_announced:
                    group.broadcast_text("null")
                raise

    @property
    def is_main(self) -> bool:
        """Whether this process reads, writes and reports for all."""
        return self.group.is_main

    @property
    def size(self) -> int:
        """The number of processes."""
        return self.group.size

    def fit(self, run: Run, report: Report, *, exact: bool | None = None) -> bool:
        """Train and score a run in all processes; for the main one.

        Args:
            run: the run, which all processes can open.
            report: a function that is called with every event.
            exact: of a resumed training, whether it must be exact; None for a new one.

        Returns:
            Whether the training finished.
        """
        self._is_announced = True
        self.group.broadcast_text(json.dumps([str(run.path.absolute()), exact]))
        device = resolve_device(run.config.train.device)
        return fit(run, device, report, exact=exact, group=self.group)

    def follow(self) -> tuple[Run, bool]:
        """Wait for the run of the main process and fit it together; for the other processes.

        Raises:
            SystemExit: the main process failed before there was a run, and reports why.
        """
        announced = json.loads(self.group.broadcast_text(""))
        if announced is None:
            raise SystemExit(0)
        path, exact = announced
        run = Run.open(Path(path))
        device = resolve_device(run.config.train.device)
        return run, fit(run, device, ignore, exact=exact, group=self.group)
