"""Work that goes on when nobody looks any more."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def survive_hangup() -> Iterator[None]:
    """While open, a terminal that is closed (SIGHUP) takes only the output with it."""
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    main = threading.current_thread() is threading.main_thread()
    if hang_up is None or not main or signal.getsignal(hang_up) is not signal.SIG_DFL:
        yield
        return

    def fall_silent(number: int, frame: Any) -> None:
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        # What could not be written yet stays in the old streams, and would spoil the exit status.
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115

    signal.signal(hang_up, fall_silent)
    try:
        yield
    finally:
        signal.signal(hang_up, signal.SIG_DFL)
