"""The folder of uploaded texts, and the names that texts and runs may have."""

import asyncio
import errno
import re
import time
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, WithJsonSchema
from starlette.requests import Request

from moreish.data import NON_PRINTING, table_columns
from moreish.serve.http import ApiError
from moreish.utils.files import PARTIAL_SUFFIX, check_disk_space, write_all

PARTIAL_UPLOAD = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(PARTIAL_SUFFIX)}")

ABANDONED_SECONDS = 3600
"""Time without a change after which an upload belongs to a server that was killed: another server
may have the same folder, and a client that sends nothing is disconnected far sooner."""

MAX_NAME_LENGTH = 60
"""In characters: at most 240 bytes of UTF-8; file systems allow 255, and a suffix may follow."""

ASCII_PUNCTUATION = r"!-'*,/:-@\[-^`{-~"
"""All of it except ` ._-()+`."""

WHITESPACE = "\x00-\x1f\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\u034f\u17b4\u17b5\u180b-\u180d\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Characters without a shape of their own that `NON_PRINTING` does not have."""

FORBIDDEN = f"{ASCII_PUNCTUATION}{WHITESPACE}{INVISIBLE}{NON_PRINTING.pattern[1:-1]}"

NAME_PATTERN = (
    f"^[^{FORBIDDEN} ._()+\u0300-\u036f-][^{FORBIDDEN}]{{0,{MAX_NAME_LENGTH - 1}}}"
    rf"(?<![ .])(?<!\{PARTIAL_SUFFIX})$"
)
"""A name has no path separators, invisible characters or shell syntax. The pattern uses ranges and
no character classes, so that Python and JSON Schema (ECMA-262) match the same names."""


def is_valid_name(name: str) -> bool:
    """Whether a text or a run may have this name."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def validate_name(name: str) -> str:
    """Return the name in Unicode NFC.

    Raises:
        ValueError: it is not a valid name.
    """
    composed = unicodedata.normalize("NFC", name)
    if is_valid_name(name) and is_valid_name(composed):
        return composed
    raise ValueError("a name may have letters, digits, spaces and . _ - ( ) +")


ValidName = Annotated[
    str, AfterValidator(validate_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
]


class UploadedText(BaseModel):
    name: str
    bytes: int
    columns: list[str] = []
    """The columns of a table."""

    @classmethod
    def of(cls, path: Path) -> "UploadedText":
        return cls(name=path.name, bytes=path.stat().st_size, columns=table_columns(path))


class UploadFolder:
    """Uploaded texts by name; a name from a request is looked up here and nowhere else."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """
        Args:
            path: the folder.
            max_bytes: maximum size of a text.
        """
        self.path, self.max_bytes = path, max_bytes
        self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        for partial in list(self.path.iterdir()) if self.path.is_dir() else ():
            if PARTIAL_UPLOAD.fullmatch(partial.name):
                with suppress(FileNotFoundError):  # another server has finished it
                    if partial.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                        partial.unlink()

    def contents(self) -> list[UploadedText]:
        """Return all texts in alphabetical order."""
        return [UploadedText.of(path) for path in self._paths()]

    def _paths(self) -> list[Path]:
        found = sorted(self.path.glob("*")) if self.path.is_dir() else []
        return [path for path in found if path.is_file() and is_valid_name(path.name)]

    def find(self, name: str) -> Path:
        """Return the path of a text.

        Raises:
            ApiError: there is none of this name (404).
        """
        if name not in {path.name for path in self._paths()}:
            raise ApiError(404, f"there is no text {name[:100]!r}", param="text")
        return self.path / name

    async def save(self, name: str, request: Request) -> UploadedText:
        """Save the body of a request; it replaces a text of the same name once it is complete.

        Raises:
            ApiError: it is empty (400), too large (413), or the disk is full (507).
            ClientDisconnect: the client disconnected before the end.
        """
        # A random name, since the same text may be uploaded twice at a time.
        partial = self.path / f".{uuid4().hex}{PARTIAL_SUFFIX}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            check_disk_space(self.path, int(request.headers.get("content-length", 0)), "the text")
            await self._write(partial, request)
            partial.replace(self.path / name)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            message = f"the text was not saved ({error.strerror}): free some space on the server"
            raise ApiError(507, message) from None
        finally:
            partial.unlink(missing_ok=True)
        return await asyncio.to_thread(UploadedText.of, self.path / name)

    async def _write(self, path: Path, request: Request) -> None:
        """Write the body of a request to a file."""
        size = 0
        with path.open("wb", buffering=0) as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > self.max_bytes:
                    raise ApiError(413, f"a text may have at most {self.max_bytes:,} bytes")
                write_all(file.fileno(), chunk)
        if size == 0:
            raise ApiError(400, "the text is empty")
