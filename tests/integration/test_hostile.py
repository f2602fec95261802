"""Hostile texts and settings through every verb: no traceback, one line that says what is wrong."""

import errno
import gzip
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import STORY, Moreish, Proved, Result, repetitions
from moreish.config import DataConfig, TrainConfig
from moreish.models import REGISTRY, model_class
from moreish.runs.run import Run

pytestmark = pytest.mark.soak  # longer than `make test` can wait; CI runs it too

TINY = [
    *("--model", "gpt", "--steps", "2", "--context", "8", "--set", "model.layers=1"),
    *("--set", "model.heads=1", "--set", "model.width=8", "--set", "train.batch_size=4"),
]

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"


def random_content(kind: str, count: int) -> bytes:
    """Return random content of one kind."""
    random = np.random.default_rng(len(kind))
    match kind:
        case "bytes":
            return random.bytes(count)
        case "ascii":
            return bytes(random.integers(32, 127, count, np.uint8))
        case _:
            points = random.integers(1, 0x2FFFF, count)
            legal = [chr(p) for p in points if not 0xD800 <= p < 0xE000]
            return "".join(legal).encode()


TEXTS: dict[str, bytes] = {
    "empty": b"",
    "one character": b"a",
    "one line end": b"\n",
    "line ends": b"\n" * 5000,
    "spaces": b" " * 5000,
    "tabs and spaces": b" \t \n" * 2000,
    "one letter": b"a" * 5000,
    "one letter a line": b"a\n" * 5000,
    "two letters": b"ab" * 3000,
    "one line": STORY.replace("\n", " ").encode() * 30,
    "a long line": b"word " * 100_000,
    "a line without spaces": b"x" * 500_000,
    "short and long lines": b"a\n" + b"b" * 200_000 + b"\nc\n" * 30,
    "every line different": "\n".join(f"{n:x}" for n in range(3000)).encode(),
    "every line the same": b"emma\n" * 3000,
    "utf-8 with a mark": b"\xef\xbb\xbf" + STORY.encode() * 9,
    "only a mark": b"\xef\xbb\xbf",
    "marks inside": STORY.encode() + b"\xef\xbb\xbf" + STORY.encode() * 5,
    "utf-16": (STORY * 9).encode("utf-16"),
    "utf-16 without a mark": (STORY * 9).encode("utf-16-le"),
    "utf-16, half a character": (STORY * 9).encode("utf-16")[:-1],
    "utf-32": (STORY * 9).encode("utf-32"),
    "latin-1": "déjà vu, garçon\n".encode("latin-1") * 200,
    "windows-1252": "“quoted” – and so on…\n".encode("cp1252") * 200,
    "shift-jis": "これは文章です。\n".encode("shift-jis") * 200,
    "big5": "這是一個句子。\n".encode("big5") * 200,
    "koi8-r": "Это предложение.\n".encode("koi8-r") * 200,
    "ebcdic": (STORY * 9).encode("cp500"),
    "invalid at the end": STORY.encode() * 9 + b"\xc3",
    "invalid at the end of a buffer": b"a" * 65_535 + b"\xc3" + b"a" * 65_536,
    "split at the end of a buffer": b"a" * 65_535 + "é".encode() + b"a" * 65_536,
    "a lone continuation": STORY.encode() * 9 + b"\x80" + STORY.encode(),
    "overlong": STORY.encode() * 9 + b"\xc0\xaf" + STORY.encode(),
    "surrogates as bytes": STORY.encode() * 9 + b"\xed\xa0\x80" + STORY.encode(),
    "beyond unicode": STORY.encode() * 9 + b"\xf5\x80\x80\x80" + STORY.encode(),
    "nul": b"emma\0olivia\n" * 300,
    "nul at the end": STORY.encode() * 9 + b"\0",
    "control characters": bytes(range(1, 32)) * 200,
    "escape codes": b"\x1b[31mred\x1b[0m \x1b]0;title\x07\n" * 200,
    "backspaces": b"a\x08b\x08\n" * 500,
    "form feeds": b"page\x0c" * 900,
    "vertical tabs and separators": "a\u2028b\u2029c\x0bd\x85e\n".encode() * 300,
    "cr only": STORY.replace("\n", "\r").encode() * 9,
    "crlf": STORY.replace("\n", "\r\n").encode() * 9,
    "mixed line ends": b"a\nbb\r\nccc\rdddd\n\r" * 300,
    "combining marks": ("e" + "\u0301" * 500 + "\n").encode() * 20,
    "a mark first": "\u0301start of it\n".encode() * 100,
    "not normalized": "Zoe\u0308 and Zoë\n".encode() * 200,
    "right to left": "שלום עולם\n".encode() * 200,
    "arabic": "مرحبا بالعالم\n".encode() * 200,
    "direction overrides": "abc\u202edef\u202c\n".encode() * 200,
    "emoji families": f"{FAMILY} at home\n".encode() * 200,
    "flags": "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7\n".encode() * 200,
    "zero width": "zero\u200bwidth\u200djoined\ufeff\n".encode() * 200,
    "private use": "\ue000\uf8ff\U0010fffd\n".encode() * 200,
    "not characters": "\ufffe\uffff\U0001ffff\n".encode() * 200,
    "replaced characters": "caf\ufffd\n".encode() * 200,
    "all kinds of spaces": "a\u00a0b\u2003c\u3000d\u202fe\n".encode() * 200,
    "chinese": "我能吞下玻璃而不伤身体。\n".encode() * 200,
    "thai": "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ\n".encode() * 100,
    "mojibake": "cafÃ© â€œquotedâ€\u009d\n".encode() * 200,
    "many characters": "".join(map(chr, range(0x4E00, 0x5800))).encode(),
    "random bytes": random_content("bytes", 2000),
    "random ascii": random_content("ascii", 2000),
    "random characters": random_content("unicode", 2000),
    "gzip named .txt": gzip.compress(STORY.encode() * 9),
    "zip": b"PK\x03\x04" + random_content("bytes", 3000),
    "png": b"\x89PNG\r\n\x1a\n" + random_content("bytes", 3000),
    "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + random_content("bytes", 3000),
    "elf": b"\x7fELF\x02\x01\x01" + bytes(9) + random_content("bytes", 3000),
    "json lines": b'{"text": "a \\ud800 b"}\n' * 300,
    "toml": b'[data]\nsource = "names"\n' * 100,
    "percent signs": b"%s %d {0} {name} [red]\n" * 300,
    "paths": b"../../etc/passwd\n/dev/zero\n" * 300,
    "what a shell would run": b"$(reboot) `reboot` ; reboot\n" * 300,
}

