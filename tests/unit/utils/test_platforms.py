"""Linux, macOS and Windows, with the calls of the other systems replaced."""

import ctypes
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moreish import api
from moreish.errors import MoreishError
from moreish.models import (
    REGISTRY,
    CountBasedModel,
    NetworkWithCounts,
    build_model,
    model_class,
    model_config,
)
from moreish.runs import paths
from moreish.runs.run import Run
from moreish.training.events import ignore
from moreish.training.setup import resolve_device
from moreish.utils import platforms
from moreish.utils.signals import stop_on_signals
from moreish.workflows import new_run

VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            200000.
Pages inactive:                           30000.
Pages speculative:                          500.
Pages throttled:                              0.
Pages wired down:                         90000.
"""


def without(*names: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Replace measurements of memory by ones that fail as on another system."""

    def missing(*_: str) -> float:
        raise OSError("no such file")

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for name in names:
            monkeypatch.setattr(platforms, name, missing)

    return patch


def test_free_memory_on_linux() -> None:
    assert 1e6 < platforms.available_memory() < platforms.total_memory() < math.inf


def test_free_memory_on_macos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without("_linux_memory")(monkeypatch)
    program = tmp_path / "vm_stat"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{VM_STAT}END\n")
    program.chmod(0o755)
    monkeypatch.setattr(platforms, "VM_STAT", str(program))
    assert platforms.available_memory() == 16384 * (10000 + 30000 + 500)
    program.write_text("#!/bin/sh\necho unknown\n")
    without("_free_pages")(monkeypatch)
    assert platforms.available_memory() == math.inf


def test_free_memory_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    without("_linux_memory", "_macos_memory", "_free_pages")(monkeypatch)

    def query(pointer: Any) -> int:
        status = pointer._obj
        assert status.length == ctypes.sizeof(status) == 64  # as the Windows API documents it
        status.available, status.total = 12_345_678, 99_000_000
        return 1

    kernel = SimpleNamespace(GlobalMemoryStatusEx=query)
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    assert platforms.available_memory() == 12_345_678
    without("_pages")(monkeypatch)
    assert platforms.total_memory() == 99_000_000
    kernel.GlobalMemoryStatusEx = lambda pointer: 0
    assert platforms.available_memory() == math.inf


CHILD = """
from moreish.utils.signals import stop_on_signals
import time
with stop_on_signals() as stopped:
    print("ready", flush=True)
    while not stopped():
        time.sleep(0.01)
print("saved", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_child_is_interrupted() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True,
        **platforms.new_group_options(),
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    assert os.getpgid(child.pid) != os.getpgid(0)  # Ctrl-C does not reach it
    platforms.interrupt_process(child)
    assert child.communicate()[0] == "saved\n" and child.returncode == 0


def test_a_child_is_interrupted_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "IS_WINDOWS", True)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    sent: list[int] = []
    platforms.interrupt_process(SimpleNamespace(send_signal=sent.append))
    assert sent == [1]
    # CTRL_BREAK_EVENT reaches only processes of a group of their own.
    assert platforms.new_group_options() == {"creationflags": 0x200}


def test_ctrl_break_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    with stop_on_signals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGUSR1)
        assert stopped()
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_port_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            platforms.own_port(listener)
        first.bind(("127.0.0.1", 0))
        first.listen()
        with pytest.raises(OSError, match="in use"):
            second.bind(first.getsockname())
    monkeypatch.setattr(platforms, "IS_WINDOWS", True)
    set_options: list[tuple[int, ...]] = []
    platforms.own_port(SimpleNamespace(setsockopt=lambda *o: set_options.append(o)))  # type: ignore[arg-type]
    assert set_options == [(socket.SOL_SOCKET, -5, 1)]  # SO_EXCLUSIVEADDRUSE is ~SO_REUSEADDR


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming and removing as on Windows: not while a lock file in the folder is open."""
    for module in (platforms, paths, new_run):
        monkeypatch.setattr(module, "IS_WINDOWS", True)
    monkeypatch.setattr(platforms, "RENAME_WAITS", (0.0, 0.0))
    rename, rmtree = Path.rename, shutil.rmtree

    def has_open_files(folder: Path) -> bool:
        inside = str(folder.absolute()) + os.sep
        opened = Path("/proc/self/fd").iterdir()
        files = [str(file.readlink()) for file in opened if file.is_symlink()]
        maps = Path("/proc/self/maps").read_text().splitlines()
        return any(name.startswith(inside) for name in [*files, *(m[73:] for m in maps)])

    def strict_rename(source: Path, target: Path) -> Path:
        if source.is_dir() and (has_open_files(source) or target.exists()):
            raise PermissionError(13, "Access is denied", str(source))
        return rename(source, target)

    def strict_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if has_open_files(Path(path)):
            if ignore_errors:
                return
            raise PermissionError(13, "Access is denied", str(path))
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(Path, "rename", strict_rename)
    monkeypatch.setattr(shutil, "rmtree", strict_rmtree)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(f"word{i}" for i in range(50)))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="simulates Windows on Linux")
