"""Signals during long work: a closed terminal does not end it, and Ctrl-C ends it cleanly."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
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


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM, or Ctrl-Break on Windows) into a flag; a second one raises
    KeyboardInterrupt.

    Yields:
        A function that returns whether the flag is set.
    """
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag.is_set  # signals belong to the main thread
        return

    def handle(number: int, frame: Any) -> None:
        if flag.is_set():
            raise KeyboardInterrupt
        flag.set()

    names = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last one is Windows', see `interrupt_process`
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield flag.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
