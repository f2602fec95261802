"""A disk that fails at a chosen operation, and simulates power failures.

Durable writes use functions of `os`. Their replacements here count the operations, fail at the
chosen one, and track which content has certainly reached the disk.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


class Dead(BaseException):
    """The process died: every further operation raises this."""


@dataclass
class Node:
    """A file or a folder: its content, and the part that has certainly reached the disk."""

    folder: bool
    content: bytes = b""
    flushed: bytes = b""
    entries: dict[str, "Node"] = field(default_factory=dict)
    flushed_entries: dict[str, "Node"] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "Node":
        """Return the node of an existing file or folder, which is on the disk."""
        if path.is_dir():
            entries = {child.name: cls.of(child) for child in path.iterdir()}
            return cls(folder=True, entries=entries, flushed_entries=dict(entries))
        content = path.read_bytes()
        return cls(folder=False, content=content, flushed=content)

    def recreate(self, place: Path, *, names: bool) -> None:
        """Create at `place` what a power failure leaves: only what was flushed, or (`names`) also
        all names, as on file systems that write names first."""
        if not self.folder:
            place.write_bytes(self.flushed)
            return
        place.mkdir()
        for name, child in (self.entries if names else self.flushed_entries).items():
            child.recreate(place / name, names=names)


SOAK_KILLS = 1000
"""Number of kills in the soak test of training."""


def describe_kills(number: int) -> str:
    """Return the name of the test in docs/reliability.md."""
    return f"training killed with SIGKILL {number} times"


FAULTS = ("EIO", "ENOSPC", "short writes", "kills before", "kills after")


class Disk:
    """Tracks the operations below `root`; the one with number `at` fails with `fault`."""

    def __init__(self, root: Path, at: int | None = None, fault: str = "EIO") -> None:
        self.root, self.at, self.fault = root, at, fault
        self.node = Node.of(root)
        self.done = 0
        self.names: list[str] = []
        self.open: dict[int, Node] = {}
        self.dead = False

    def _at(self, path: Any, dir_fd: int | None) -> tuple[Node, str] | None:
        """Return the folder and the name of `path`, if it is below the root."""
        if dir_fd is not None:
            return (self.open[dir_fd], str(path)) if dir_fd in self.open else None
        try:
            parts = Path(path).absolute().relative_to(self.root).parts
        except (ValueError, TypeError):
            return None
        node = self.node
        for part in parts[:-1]:
            if part not in node.entries:  # the real function raises the error
                return None
            node = node.entries[part]
        return node, parts[-1] if parts else ""

    def operation(self, name: str, work: Callable[[], Any], partly: Callable[[], Any]) -> Any:
        """Count an operation, and do it or fail."""
        if self.dead:
            raise Dead
        self.done += 1
        self.names.append(name)
        if self.done != self.at:
            return work()
        if self.fault == "short writes":
            return partly()
        if self.fault == "kills after":
            work()
        if self.fault.startswith("kills"):
            self.dead = True
            raise Dead
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code))


@contextmanager
def replace_os_functions(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> Iterator[None]:
    """Replace the functions of `os` by those of the disk."""
    real = {
        name: getattr(os, name)
        for name in ("open", "close", "write", "fsync", "mkdir", "rmdir", "unlink", "rename")
    }

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        place = disk._at(path, dir_fd)
        if place is None:
            return real["open"](path, flags, mode, dir_fd=dir_fd)
        parent, name = place

        def work() -> int:
            descriptor = real["open"](path, flags, mode, dir_fd=dir_fd)
            node = parent.entries.get(name) if name else disk.node
            if node is None or flags & os.O_TRUNC:
                node = node or Node(folder=False)
                node.content = b""
                parent.entries[name] = node
            disk.open[descriptor] = node
            return descriptor

        return disk.operation("open", work, work)

    def close(descriptor: int) -> None:
        disk.open.pop(descriptor, None)
        real["close"](descriptor)

    def write(descriptor: int, content: Any) -> int:
        if descriptor not in disk.open:
            return real["write"](descriptor, content)

        def some(count: int) -> int:
            written = real["write"](descriptor, content[:count])
            disk.open[descriptor].content += bytes(content[:written])
            return written

        return disk.operation(
            "write", lambda: some(len(content)), lambda: some(max(1, len(content) // 3))
        )

    def fsync(descriptor: int) -> None:
        if descriptor not in disk.open:
            return real["fsync"](descriptor)

        def work() -> None:
            node = disk.open[descriptor]
            node.flushed, node.flushed_entries = node.content, dict(node.entries)

        return disk.operation("fsync", work, work)

    def changing(name: str, change: Callable[[Node, str], None]) -> Callable[..., Any]:
        def changed(path: Any, *rest: Any, dir_fd: int | None = None, **options: Any) -> Any:
            place = disk._at(path, dir_fd)
            if place is None:
                return real[name](path, *rest, dir_fd=dir_fd, **options)

            def work() -> None:
                real[name](path, *rest, dir_fd=dir_fd, **options)
                change(*place)

            return disk.operation(name, work, work)

        return changed

    def add(parent: Node, name: str) -> None:
        parent.entries[name] = Node(folder=True)

    def remove(parent: Node, name: str) -> None:
        del parent.entries[name]

    def rename(source: Any, target: Any, **options: Any) -> None:
        there, here = disk._at(source, None), disk._at(target, None)
        if there is None or here is None:
            return real["rename"](source, target, **options)

        def work() -> None:
            real["rename"](source, target, **options)
            here[0].entries[here[1]] = there[0].entries.pop(there[1])

        return disk.operation("rename", work, work)

    with monkeypatch.context() as patch:
        for name, function in {
            "open": open_, "close": close, "write": write, "fsync": fsync,
            "mkdir": changing("mkdir", add), "rmdir": changing("rmdir", remove),
            "unlink": changing("unlink", remove), "remove": changing("unlink", remove),
            "rename": rename, "replace": rename,
        }.items():  # fmt: skip
            patch.setattr(os, name, function)
        try:
            yield
        finally:
            disk.dead = False  # the test itself continues


def attempts(
    monkeypatch: pytest.MonkeyPatch,
    fresh: Callable[[], Path],
    action: Callable[[Path], None],
    check: Callable[[Path, bool], None],
    spare: Path,
) -> dict[str, int]:
    """Make each operation of an action fail in each way.

    Args:
        monkeypatch: replaces the functions of `os`.
        fresh: creates a new folder for each attempt.
        action: the action, which is given the folder.
        check: checks the folder, and what a power failure at that moment would leave; its second
            argument is whether the action was completed.
        spare: a folder for what power failures leave.

    Returns:
        The number of faults of each kind.
    """
    disk = Disk(fresh())
    with replace_os_functions(monkeypatch, disk):
        action(disk.root)
    check(disk.root, True)
    total, counts = disk.done, dict.fromkeys((*FAULTS, "power failures"), 0)
    for fault in FAULTS:
        for at in range(1, total + 1):
            if fault == "short writes" and disk.names[at - 1] != "write":
                continue
            failing = Disk(fresh(), at, fault)
            done = False
            with replace_os_functions(monkeypatch, failing):
                try:
                    action(failing.root)
                    done = True
                except (OSError, Dead):
                    pass
            check(failing.root, done)
            counts[fault] += 1
            if fault.startswith("kills"):
                for number, names in enumerate((False, True)):
                    place = spare / f"{fault}-{at}-{number}".replace(" ", "-")
                    failing.node.recreate(place, names=names)
                    check(place, False)
                    counts["power failures"] += 1
    return counts
