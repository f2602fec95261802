"""What differs between Linux, macOS and Windows: free memory, interrupting a child process, sharing
a port, and renaming a folder."""

import ctypes
import gc
import math
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moreish.errors import MoreishError

IS_WINDOWS = os.name == "nt"

RENAME_WAITS = (0.1, 0.3, 1.0)
"""Seconds between attempts to rename a folder on Windows."""

VM_STAT = "/usr/bin/vm_stat"
"""macOS's program that prints how memory is used, in pages."""


def available_memory() -> float:
    """Return the free memory of the machine in bytes; infinite where the system does not say."""
    return _first(_linux_memory, _macos_memory, _windows_memory, _free_pages)


def total_memory() -> float:
    """Return the memory of the machine in bytes; infinite where the system does not say."""
    return _first(lambda: _pages("SC_PHYS_PAGES"), lambda: float(_windows_status().total))


def _first(*measures: Callable[[], float]) -> float:
    """Return what the first measurement that works here says; infinity if none does."""
    for measure in measures:
        try:
            return measure()
        except (OSError, LookupError, ValueError, AttributeError, subprocess.SubprocessError):
            continue
    return math.inf


def _linux_memory() -> float:
    """Cached files count as free."""
    text = Path("/proc/meminfo").read_text("utf-8")
    return 1024.0 * int(text.split("MemAvailable:")[1].split()[0])


def _macos_memory() -> float:
    """Pages that are free, or that the system takes back when they are needed."""
    done = subprocess.run([VM_STAT], capture_output=True, check=True, timeout=5)  # noqa: S603
    text = done.stdout.decode("utf-8", "replace")
    page = int(text.split("page size of ")[1].split()[0])
    names = ("free", "inactive", "speculative")
    pages = [re.search(rf"^Pages {name}: +(\d+)\.", text, re.M) for name in names]
    return float(page * sum(int(found[1]) for found in pages if found))


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = [
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        ("available", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 5),
    ]


def _windows_memory() -> float:
    return float(_windows_status().available)


def _windows_status() -> _MemoryStatus:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    kernel: Any = vars(ctypes)["windll"].kernel32
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        raise OSError("GlobalMemoryStatusEx failed")
    return status


def _free_pages() -> float:
    return _pages("SC_AVPHYS_PAGES")


def _pages(name: str) -> float:
    return float(os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"))


def new_group_options() -> dict[str, Any]:
    """Return the options of `subprocess.Popen` for a child that Ctrl-C in this terminal does not
    reach, and `interrupt_process` does."""
    if IS_WINDOWS:
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200)}
    return {"start_new_session": True}


def interrupt_process(process: Any) -> None:
    """Send a child process what Ctrl-C sends: SIGINT, or Ctrl-Break on Windows, which has no signal
    that reaches one process; `stop_on_signals` handles both.

    Args:
        process: one of `subprocess` or `asyncio`, started with `new_group_options()`.
    """
    process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", 1) if IS_WINDOWS else signal.SIGINT)


def own_port(listener: socket.socket) -> None:
    """Let a listening socket have its port alone, and at once after an earlier one was closed.

    On Windows, SO_REUSEADDR would let a second server take over a port in use.
    """
    exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", -5)
    listener.setsockopt(socket.SOL_SOCKET, exclusive if IS_WINDOWS else socket.SO_REUSEADDR, 1)


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder. On Windows, which keeps folders with open or memory-mapped files in place,
    wait a moment until they are closed.

    Raises:
        MoreishError: they stay open.
        OSError: the folder cannot be renamed.
    """
    for wait in (*RENAME_WAITS, None):
        try:
            source.rename(target)
            return
        except PermissionError:
            if not IS_WINDOWS:
                raise
            if wait is None:
                raise MoreishError(
                    f"{source} is in use: close the programs and the Python objects that have it "
                    "open, or choose another --out"
                ) from None
            gc.collect()  # arrays that nothing refers to any more
            time.sleep(wait)
