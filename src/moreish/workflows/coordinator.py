"""Training with several processes: the main one creates or opens the run, and all fit it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moreish.distributed import ProcessGroup, join_process_group
from moreish.runs import Run
from moreish.training import Report, ignore
from moreish.workflows.fit import fit


class Coordinator:
    """The processes of one training (see torch.distributed and torchrun), or the only one."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self._is_announced = False

    @classmethod
    @contextmanager
    def join(cls) -> Iterator["Coordinator"]:
        """Join the processes that the launcher started. If the main one fails before it has
        announced a run, the others exit as well."""
        with join_process_group() as group:
            coordinator = cls(group)
            try:
                yield coordinator
            except BaseException:
                if group.is_main and not coordinator._is_announced:
                    group.broadcast_text("null")
                raise

    def fit(self, run: Run, report: Report, *, exact: bool | None = None) -> None:
        """Announce a run to the other processes and fit it; for the main process.

        Args:
            run: the run, which all processes can open.
            report: receives every event.
            exact: as in `moreish.workflows.fit.fit`.
        """
        self._is_announced = True
        self.group.broadcast_text(json.dumps([str(run.path.absolute()), exact]))
        fit(run, report, exact=exact, group=self.group)

    def follow(self) -> Run:
        """Wait for the run of the main process and fit it too; for the other processes.

        Raises:
            SystemExit: the main process failed before it had a run, and reports why.
        """
        announced = json.loads(self.group.broadcast_text(""))
        if announced is None:
            raise SystemExit(0)
        path, exact = announced
        run = Run.open(Path(path))
        fit(run, ignore, exact=exact, group=self.group)
        return run
