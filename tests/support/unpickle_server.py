"""Runs `moreish/convert/_unpickle.py` in a fork for each request, so that
PyTorch, whose import takes a hundred times as long as a small file, is imported once.

    python -I unpickle_server.py UNPICKLER

A request is a line of JSON with the arguments, an answer one with exit status and output. This is
no fork of the tests, whose audit hook would stay with it.
"""

import json
import os
import runpy
import sys
import tempfile

import safetensors.torch  # noqa: F401
import torch  # noqa: F401


def run(script: str, arguments: list[str]) -> dict[str, object]:
    with tempfile.TemporaryFile() as out:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                sys.argv = [script, *arguments]
                runpy.run_path(script, run_name="__main__")
            except SystemExit as ended:
                status = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        out.seek(0)
        return {
            "returncode": os.waitstatus_to_exitcode(ended),
            "stdout": out.read().decode(errors="replace"),
        }


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(sys.argv[1], json.loads(line))), flush=True)  # noqa: T201