assert len(TEXTS) >= 60


def huge_sparse(path: Path) -> None:
    """Write a line of a gigabyte as a sparse file."""
    with path.open("wb") as file:
        file.truncate(1 << 30)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.close()


def unreadable(path: Path) -> None:
    path.write_bytes(STORY.encode() * 9)
    path.chmod(0)


def symlink_loop(path: Path) -> None:
    path.symlink_to(path)


def dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def device_symlink(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder_loop(path: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to(path)
    (path / "text.txt").write_text(STORY * 9)


def empty_folder(path: Path) -> None:
    path.mkdir()


def deep_folder(path: Path) -> None:
    place = path
    for _ in range(100):
        place = place / "d"
    place.mkdir(parents=True)
    (place / "text.txt").write_text(STORY * 9)


def awkward_names(path: Path) -> None:
    path.mkdir()
    for name in ("a b.txt", "-rf", "$HOME", "ü\n.txt", "%s", "[red]"):
        (path / name).write_text(STORY)


def mixed_folder(path: Path) -> None:
    path.mkdir()
    (path / "text.txt").write_text(STORY * 9)
    (path / "image.png").write_bytes(TEXTS["png"])
    fifo(path / "pipe")
    dangling_symlink(path / "dangling")


SPECIAL_PATHS: dict[str, Callable[[Path], None]] = {
    "a gigabyte of nothing": huge_sparse,
    "a fifo": fifo,
    "a socket": unix_socket,
    "without permission": unreadable,
    "a symlink loop": symlink_loop,
    "a dangling symlink": dangling_symlink,
    "a device": device_symlink,
    "a folder in itself": folder_loop,
    "an empty folder": empty_folder,
    "a deep folder": deep_folder,
    "awkward names": awkward_names,
    "a mixed folder": mixed_folder,
}


def write_source(name: str, folder: Path) -> Path:
    path = folder / "source.txt"
    if name in TEXTS:
        path.write_bytes(TEXTS[name])
    else:
        SPECIAL_PATHS[name](path)
    return path


def succeeds_or_explains(result: Result) -> bool:
    """Check that a command succeeded or printed a one-line error; return whether it succeeded."""
    assert result.status in (0, 2), result.err
    assert "Traceback" not in result.out + result.err
    if result.status == 0:
        return True
    assert result.err.startswith("moreish: ")
    assert result.err.count("\n") == 1
    assert len(result.err) < 2000
    return False


GENEROUS_DEADLINE_S = 60

CLEANING_FLAGS = ("--dedup", "--nfc", "--clean", "--min-count", "3")


def bounded() -> Iterator[None]:
    """Limit the processor time and the memory of each test."""
    start = time.process_time()
    memory_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < GENEROUS_DEADLINE_S
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_before < 1_000_000
    )  # kilobytes


_bounded = pytest.fixture(autouse=True)(bounded)


@pytest.mark.repeated
@pytest.mark.parametrize("name", [*TEXTS, *SPECIAL_PATHS])
def test_hostile_files(name: str, moreish: Moreish, tmp_path: Path, proved: Proved) -> None:
    source = write_source(name, tmp_path)
    train = ["train", source, "--overwrite"]
    verbs = [
        [*train, *TINY, "--out", "r"],
        [*train, *TINY, "--as", "lines", "--tokenizer", "word", "--out", "o"],
        [*train, *TINY, "--as", "text", "--tokenizer", "bpe", "--out", "p"],
        [*train, *TINY, *CLEANING_FLAGS, "--tokenizer", "byte", "--out", "b"],
        [*train, *TINY, "--encoding", "utf-16", "--out", "w"],
        [*train, "--model", "kneser-ney", "--out", "k"],
        ["tokenize", source],
        ["doctor", source, "--report", "page.html"],
        ["doctor", source, "--as", "lines", "--encoding", "utf-16", "--json"],
        ["plan", source, "--steps", "2"],
        ["lr-range", source, *TINY[:2], *TINY[4:], "--steps", "5"],
        ["ladder", source, "--rungs", "counts,bigram", "--epochs", "0.01", "--out", "l"],
    ]
    if repetitions(10) < 10:  # in `make test` each text meets every sixth verb
        verbs = verbs[len(name) % 6 :: 6]
    succeeded = sum(succeeds_or_explains(moreish(*verb)) for verb in verbs)
    for run in ("r", "o", "p", "b", "w", "k"):
        if (tmp_path / run).exists():
            succeeds_or_explains(moreish("sample", run, "-n", "2", "--max-tokens", "20"))
            succeeds_or_explains(moreish("eval", run))
    if (tmp_path / "r").exists():  # searching long samples is slow, so only those of one run
        succeeds_or_explains(moreish("novelty", "r", "-n", "1"))
    assert not list(tmp_path.rglob("*.part"))
    proved(9, "hostile texts", {"commands": len(verbs), "accepted": succeeded, "texts": 1})


@pytest.mark.parametrize("name", list(TEXTS))
def test_hostile_arguments(name: str, small_run: Run, moreish: Moreish) -> None:
    """Pass hostile texts as arguments, as the system decodes them; they cannot hold NUL."""
    text = os.fsdecode(TEXTS[name].replace(b"\0", b"")[:300])
    for unknown in ("error", "drop"):
        succeeds_or_explains(
            moreish("sample", small_run.path, "--prompt", text, "--unknown", unknown)
        )
        succeeds_or_explains(moreish("eval", small_run.path, "--text", text, "--unknown", unknown))
    for flag in ("--ends", "--contains", "--regex", "--length"):
        succeeds_or_explains(moreish("sample", small_run.path, flag, text[:40]))
    (found,) = small_run.novelty([text])
    assert found.text == text


@pytest.mark.parametrize("name", ["one line", *SPECIAL_PATHS])
def test_paths_that_are_not_runs(
    name: str, small_run: Run, moreish: Moreish, tmp_path: Path, proved: Proved
) -> None:
    place = write_source(name, tmp_path)
    verbs = [[verb, place] for verb in ("figures", "report", "novelty", "sample", "eval")]
    verbs += [["compare", place, small_run.path], ["compare", small_run.path, place]]
    assert not any(succeeds_or_explains(moreish(*verb)) for verb in verbs)
    proved(9, "paths that are not run folders", {"commands": len(verbs)})


@pytest.mark.repeated
@settings(
    max_examples=repetitions(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=300), st.integers(1, 60), st.sampled_from(["lines", "text", None]))
def test_random_bytes(
    moreish: Moreish, tmp_path: Path, content: bytes, times: int, kind: str | None
) -> None:
    source = tmp_path / "any.txt"
    source.write_bytes(content * times)
    options = ["--as", kind] if kind else []
    succeeds_or_explains(moreish("train", source, *TINY, *options, "--out", "r", "--overwrite"))


@pytest.mark.repeated
@settings(
    max_examples=repetitions(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(max_size=200), st.integers(1, 60))
def test_random_text(moreish: Moreish, tmp_path: Path, content: str, times: int) -> None:
    source = tmp_path / "any.txt"
    source.write_bytes((content * times).encode("utf-8", "surrogatepass"))
    succeeds_or_explains(moreish("train", source, *TINY, "--out", "r", "--overwrite"))


FRAGMENTS = [text[at : at + 40] for text in TEXTS.values() for at in (0, 30)]

CONTENT = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(st.sampled_from(FRAGMENTS), max_size=9).map(b"".join),
)
"""Random bytes and characters, and fragments of hostile texts in new combinations."""

TRAIN_COUNTS = ["train", "any.txt", "--out", "r", "--overwrite", "--model"]

FILE_VERBS = [
    [*TRAIN_COUNTS, "kneser-ney"],
    ["doctor", "any.txt"],
    ["doctor", "any.txt", "--as", "lines", "--json"],
    ["doctor", "any.txt", "--as", "text"],
    ["doctor", "any.txt", "--encoding", "utf-16"],
    ["plan", "any.txt", "--steps", "2"],
    ["plan", "any.txt", "--steps", "2", "--as", "lines", "--json"],
    ["plan", "any.txt", "--steps", "2", "--as", "text", *CLEANING_FLAGS],
]

RUN_VERBS = [
    ["eval", "--text"],
    ["eval", "--unknown", "drop", "--text"],
    ["sample", "-n", "1", "--max-tokens", "2", "--prompt"],
    ["sample", "-n", "1", "--max-tokens", "2", "--unknown", "drop", "--prompt"],
    ["sample", "-n", "1", "--max-tokens", "2", "--ends"],
    ["sample", "-n", "1", "--max-tokens", "2", "--contains"],
]


@pytest.mark.repeated
def test_random_content_in_all_commands(
    small_run: Run, moreish: Moreish, tmp_path: Path, proved: Proved
) -> None:
    """Many examples, so only verbs that take milliseconds: not regular expressions, whose automata
    may be huge."""
    counts: Counter[str] = Counter()

    @settings(max_examples=repetitions(2000), deadline=None)
    @given(CONTENT, st.integers(1, 9), st.sampled_from([*FILE_VERBS, *RUN_VERBS, ["novelty"]]))
    def any_text(content: bytes, times: int, verb: list[str]) -> None:
        counts.update(["examples", verb[0]])
        text = os.fsdecode(content.replace(b"\0", b""))
        if verb in FILE_VERBS:
            (tmp_path / "any.txt").write_bytes(content * times)
            succeeds_or_explains(moreish(*verb))
        elif verb in RUN_VERBS:
            succeeds_or_explains(moreish(verb[0], small_run.path, *verb[1:], text))
        else:
            (found,) = small_run.novelty([text * times])
            assert found.overlap in text * times

    any_text()
    assert counts["examples"] >= repetitions(2000)
    proved(9, "texts generated by Hypothesis", counts)


def test_file_that_shrinks_while_it_is_read(
    moreish: Moreish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moreish.training import setup

    source = tmp_path / "text.txt"
    source.write_text(STORY * 500)
    read = setup.read_corpus

    def shrinking(*arguments: Any, **options: Any) -> Any:
        corpus = read(*arguments, **options)
        source.write_text(STORY)
        return corpus

    monkeypatch.setattr(setup, "read_corpus", shrinking)
    assert not succeeds_or_explains(moreish("train", source, *TINY, "--as", "text", "--out", "r"))


def test_disk_read_error(moreish: Moreish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moreish.data.text import files

    def broken(*arguments: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "text.txt")

    source = tmp_path / "text.txt"
    source.write_text(STORY * 9)
    monkeypatch.setattr(files, "decode_chunks", broken)
    assert not succeeds_or_explains(moreish("train", source, *TINY, "--out", "r"))


EXTREME_VALUES = (
    "-1",
    "0",
    "nan",
    "inf",
    "1e308",
    "1e-308",
    str(10**30),
    "x",
    "true",
    "[]",
    "{}",
    "0.5",
)


def setting_names(config: type) -> list[str]:
    """Return the names of all settings of a group."""
    return [name for name in config.model_fields if name != "name"]


FIELDS = [
    *((None, f"train.{name}") for name in setting_names(TrainConfig)),
    *((None, f"data.{name}") for name in setting_names(DataConfig)),
    *(
        (model, f"model.{name}")
        for model in REGISTRY
        for name in setting_names(model_class(model).Config)
    ),
    (None, "seed"),
]


@pytest.mark.parametrize(("model", "field"), FIELDS, ids=[f"{m}-{f}" for m, f in FIELDS])
def test_extreme_settings(
    model: str | None, field: str, moreish: Moreish, tmp_path: Path, proved: Proved
) -> None:
    source = tmp_path / "names.txt"
    source.write_text("\n".join(f"anna{n}" for n in range(60)))
    if model and model_class(model).needs_examples:
        source = tmp_path / "names.csv"
        source.write_text("text,label\n" + "\n".join(f"anna{n},{n % 2}" for n in range(60)))
    budget = [] if field in ("train.steps", "train.minutes", "train.epochs") else ["--steps", "2"]
    small = ["--model", model] if model else TINY[:2] + TINY[4:]
    if model == "gpt":  # the sizes that are not under test are small
        sizes = ("layers=1", "heads=1", "width=8")
        small += [f"--set=model.{size}" for size in sizes if f"model.{size}".split("=")[0] != field]
    for value in EXTREME_VALUES:
        if (field, value) in (("train.minutes", "0.5"), ("train.compile", "true")):
            continue  # these are valid and slow
        setting = ["--set", f"{field}={value}"]
        succeeds_or_explains(
            moreish("train", source, *small, *budget, *setting, "--out", "r", "--overwrite")
        )
    proved(9, "extreme values of settings", {"values": len(EXTREME_VALUES)})


@pytest.mark.parametrize("value", EXTREME_VALUES)
def test_extreme_lr_range_options(value: str, moreish: Moreish, tmp_path: Path) -> None:
    source = tmp_path / "names.txt"
    source.write_text("\n".join(f"anna{n}" for n in range(60)))
    for flag in ("--steps", "--low", "--high"):
        succeeds_or_explains(
            moreish("lr-range", source, "--model", "bigram", "--steps", "10", flag, value)
        )