@pytest.mark.usefixtures("windows")
def test_a_run_is_replaced_on_windows(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    api.train(source, model="ngram", out=out, report=ignore)
    again = api.train(
        source, model="ngram", out=out, overwrite=True, report=ignore,
        settings={"model": {"order": 3}},
    )  # fmt: skip
    assert again.config.model.order == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "run"]
    del again  # its arrays are mapped files
    trained = api.train(
        source, model="bow", steps=4, out=out, overwrite=True, report=ignore,
        settings={"train": {"eval_every": 2}},
    )  # fmt: skip
    assert trained.scores["val"].loss > 0


@pytest.mark.skipif(sys.platform != "linux", reason="simulates Windows on Linux")
@pytest.mark.usefixtures("windows")
def test_a_failed_replacement_keeps_the_run_on_windows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    api.train(source, model="ngram", out=out, report=ignore)
    monkeypatch.setattr(
        model_class("ngram"), "fit_counts", lambda *_: (_ for _ in ()).throw(MoreishError("broken"))
    )
    with pytest.raises(MoreishError, match=r"broken; the run that .* kept in .*\.run\.replaced$"):
        api.train(source, model="ngram", out=out, overwrite=True, report=ignore)
    assert Run.open(tmp_path / ".run.replaced").sample(1)


@pytest.mark.skipif(sys.platform != "linux", reason="simulates Windows on Linux")
@pytest.mark.usefixtures("windows")
def test_a_run_in_use_on_windows_is_one_clear_line(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    api.train(source, model="ngram", out=out, report=ignore)
    with (out / "run.json").open(), pytest.raises(MoreishError, match="run is in use: close the"):
        api.train(source, model="ngram", out=out, overwrite=True, report=ignore)
    assert Run.open(out).sample(1)


def test_other_systems_do_not_wait_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        platforms.rename_folder(tmp_path, tmp_path / "b")


def test_auto_takes_the_gpu_of_a_mac_for_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpt, hybrid = model_class("gpt"), model_class("hybrid")
    for is_mac, expected in ((False, "cpu"), (True, "mps")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda is_mac=is_mac: is_mac)
        assert resolve_device("auto", gpt).type == expected
        for model in (hybrid, model_class("ngram"), model_class("mixture"), None):
            assert resolve_device("auto", model).type == "cpu"
    assert resolve_device("cpu", gpt).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto", hybrid).type == "cuda"


class NoFloat64(TorchDispatchMode):
    """Fails where a calculation gives float64, which MPS does not have."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        if isinstance(result, torch.Tensor):
            assert result.dtype != torch.float64, function
        return result


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_networks_train_and_predict_without_float64(name: str) -> None:
    if issubclass(model_class(name), CountBasedModel | NetworkWithCounts):
        return  # these stay on the CPU
    model = build_model(model_config({"name": name}), 11)
    tokens_BT = torch.randint(11, (2, model.max_length or 8))
    with NoFloat64():
        logits_BTV, _ = model(tokens_BT)
        logits_BTV.float().logsumexp(-1).sum().backward()
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.inference_mode():
            _, state = model.eval()(tokens_BT[:, :4])
            model(tokens_BT[:, 4:5], state)
