"""Long work that continues when its terminal is closed."""

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
    """Continue without output when the terminal is closed (SIGHUP), as `nohup` does."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    is_main = threading.current_thread() is threading.main_thread()
    if hangup is None or not is_main or signal.getsignal(hangup) is not signal.SIG_DFL:
        yield
        return

    def discard_output(number: int, frame: Any) -> None:
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        # The old streams keep text that could not be written, which would fail at exit.
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115

    signal.signal(hangup, discard_output)
    try:
        yield
    finally:
        signal.signal(hangup, signal.SIG_DFL)
