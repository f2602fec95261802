"""Reports that end a training run at a step, as Ctrl-C or `kill -9` would."""

import os
import signal
from collections.abc import Callable

from moreish.training.events import Event, Step


class Killed(BaseException):
    """Ends a training run without any cleanup, as `kill -9` does."""


def interrupt_at(step: int, *, times: int = 1) -> Callable[[Event], None]:
    """Press Ctrl-C so many times after a step."""

    def report(event: Event) -> None:
        if isinstance(event, Step) and event.step == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return report


def kill_at(step: int) -> Callable[[Event], None]:
    """Raise `Killed` after a step."""

    def report(event: Event) -> None:
        if isinstance(event, Step) and event.step == step:
            raise Killed

    return report
