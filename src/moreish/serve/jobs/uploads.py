"""The folder of texts that were brought, and names that texts and runs may have."""

import re
import unicodedata
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from pydantic import AfterValidator, BaseModel, WithJsonSchema
from starlette.requests import Request

from moreish.data import NON_PRINTING
from moreish.serve.http import ApiError
from moreish.utils.files import PARTIAL_SUFFIX, check_disk_space, remove_partial_files

MAX_NAME_LENGTH = 60
"""Characters of a name: in UTF-8 240 bytes at the most; file systems have 255, and some names get
an ending."""

ASCII_PUNCTUATION = r"!-'*,/:-@\[-^`{-~"
"""Of ASCII, what is no letter, digit, or one of ` ._-()+`."""

BLANK = "\x00-\x1f\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SELECTORS = "\u034f\u17b4\u17b5\u180b-\u180d\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""Characters that no name shows, beside those that no text should have."""

FORBIDDEN = f"{ASCII_PUNCTUATION}{BLANK}{SELECTORS}{NON_PRINTING.pattern[1:-1]}"

NAME_PATTERN = (
    f"^[^{FORBIDDEN} ._()+\u0300-\u036f-][^{FORBIDDEN}]{{0,{MAX_NAME_LENGTH - 1}}}"
    rf"(?<![ .])(?<!\{PARTIAL_SUFFIX})$"
)
"""Of a text or a run: no separators, nothing hidden, nothing to run. Python and JSON Schema read it
alike, so that the document tells just what is taken: by ranges, not by classes of letters."""


def is_valid_name(name: str) -> bool:
    """Whether it may be that of a text or a run."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def validate_name(name: str) -> str:
    """The name, its letters and accents composed (NFC). Raises ValueError if it will not do."""
    composed = unicodedata.normalize("NFC", name)
    if is_valid_name(name) and is_valid_name(composed):
        return composed
    raise ValueError("give it a plain name: letters, digits, . _ - ( ) +")


ValidName = Annotated[
    str, AfterValidator(validate_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})
]
"""Of a text or a run that is to be."""


class UploadedText(BaseModel):
    """A text that was brought."""

    name: str
    bytes: int


class UploadFolder:
    """Texts by name: one from outside is looked up here and nowhere else."""

    def __init__(self, place: Path, most: int) -> None:
        """`most`: bytes of a text."""
        self.place, self.most = place, most
        remove_partial_files(place)

    def listed(self) -> list[UploadedText]:
        found = sorted(self.place.glob("*")) if self.place.is_dir() else []
        return [
            UploadedText(name=path.name, bytes=path.stat().st_size)
            for path in found
            if path.is_file() and is_valid_name(path.name)
        ]

    def path(self, name: str) -> Path:
        """Raises ApiError (404) when there is none of this name."""
        if name not in {text.name for text in self.listed()}:
            raise ApiError(404, f"there is no text {name[:100]!r}", param="text")
        return self.place / name

    async def bring(self, name: str, request: Request) -> UploadedText:
        """Take a text, piece by piece; one of the same name is replaced once the new one is whole.

        Raises:
            ApiError: it is empty or too large.
            ClientDisconnect: the client went before the end.
        """
        size = 0
        self.place.mkdir(parents=True, exist_ok=True)
        check_disk_space(self.place, int(request.headers.get("content-length", 0)), "the text")
        # Of its own: the same text may come twice at a time, and one of them not to its end.
        beside = self.place / f".{uuid4().hex}{PARTIAL_SUFFIX}"
        try:
            with beside.open("wb") as file:
                async for piece in request.stream():
                    size += len(piece)
                    if size > self.most:
                        raise ApiError(413, f"a text may have {self.most:,} bytes at the most")
                    file.write(piece)
            if size == 0:
                raise ApiError(400, "the text is empty")
            beside.replace(self.place / name)
        finally:
            beside.unlink(missing_ok=True)
        return UploadedText(name=name, bytes=size)
