"""The command line: one module per command, each a few lines over `moreish.api`.

PyTorch is imported only by the commands that need it, so that `moreish --help` answers at once.
"""

import atexit
import gc
import io
import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Option

from moreish.cli.base import Stopped, app, os_error_message
from moreish.errors import MoreishError, PeerLostError, visible
from moreish.python_errors import flags_in_errors
from moreish.utils.files import MEMORY_PREFIX

# In the order of the help.
for module in (
    "train",
    "plan",
    "prepare",
    "sample",
    "evaluate",
    "figures",
    "novelty",
    "predict",
    "compare",
    "runs",
    "ladder",
    "lr_range",
    "doctor",
    "tokenize",
    "data",
    "importing",
    "export",
    "serve",
):
    import_module(f"moreish.cli.{module}")

MAX_MESSAGE = 1500
"""Largest number of characters of an error; its middle is left out beyond that."""

STANDARD_INPUT = re.compile(
    rf"(moreish doctor )?{re.escape(tempfile.gettempdir())}[\\/]{MEMORY_PREFIX}\w+[\\/]text\.\w+"
)
"""Matches the temporary file of standard input in messages."""

SAMPLING_SETTING = re.compile(r"^setting sample\.([a-z_]+)=(\S+):")
"""Matches the beginning of an error about an option of `sample`."""

OUT_OF_MEMORY = re.compile("allocate memory|out of memory", re.IGNORECASE)
"""Matches PyTorch's messages, which are plain RuntimeErrors on a CPU."""


def _print_version(is_given: bool) -> None:
    if is_given:
        typer.echo(f"moreish {version('moreish')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run a command; a user error is one line on standard error and exit status 2."""
    # PyTorch creates a million objects; collecting garbage among them, and again at exit, takes a
    # third of the time of a short command.
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `moreish … >&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot encode becomes a ?
            stream.reconfigure(errors="replace")
    warnings.formatwarning = format_warning
    try:
        with flags_in_errors():
            status = app(standalone_mode=False)
        sys.stdout.flush()
    except MoreishError as error:
        wait_for_other_processes(error)
        fail(str(error))
    except typer.TyperException as error:
        fail(error.format_message())
    except (Stopped, BrokenPipeError, KeyboardInterrupt, typer.Abort) as error:
        cause = error.__cause__ if isinstance(error, Stopped) else error
        if isinstance(cause, BrokenPipeError):  # as in `moreish sample RUN | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        sys.stderr.write("moreish: interrupted\n")
        sys.exit(130)
    except OSError as error:
        fail(os_error_message(error))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            fail(
                "out of memory: try a smaller batch (--set train.batch_tokens=N), a smaller model, "
                "or a lower n-gram order (--set model.order=N)"
            )
        raise
    sys.exit(status if isinstance(status, int) else 0)


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None
) -> str:
    """Format a warning that is meant for users as one line, without its place in the source."""
    if issubclass(category, FutureWarning):
        return f"moreish: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def wait_for_other_processes(error: MoreishError) -> None:
    """Let the process in which an error occurred report it first; the launcher of a training run
    then ends the others before they repeat it."""
    if isinstance(error, PeerLostError):
        time.sleep(10)
    elif os.environ.get("RANK", "0") != "0":
        time.sleep(5)


def _wrap(line: str) -> str:
    """Break a line between words where a terminal would break it inside one."""
    if not sys.stderr.isatty():
        return line
    width = max(20, shutil.get_terminal_size().columns)
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with status 2; an empty message prints nothing."""
    if message:
        line = visible(" ".join(message.split()))
        line = SAMPLING_SETTING.sub(lambda m: f"--{m[1].replace('_', '-')} {m[2]}:", line)
        line = STANDARD_INPUT.sub(lambda m: f"{m[1]}-" if m[1] else "standard input", line)
        if len(line) > MAX_MESSAGE:  # it repeats a long value
            line = f"{line[: MAX_MESSAGE // 2]} … {line[-MAX_MESSAGE // 2 :]}"
        sys.stderr.write(_wrap(f"moreish: {line}") + "\n")
        if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # for torchrun's report
            reason = {"message": line, "extraInfo": {"timestamp": str(int(time.time()))}}
            Path(report).write_text(json.dumps({"message": reason}))
    sys.exit(2)
