"""A process that has imported PyTorch and the package, and forks to run programs.

Importing them takes seconds in every new process. While `quick_processes` is active,
`sys.executable` is a small program that sends its arguments, folder, environment and streams to
the zygote, forwards signals to the fork that it gets, and ends as the fork ends:

    [sys.executable, "-m", "moreish", "train", ...]

Each program still runs in a process of its own, which signals reach and can kill.
"""

import atexit
import io
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

STREAMS = (0, 1, 2)
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLIENT = """#!{python} -IS
import sys
sys.path.insert(0, {folder!r})
import zygote
zygote.run_client({address!r})
"""


@contextmanager
def running_zygote(folder: Path) -> Iterator[Path]:
    """Start a zygote; yield the path of the program that takes the place of Python."""
    address, client = folder / "zygote", folder / "python"
    here = Path(__file__)
    client.write_text(
        CLIENT.format(python=sys.executable, folder=str(here.parent), address=str(address))
    )
    client.chmod(0o755)
    command = [sys.executable, str(here), str(address)]
    # It ends when this process closes its standard input, however that happens.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield client
        process.stdin.close()


# --- the client, which imports nothing but the standard library ---


def run_client(address: str) -> NoReturn:
    """Have this process's program run by the zygote, and end as it ends."""
    files = (sys.stdin, sys.stdout, sys.stderr)  # None if closed, as by `moreish >&-`
    streams = [stream for stream in STREAMS if files[stream] is not None]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    request = {
        "arguments": sys.argv[1:],
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "streams": streams,
    }
    message = json.dumps(request).encode()
    socket.send_fds(connection, [struct.pack("I", len(message))], streams)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    connection.sendall(message)
    answers = connection.makefile("rb")
    child = int(answers.readline())

    def forward(number: int, frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = int(answers.readline())
    if status < 0:
        if -status in FORWARDED:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


# --- the zygote ---


def receive_request(connection: socket.socket) -> dict[str, Any]:
    """Read a request; its streams are this process's descriptors by the client's."""
    size = struct.calcsize("I")
    header, received, _, _ = socket.recv_fds(connection, size, len(STREAMS))
    (length,) = struct.unpack("I", header)
    with connection.makefile("rb") as file:
        request = json.loads(file.read(length))
    return {**request, "streams": dict(zip(request["streams"], received, strict=True))}


def serve(address: str) -> dict[str, Any]:
    """Fork for each request; return the request in the fork."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    ended, mark = os.pipe()
    os.set_blocking(mark, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(mark)
    clients: dict[socket.socket, int] = {}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([0, listener, ended, *clients], [], [])
        if 0 in ready:  # the tests have ended
            for child in clients.values():
                os.kill(child, signal.SIGKILL)
            os._exit(0)
        if ended in ready:
            os.read(ended, 1000)
            for client, child in list(clients.items()):
                found, status = os.waitpid(child, os.WNOHANG)
                if found:
                    answer(client, os.waitstatus_to_exitcode(status))
                    client.close()
                    del clients[client]
        for client in set(ready) & clients.keys():  # it was killed, and so is its program
            os.kill(clients[client], signal.SIGKILL)
            os.waitpid(clients.pop(client), 0)
            client.close()
        if listener in ready:
            client, _ = listener.accept()
            request = receive_request(client)
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (listener, client, *clients):
                    one.close()
                os.close(ended)
                os.close(mark)
                return request
            for stream in request["streams"].values():
                os.close(stream)
            clients[client] = child
            answer(client, child)


def answer(client: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # the client was killed
        client.sendall(b"%d\n" % number)


def open_streams(received: dict[int, int]) -> None:
    """Make the client's streams the standard streams, as at Python's start."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    unbuffered = "PYTHONUNBUFFERED" in os.environ
    for number, name in zip(STREAMS, ("stdin", "stdout", "stderr"), strict=True):
        if number not in received:
            os.close(number)
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
            continue
        os.dup2(received[number], number)
        raw = open(number, "rb" if number == 0 else "wb", closefd=False)  # noqa: SIM115
        stream = io.TextIOWrapper(
            raw,
            encoding or None,
            "backslashreplace" if number == 2 else errors or None,
            line_buffering=number == 2 or raw.isatty(),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    for descriptor in received.values():
        os.close(descriptor)


def run_program(arguments: list[str]) -> None:
    """Run what `python ARGUMENTS` would run."""
    while arguments[0] in ("-I", "-u"):
        arguments = arguments[1:]
    if arguments[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    elif arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], str(Path.cwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).absolute().parent)
        runpy.run_path(arguments[0], run_name="__main__")


def end(status: int) -> NoReturn:
    """End the process as Python does, except that it does not tear down the modules, which would
    copy much of the zygote's memory."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            traceback.print_exc()
            status = 120
    os._exit(status)


def main() -> None:
    """Import what most programs need, then run one in each fork."""
    import gc

    import numpy as np
    import torch._dynamo  # noqa: F401 (PyTorch imports it with the first optimizer)

    import moreish.api
    import moreish.cli
    import moreish.training
    import moreish.ui
    import moreish.workflows  # noqa: F401

    gc.freeze()
    request = serve(sys.argv[1])
    os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    open_streams(request["streams"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # noqa: NPY002
    status = 0
    try:
        run_program(request["arguments"])
    except SystemExit as ended:
        if ended.code is not None:
            status = ended.code if isinstance(ended.code, int) else 1
        if isinstance(ended.code, str):
            sys.stderr.write(f"{ended.code}\n")
    except BaseException:
        traceback.print_exc()
        status = 1
    end(status)


if __name__ == "__main__":
    main()
