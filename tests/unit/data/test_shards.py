"""Prepared datasets: all formats, interruptions at any point, and training on them."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Moreish, needs_gpt2, repetitions
from moreish.data import catalog
from moreish.data.shards import chunks, pipeline, writer
from moreish.data.shards.chunks import (
    MAX_CHUNK_CHARACTERS,
    HashSplitter,
    ReadPosition,
    chunk_characters,
    split_into_chunks,
)
from moreish.data.shards.dataset import PreparedDataset
from moreish.data.shards.pipeline import PrepareConfig, prepare_dataset
from moreish.data.shards.readers import SourceFormat, split_at_separators
from moreish.data.shards.sources import find_sources
from moreish.data.split import SPLITS
from moreish.errors import MoreishError
from moreish.tokenizers import tokenizer_builder
from moreish.tokenizers.base import cut_before_space

TEXT = "the miller had three sons, a mill, an ass and a cat. What? 'I could' é 漢字\n"
WORDS = TEXT.split(" ")
TINY_GPT = [
    "--model", "gpt", "--steps", "3", "--context", "32",
    *(f"--set=model.{name}" for name in ("layers=1", "heads=2", "width=16")),
]  # fmt: skip


def stories(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Return random documents, the same for the same seed."""
    random = np.random.default_rng(seed)
    chosen = (random.integers(len(WORDS), size=1 + random.integers(words)) for _ in range(count))
    return [" ".join(WORDS[n] for n in some).strip() + "." for some in chosen]


def prepare(out: Path, *sources: Path | str, **options: Any) -> PreparedDataset:
    """Prepare a dataset with the byte tokenizer unless `options` say otherwise."""
    config = PrepareConfig(sources=tuple(map(str, sources)), **{"tokenizer": "byte", **options})
    return prepare_dataset(config, out, overwrite=False, workers=2).prepared


def documents(prepared: PreparedDataset) -> dict[str, list[str]]:
    """Return the texts between the boundaries of each split."""
    tokenizer = prepared.tokenizer()
    assert tokenizer.boundary_id is not None
    found = {}
    for name in SPLITS:
        ids = prepared.tokens(name).ids_N[:].astype(np.int64)
        assert ids[-1] == tokenizer.boundary_id
        ends = np.flatnonzero(ids == tokenizer.boundary_id)
        found[name] = [tokenizer.decode(part) for part in np.split(ids, ends + 1)[:-1]]
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


# --- reading ---


def write_parquet(path: Path, texts: list[str], **options: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = list(range(len(texts)))
    pq.write_table(pa.table({"id": numbers, "text": texts}), path, **options)


def write_compressed(path: Path, raw: bytes) -> None:
    import zstandard

    with_ = {
        ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }  # fmt: skip
    path.write_bytes(with_[path.suffix](raw))


def to_json_lines(texts: list[str]) -> bytes:
    return "".join(
        json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)
    ).encode()


def test_all_formats_yield_the_same_documents(tmp_path: Path) -> None:
    texts = stories(300)
    (tmp_path / "plain.txt").write_text("<end>\n".join(f"{text}\n" for text in texts))
    (tmp_path / "lines.jsonl").write_bytes(to_json_lines(texts))
    for suffix in (".gz", ".bz2", ".xz", ".zst"):
        write_compressed(tmp_path / f"c{suffix[1:]}.jsonl{suffix}", to_json_lines(texts))
    write_parquet(tmp_path / "table.parquet", texts, row_group_size=70)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(to_json_lines(texts))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").write_bytes(to_json_lines(texts[:100]))
    write_parquet(tmp_path / "folder" / "b.parquet", texts[100:])
    (tmp_path / "folder" / ".hidden.jsonl").write_text("no JSON")
    (tmp_path / "folder" / "empty.txt").write_text("")
    (tmp_path / "folder" / "picture.png").write_bytes(b"\x89PNG\0\1\2")
    given = [str(path) for path in sorted(tmp_path.iterdir()) if path.name != "set"]
    given.append(f"hf:{tmp_path / 'set'}")
    sources = find_sources(given, SourceFormat(separator="<end>"))
    assert [source.name for source in sources] == [
        "cbz2", "cgz", "cxz", "czst", "folder", "lines", "plain", "table", "set",
    ]  # fmt: skip
    assert sources[4].skipped == [tmp_path / "folder" / "picture.png"]
    size = len("".join(texts).encode())
    for source in sources:
        found = []
        for part in range(source.parts):
            found += [text for _, text, ends in source.pieces(part) if ends and text]
            rest = [text for _, text, _ in source.pieces(part, 60)]
            assert rest == [text for n, text, _ in source.pieces(part) if n >= 60]
        assert found == texts, source.name
        assert 0.7 * size < source.text_bytes() < 1.6 * size + 30 * len(texts), source.name


def test_text_file_is_one_document_with_normalized_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\rthree\n".encode())
    (source,) = find_sources([str(tmp_path)], SourceFormat())
    assert list(source.pieces(0)) == [
        (0, "one\ntwo\nthree\n", False),
        (0, "", True),
    ]


@pytest.mark.parametrize("length", [1, 3, 50, 1 << 18])
def test_separators_are_found_across_chunk_edges(length: int) -> None:
    texts = ["a\n\nb", "", "<|en", "\n" * 3 + "c" * 200_000 + "\n\nd", "e<|endoftext|", "f"]
    whole = "\n<|endoftext|>\n".join(texts) + "\n<|endoftext|>\n"
    pieces = [whole[at : at + length] for at in range(0, len(whole), length)][: 500_000 // length]
    found: dict[int, str] = {}
    if length < 50:
        pieces = ["".join(pieces)[n : n + length] for n in range(0, 40, length)]
        whole = "".join(pieces)
    ended = set()
    for number, text, ends in split_at_separators(pieces, "<|endoftext|>"):
        assert number not in ended
        found[number] = found.get(number, "") + text
        ended |= {number} if ends else set()
    expected = [text.strip("\n") for text in whole.split("<|endoftext|>")]
    assert list(found.values()) == (expected if expected[-1] else expected[:-1])
    assert ended == set(found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n\n{"tex": ""}\n', "a.jsonl, line 3: there is no field 'text'"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "a.jsonl, line 2: it is not JSON"),
        ("a.jsonl", b'["x"]\n', "a.jsonl, line 1: it is not an object"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1: field 'text' is not text but '7'"),
        ("a.jsonl", b'{"text": "x \\ud800"}\n', "a.jsonl, document 1 is not valid Unicode"),
        ("a.txt", b"abc\xff", "a.txt is not utf-8: byte 0xff at offset 3"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999)[:-20], "a.jsonl.gz is damaged"),
        ("a.txt.xz", lzma.compress(b"x" * 99)[:-20], "a.txt.xz is damaged"),
        ("a.txt.bz2", bz2.compress(b"x" * 99)[:-9], "a.txt.bz2 is damaged"),
        ("a.txt.bz2", b"none", "a.txt.bz2 is damaged"),
        ("a.txt.zst", b"none", "a.txt.zst is damaged"),
        ("a.parquet", b"none", "a.parquet is damaged"),
    ],
    ids=map(str, range(12)),  # gzip content contains the time, which must not be in an id
)  # fmt: skip
def test_read_errors_name_file_and_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MoreishError) as error:
        prepare(tmp_path / "out", tmp_path / name)
    assert message in str(error.value)


def test_truncated_zstandard_file_is_rejected(tmp_path: Path) -> None:
    write_compressed(tmp_path / "a.txt.zst", os.urandom(400_000).hex().encode())
    raw = (tmp_path / "a.txt.zst").read_bytes()
    (tmp_path / "b.txt.zst").write_bytes(raw + raw)  # frames may follow one another
    (source,) = find_sources([str(tmp_path / "b.txt.zst")], SourceFormat())
    assert sum(len(text) for _, text, _ in source.pieces(0)) == 1_600_000
    (tmp_path / "a.txt.zst").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(MoreishError, match=r"a.txt.zst is damaged"):
        prepare(tmp_path / "out", tmp_path / "a.txt.zst")


def test_wrong_options_and_sources_are_rejected(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ["x"])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(to_json_lines(["x"]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("text")
    for source, options, message in (
        (
            "a.parquet",
            {"source_format": SourceFormat(field="txt")},
            "no column 'txt' .*did you mean 'text'",
        ),
        (
            "a.parquet",
            {"source_format": SourceFormat(field="id")},
            "column 'id' is not text but int64",
        ),
        ("empty", {}, "holds no utf-8 text .--encoding., JSON lines or Parquet$"),
        (
            "nothing",
            {},
            "no file, folder or built-in data set .*known: cmudict, names, names-lecture, ",
        ),
        ("a.txt", {"hold_out": 0.9}, "--hold-out 0.9: give a fraction"),
        (
            "a.txt",
            {"source_format": SourceFormat(separator="")},
            "--separator '': give the text between",
        ),
        ("a.txt", {"tokenizer": "bpee"}, "unknown tokenizer 'bpee': did you mean 'bpe'"),
        ("a.txt", {}, "1 chunk.* too few to hold out"),
    ):
        with pytest.raises(MoreishError, match=message):
            prepare(tmp_path / "out", tmp_path / source, **options)
    with pytest.raises(MoreishError, match=r"hf:.*set: no column 'txt'"):
        prepare(tmp_path / "out", f"hf:{tmp_path / 'set'}", source_format=SourceFormat(field="txt"))
    with pytest.raises(MoreishError, match="cannot be loaded"):
        prepare(tmp_path / "out", f"hf:{tmp_path / 'empty'}")
    with pytest.raises(MoreishError, match="holds something else"):
        prepare(tmp_path / "set", tmp_path / "a.txt")
    with pytest.raises(MoreishError, match="choose another folder"):
        prepare(tmp_path / "new", tmp_path)
        prepare(tmp_path / "set" / "new", tmp_path / "set")


def test_built_in_data_sets(moreish: Moreish, shakespeare: str) -> None:
    names = [*filter(None, catalog.load_dataset("names").split("\n"))]
    for out in ("names", "names/p"):
        result = moreish("prepare", "names", "--out", out, "--tokenizer", "byte")
        assert f"--out {out} is names or in it" in result.err
    arguments = ["names", "shakespeare", "--out", "p", "--tokenizer", "byte"]
    assert moreish("prepare", *arguments).status == 0
    prepared = PreparedDataset.open(Path("p"))
    items, plays = prepared.manifest.sources
    assert (items.documents, items.characters) == (len(names), sum(map(len, names)))
    assert (plays.documents, plays.characters) == (1, len(shakespeare))
    splitter = HashSplitter(share=prepared.manifest.held_out, seed=42)
    expected = [
        name for name in names if splitter.split_of(splitter.hash(name.encode())[0]) == "val"
    ]
    assert documents(prepared)["val"][: len(expected)] == expected
    assert "Prepared before" in moreish("prepare", *arguments).out
    result = moreish("prepare", "shakespeer", "--out", "q")
    assert result.status == 2 and "data set 'shakespeer': did you mean 'shakes" in result.err
    Path("names").write_text("\n\n".join(stories(700)))
    assert moreish("prepare", "names", "--out", "q", "--tokenizer", "byte").status == 0
    assert PreparedDataset.open(Path("q")).manifest.sources[0].documents == 1


def test_skipped_files_of_another_encoding_are_reported(moreish: Moreish) -> None:
    Path("a").mkdir()
    for number in range(4):
        Path("a", f"{number}.txt").write_text("\n".join(stories(200)), encoding="utf-16")
    arguments = ["prepare", "a", "--out", "p", "--tokenizer", "byte"]
    none = "a holds no utf-8 text (--encoding), JSON lines or Parquet; there are 0.txt, 1.txt"
    assert none in moreish(*arguments).err
    assert moreish(*arguments, "--encoding", "utf-16").status == 0
    assert len(PreparedDataset.open(Path("p")).manifest.sources[0].files) == 4
    Path("a", "z.txt").write_text("\n".join(stories(700)))
    output = " ".join(moreish(*arguments, "--overwrite").out.split())
    left_out = "skipped 4 files in a: neither JSON lines nor Parquet nor utf-8 text (--encoding)"
    assert f"{left_out}: 0.txt, 1.txt, 2.txt, …" in output


def test_sources_without_text_are_rejected(moreish: Moreish) -> None:
    Path("e.txt").write_text("")
    Path("w.txt").write_text(" \n")
    Path("a.txt").write_text("\n".join(stories(700)))
    arguments = ["--out", "p", "--tokenizer", "byte"]
    for sources in (["e.txt"], ["w.txt", "e.txt"]):
        result = moreish("prepare", *sources, *arguments)
        assert f"there is no text in {', '.join(sources)}" in result.err
        assert not Path("p").exists()
    assert "the source 'hf:' is empty" in moreish("prepare", "hf:", *arguments).err
    assert moreish("prepare", "a.txt", "e.txt", *arguments).status == 0
    result = moreish("train", "p", "--weight", "e=0.5", "--weight", "a=0.5", *TINY_GPT)
    assert result.status == 2 and "--weight e: it has no text to train on" in result.err


def test_corrected_command_runs_after_a_wrong_one(moreish: Moreish) -> None:
    Path("a.jsonl").write_bytes(to_json_lines(stories(200)))
    arguments = ["prepare", "a.jsonl", "--tokenizer", "byte", "--out", "p"]
    assert "no field 'body'" in moreish(*arguments, "--field", "body").err
    assert moreish(*arguments).status == 0
    assert "was prepared with" in moreish(*arguments, "--field", "body").err


# --- chunks and splits ---


def test_chunks_join_to_the_document_and_its_tokens() -> None:
    needs_gpt2()
    long = "\n\n".join(stories(900))
    assert len(long) > 5 * MAX_CHUNK_CHARACTERS
    unbroken = "x" * (3 * MAX_CHUNK_CHARACTERS) + " " + "y" * MAX_CHUNK_CHARACTERS
    pieces = [(0, "short", True), (1, long, True), (2, unbroken, True)]
    found = list(split_into_chunks(pieces, cut_before_space, MAX_CHUNK_CHARACTERS))
    in_bits = [(n, text[at : at + 999], at + 999 >= len(text)) for n, text, _ in pieces
               for at in range(0, len(text), 999)]  # fmt: skip
    assert list(split_into_chunks(in_bits, cut_before_space, MAX_CHUNK_CHARACTERS)) == found
    for number, text, _ in pieces:
        own = [chunk for chunk in found if chunk.document == number]
        assert "".join(chunk.text for chunk in own) == text
        assert [chunk.is_last for chunk in own] == [False] * (len(own) - 1) + [True]
        assert [chunk.number for chunk in own] == list(range(len(own)))
        gpt2 = tokenizer_builder("gpt2").build([], boundary=True)
        parts = np.concatenate([gpt2.encode(chunk.text) for chunk in own])
        assert parts.tolist() == gpt2.encode(text).tolist()
    assert max(len(p.text) for p in found if p.document == 1) <= MAX_CHUNK_CHARACTERS


def test_splitter_is_deterministic_and_keeps_its_shares() -> None:
    splitter = HashSplitter(share=0.1, seed=42)
    places = [splitter.hash(str(n).encode())[0] for n in range(20_000)]
    counts = [sum(splitter.split_of(place) == name for place in places) for name in SPLITS]
    assert abs(counts[1] - 2000) < 170 and abs(counts[2] - 2000) < 170
    assert splitter.hash(b"a") == splitter.hash(b"a") != HashSplitter(share=0.1, seed=43).hash(b"a")


def test_small_text_has_tokens_in_every_split(tmp_path: Path) -> None:
    for size, expected in (
        (10_000, 1024),
        (300_000, 1171),
        (1_000_000, 3906),
        (10**9, MAX_CHUNK_CHARACTERS),
    ):
        assert chunk_characters(size) == expected
    text = "\n".join(stories(800))[:100_000]
    (tmp_path / "a.txt").write_text(text)
    for seed in range(10):
        out = tmp_path / f"out{seed}"
        manifest = prepare(out, tmp_path / "a.txt", split_seed=seed).manifest
        tokens = manifest.tokens()
        assert manifest.passage == 1024 and manifest.sources[0].passages > 95
        held_out = [tokens[name] / sum(tokens.values()) for name in SPLITS[1:]]
        assert min(held_out) > 0.01 and max(held_out) < 0.2


def test_held_out_chunks_are_separated_by_boundaries(tmp_path: Path) -> None:
    """The chunks of each document are assigned to splits one by one."""
    texts = [*stories(60), "\n".join(stories(4000, seed=1)), *stories(40, seed=2), "", " \n"]
    (tmp_path / "a.jsonl").write_bytes(to_json_lines(texts))
    prepared = prepare(tmp_path / "out", tmp_path / "a.jsonl", hold_out=0.2)
    splitter, size = HashSplitter(share=0.2, seed=42), prepared.manifest.passage
    expected: dict[str, list[str]] = {name: [] for name in SPLITS}
    for number, text in enumerate(texts):
        before = None
        for chunk in split_into_chunks([(number, text, True)], cut_before_space, size):
            if not text.strip():
                continue
            split = splitter.split_of(splitter.hash(chunk.text.encode())[0])
            if split == before:
                expected[split][-1] += chunk.text
            else:
                expected[split].append(chunk.text)
            before = split
    assert documents(prepared) == expected
    (source,) = prepared.manifest.sources
    assert (source.documents, source.empty) == (101, 2)
    whole = [text for text in texts if text.strip()]
    assert source.characters == sum(map(len, whole))
    assert source.bytes == sum(len(text.encode()) for text in whole)
    assert (source.shortest, source.longest) == (min(map(len, whole)), max(map(len, whole)))
    assert sum(shard.documents for shard in prepared.manifest.shards) == sum(
        map(len, expected.values())
    )


@pytest.mark.parametrize("tokenizer", ["char", "byte", "word", "bpe", "gpt2"])
def test_all_tokenizers_share_the_split(tmp_path: Path, tokenizer: str) -> None:
    if tokenizer == "gpt2":
        needs_gpt2()
    texts = stories(400)
    (tmp_path / "a.jsonl").write_bytes(to_json_lines(texts))
    prepared = prepare(tmp_path / "out", tmp_path / "a.jsonl", tokenizer=tokenizer)
    found = documents(prepared)
    splitter = HashSplitter(share=prepared.manifest.held_out, seed=42)
    assert splitter.share == 0.1
    split_of = {text: splitter.split_of(splitter.hash(text.encode())[0]) for text in texts}
    for name in SPLITS:
        assert found[name] == [text for text in texts if split_of[text] == name]
    small = prepared.tokenizer().vocab_size < 256
    assert prepared.tokens("val").ids_N.dtype == (np.uint8 if small else np.uint16)
    prepared.verify(2)


# --- threads, resuming, faults ---


@pytest.fixture
def three_sources(tmp_path: Path) -> list[Path]:
    """Sources that are divided into many blocks and shards, in the middle of documents."""
    (tmp_path / "one").mkdir()
    for number in range(3):
        (tmp_path / "one" / f"{number}.txt").write_text("\n".join(stories(700, seed=number)))
    (tmp_path / "two.jsonl").write_bytes(to_json_lines(stories(500, seed=9)))
    write_parquet(tmp_path / "three.parquet", stories(500, seed=10), row_group_size=100)
    return [tmp_path / "one", tmp_path / "two.jsonl", tmp_path / "three.parquet"]


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that give many blocks, shards and stored states for little text."""
    monkeypatch.setattr(chunks, "MAX_CHUNK_CHARACTERS", 1 << 10)
    monkeypatch.setattr(chunks, "BLOCK_CHARACTERS", 1 << 13)
    monkeypatch.setattr(writer, "MAX_SHARD_TOKENS", 10_000)
    monkeypatch.setattr(pipeline, "SAVE_SECONDS", 0.0)


@pytest.mark.usefixtures("small_limits")
def test_tokens_do_not_depend_on_workers_and_shards(
    tmp_path: Path, three_sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrepareConfig(sources=tuple(map(str, three_sources)), tokenizer="byte")
    found = [
        prepare_dataset(config, tmp_path / f"out{n}", overwrite=False, workers=n).prepared
        for n in (1, 3)
    ]
    assert files_of(tmp_path / "out1") == files_of(tmp_path / "out3")
    assert [s.name for s in found[0].manifest.sources] == ["one", "two", "three"]
    assert max(shard.tokens for shard in found[0].manifest.shards) == 10_000
    monkeypatch.setattr(writer, "MAX_SHARD_TOKENS", 1 << 26)
    whole = prepare_dataset(config, tmp_path / "whole", overwrite=False).prepared
    assert len(whole.manifest.shards) == 9
    for name in SPLITS:
        assert (whole.tokens(name).ids_N[:] == found[0].tokens(name).ids_N[:]).all()
        assert whole.manifest.tokens() == found[0].manifest.tokens()


@pytest.mark.repeated
@pytest.mark.usefixtures("small_limits")
def test_resumes_to_the_same_bytes_after_disk_errors(
    tmp_path: Path, three_sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at every so many operations, also while resuming."""
    config = PrepareConfig(sources=(str(three_sources[1]), str(three_sources[0])), tokenizer="byte")
    prepare_dataset(config, tmp_path / "whole", overwrite=False)
    expected = files_of(tmp_path / "whole")
    real = {name: getattr(os, name) for name in ("write", "fsync", "truncate", "replace")}
    left = [0]

    def failing(name: str) -> Callable[..., Any]:
        def work(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(28, "No space left on device")
            return real[name](*arguments, **options)

        return work

    failed = 0
    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(os, name, failing(name))
        left[0] = 10**9
        prepare_dataset(config, tmp_path / "counted", overwrite=False)
        total = 10**9 - left[0]
        for at in range(1, total + 1, max(1, total // repetitions(60))):
            out = tmp_path / f"at{at}"
            for later in (at, max(1, at // 2)):  # and once more while resuming
                left[0] = later
                try:
                    prepare_dataset(config, out, overwrite=False)
                    break
                except OSError:
                    failed += 1
            left[0] = 10**9
            prepare_dataset(config, out, overwrite=False)
            assert files_of(out) == expected, at
    assert failed > repetitions(60)


@pytest.mark.usefixtures("small_limits")
def test_data_are_flushed_before_progress_is_stored(
    tmp_path: Path, three_sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = {name: getattr(os, name) for name in ("write", "fsync", "replace")}
    dirty, noted = set[int](), list[str]()

    def write(descriptor: int, content: Any) -> int:
        dirty.add(descriptor)
        return int(real["write"](descriptor, content))

    def fsync(descriptor: int) -> None:
        dirty.discard(descriptor)
        real["fsync"](descriptor)

    def replace(source: Any, target: Any) -> None:
        assert not dirty, target
        noted.append(Path(target).name)
        real["replace"](source, target)

    with monkeypatch.context() as patch:
        for function in (write, fsync, replace):
            patch.setattr(os, function.__name__, function)
        prepare(tmp_path / "out", *three_sources)
    assert noted[0] == "tokenizer.json" and noted[-1] == "manifest.json"
    assert noted.count("progress.json") > 20


PREPARE_SCRIPT = """
import sys
from pathlib import Path
from moreish.data.shards import chunks, pipeline, writer
chunks.MAX_CHUNK_CHARACTERS, chunks.BLOCK_CHARACTERS = 1 << 10, 1 << 13
writer.MAX_SHARD_TOKENS, pipeline.SAVE_SECONDS = 10_000, 0.0
config = pipeline.PrepareConfig(sources=tuple(sys.argv[2:]), tokenizer="byte")
print("ready", flush=True)
pipeline.prepare_dataset(config, Path(sys.argv[1]), overwrite=False, workers=2)
"""


@pytest.mark.usefixtures("small_limits")
@pytest.mark.soak
def test_resumes_to_the_same_bytes_after_kills(tmp_path: Path, three_sources: list[Path]) -> None:
    config = PrepareConfig(sources=tuple(map(str, three_sources)), tokenizer="byte")
    began = time.monotonic()
    prepare_dataset(config, tmp_path / "whole", overwrite=False, workers=2)
    took = time.monotonic() - began
    out, random, begun = tmp_path / "out", np.random.default_rng(), 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", PREPARE_SCRIPT, str(out), *map(str, three_sources)],
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            while process.poll() is None and not (out / "progress.json").exists():
                time.sleep(0.001)
            time.sleep(random.uniform(0, 0.3) * took)
            process.send_signal(signal.SIGKILL)
        begun += (out / "progress.json").exists()
    prepare_dataset(config, out, overwrite=False)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert begun


@pytest.mark.usefixtures("small_limits")
def test_resume_skips_finished_blocks(
    tmp_path: Path, three_sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PrepareConfig(sources=tuple(map(str, three_sources)), tokenizer="byte")
    prepare_dataset(config, tmp_path / "whole", overwrite=False)
    real, done = pipeline.encode_block, []

    def counting(block: Any, *rest: Any) -> Any:
        done.append(block)
        if len(done) == 40:
            raise KeyboardInterrupt
        return real(block, *rest)

    monkeypatch.setattr(pipeline, "encode_block", counting)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(config, tmp_path / "out", overwrite=False, workers=1)
    output: list[str] = []
    first = len(done)
    # A resumed preparation keeps its chunk size.
    monkeypatch.setattr(pipeline, "chunk_characters", lambda size: 1 << 9)
    prepare_dataset(config, tmp_path / "out", overwrite=False, workers=1, note=output.append)
    again = len(done) - first
    monkeypatch.setattr(pipeline, "encode_block", real)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    assert output and output[0].startswith("resuming after")
    sources = find_sources(config.sources, config.source_format)
    splitter = HashSplitter(share=0.1, seed=42, chunk_characters=1 << 10)
    count = len([*chunks.read_blocks(sources, cut_before_space, splitter, ReadPosition(), {})])
    assert again < count - 30, "all blocks but the waiting ones are skipped"


def test_finished_dataset_is_verified(tmp_path: Path) -> None:
    text = tmp_path / "a.jsonl"
    text.write_bytes(to_json_lines(stories(200)))
    out = tmp_path / "out"
    config = PrepareConfig(sources=(str(text),), tokenizer="byte")
    assert prepare_dataset(config, out, overwrite=False).new
    assert not prepare_dataset(config, out, overwrite=False).new
    other = PrepareConfig(sources=(str(text),), tokenizer="char")
    with pytest.raises(MoreishError, match="prepared with tokenizer=byte, not char"):
        prepare_dataset(other, out, overwrite=False)
    assert prepare_dataset(other, out, overwrite=True).new
    prepare_dataset(config, out, overwrite=True)
    shard = out / "a-train-00000.npy"
    raw = bytearray(shard.read_bytes())
    raw[500] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(MoreishError, match=r"a-train-00000.npy is damaged: its sha256"):
        prepare_dataset(config, out, overwrite=False)
    shard.write_bytes(raw[:-1])
    with pytest.raises(MoreishError, match=r"a-train-00000.npy is damaged or missing"):
        PreparedDataset.open(out)
    prepare_dataset(config, out, overwrite=True)
    text.write_bytes(to_json_lines(stories(201)))
    with pytest.raises(MoreishError, match="the sources have changed since"):
        prepare_dataset(config, out, overwrite=False)
    text.unlink()
    assert not prepare_dataset(config, out, overwrite=False).new, "the sources are no longer needed"


def test_files_left_by_a_kill_are_handled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(to_json_lines(stories(200)))
    config = PrepareConfig(sources=(str(tmp_path / "a.jsonl"),), tokenizer="byte")
    prepare_dataset(config, tmp_path / "whole", overwrite=False)
    expected = files_of(tmp_path / "whole")

    out = tmp_path / "begun"
    out.mkdir()
    for name in (".lock", "tokenizer.json", "tokenizer.json.1.part", "progress.json.1.part"):
        (out / name).write_text("")
    assert prepare_dataset(config, out, overwrite=False).new
    assert files_of(out) == expected

    (out / "progress.json").write_text('{"moreish": "begun"}')
    (out / "manifest.json.7.part").write_text("")
    assert not prepare_dataset(config, out, overwrite=False).new
    assert files_of(out) == expected

    unlink, left = Path.unlink, [0]

    def killed(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    for at in range(1, 6):  # files that replacing the dataset removes
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            left[0] = at
            with pytest.raises(KeyboardInterrupt):
                prepare_dataset(config, out, overwrite=True)
        assert prepare_dataset(config, out, overwrite=True).new
        assert files_of(out) == expected


def test_resume_rejects_changed_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "a.jsonl"
    text.write_bytes(to_json_lines(stories(200)))
    config = PrepareConfig(sources=(str(text),), tokenizer="byte")

    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "SAVE_SECONDS", -1.0)  # progress is stored after every block
        patch.setattr(pipeline.Preparation, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_dataset(config, tmp_path / "out", overwrite=False)
    text.write_bytes(to_json_lines(stories(200, seed=5)))
    with pytest.raises(MoreishError, match=r"the sources have changed since .* started"):
        prepare_dataset(config, tmp_path / "out", overwrite=False)


def test_disk_space_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(to_json_lines(stories(300)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=70_000))
    with pytest.raises(OSError, match="the prepared text takes"):
        prepare(tmp_path / "out", tmp_path / "a.jsonl")


# --- command line and training ---


@pytest.fixture
def prepared(moreish: Moreish) -> Path:
    """A dataset of two sources, in the current folder."""
    Path("a.jsonl").write_bytes(to_json_lines(stories(300)))
    Path("b.txt").write_text("\n\n".join(stories(1500, seed=3)))
    result = moreish("prepare", "a.jsonl", "b.txt", "--out", "p", "--tokenizer", "char", "--json")
    assert result.status == 0, result.err
    output = result.json
    assert output["new"] and set(output["sources"]) == {"a", "b"} and output["tokenizer"] == "char"
    assert output["tokens"]["train"] == sum(output["sources"].values())
    return Path("p")


def test_built_in_name_takes_precedence_over_folder(moreish: Moreish, prepared: Path) -> None:
    prepared.rename("names")
    output = moreish("train", "names", "--model", "kneser-ney", "--out", "r").out
    assert "by line, at random" in output
    assert "of running text" not in output


def test_prepare_prints_a_summary(moreish: Moreish, prepared: Path) -> None:
    again = moreish("prepare", "a.jsonl", "b.txt", "--out", "p", "--tokenizer", "char")
    assert "Prepared before: 6 files verified" in again.out
    assert "a: 300 documents, " in again.out and "Next: moreish train p" in again.out
    assert "with sources=['a.jsonl', 'b.txt']" in moreish("prepare", "a.jsonl", "--out", "p").err


def test_ladder_on_prepared_text(moreish: Moreish, prepared: Path) -> None:
    arguments = ["ladder", "p", "--epochs", "0.01", "--rungs", "counts,bigram", "--out", "l"]
    result = moreish(*arguments, "--test", "--json")
    assert result.status == 0, result.err
    assert [rung["rung"] for rung in result.json["rungs"]] == ["counts", "bigram"]
    assert moreish("train", "p", "--model", "ngram", "--set", "model.add_k=0.01", "--out", "r").out
    alone = moreish("eval", "r", "--json").json["splits"]["val"]["loss"]
    assert result.json["rungs"][0]["splits"]["val"]["loss"] == pytest.approx(alone)
    assert moreish("train", "p", "--as", "text", "--model", "ngram", "--out", "t").status == 0
    for wrong in (["--as", "lines"], ["--split", "lecture"]):
        assert "prepare, which decided data." in moreish(*arguments, *wrong, "--out", "m").err


def test_prepare_and_train_from_python(tmp_path: Path) -> None:
    import moreish

    (tmp_path / "a.jsonl").write_bytes(to_json_lines(stories(300)))
    done = moreish.prepare(tmp_path / "a.jsonl", out=tmp_path / "p", tokenizer="byte", workers=1)
    assert done.new and done.prepared.manifest.vocabulary == 257
    settings = {"model": {"layers": 1, "heads": 2, "width": 16, "context": 32}}
    run = moreish.train(
        tmp_path / "p", model="gpt", steps=2, weights={"a": 1.0}, settings=settings,
        out=tmp_path / "r",
    )  # fmt: skip
    assert run.record.data.sources == done.prepared.manifest.training_tokens()


@pytest.mark.soak
def test_run_reads_the_dataset_only_for_training_data(moreish: Moreish, prepared: Path) -> None:
    weights = ["--weight", "a=3", "--weight", "b=1"]
    result = moreish("train", "p", "--out", "r", *weights, *TINY_GPT)
    assert result.status == 0, result.err
    assert (
        "prepared text; batches from a 75.0%" in result.out and "by chunk; duplicates" in result.out
    )
    assert not Path("r/data/train.npy").exists() and Path("r/data/val.npy").exists()
    assert moreish("train", "p", "--out", "s", *TINY_GPT).status == 0
    assert moreish("compare", "r", "s").status == 0
    assert '"train"' in moreish("eval", "s", "--json").out, "it is small enough"
    assert moreish("train", "p", "--init-from", "r", "--steps", "2", "--out", "t").status == 0
    recipe = moreish("plan", "p", "--steps", "3").out
    Path("recipe.toml").write_text(recipe)
    assert moreish("train", "--config", "recipe.toml", "--out", "u", *TINY_GPT[2:4]).status == 0
    assert moreish("novelty", "r", "-n", "2").status == 0
    counted = moreish("train", "p", "--model", "kneser-ney", "--out", "k", *weights)
    assert "The n-gram counts ignore --weight" in counted.out
    prepared.rename("elsewhere")
    assert moreish("sample", "r", "--max-tokens", "5").status == 0
    assert set(moreish("eval", "r", "--json").json["splits"]) == {"val"}
    gone = moreish("novelty", "r", "-n", "1")
    assert "the training data of r are missing" in gone.err and "r/data/train.json" in gone.err
    place = Path("r/data/train.json")
    place.write_text(place.read_text().replace(str(prepared.resolve()), "elsewhere"))
    assert moreish("eval", "r").status == 0
    arguments = ["a.jsonl", "b.txt", "--out", "elsewhere", "--tokenizer", "char", "--overwrite"]
    assert moreish("prepare", *arguments, "--hold-out", "0.2").status == 0
    assert "holds other data than those that r was trained on" in moreish("novelty", "r").err


def test_resumed_training_on_prepared_text_gives_the_same_weights(
    moreish: Moreish, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moreish.training.trainer import Trainer

    options = ["--weight=a=1", "--weight=b=1", *TINY_GPT, "--set=train.checkpoint_every=1"]
    assert moreish("train", "p", "--out", "whole", *options).status == 0
    step, calls = Trainer.train_step, []

    def stopping(self: Trainer) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopping)
        assert moreish("train", "p", "--out", "cut", *options).status == 130
    assert moreish("train", "--resume", "cut").status == 0
    weights = [Path(run, "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "p", "--tokenizer", "byte"],
            "which decided data.tokenizer: leave it out",
        ),
        (["train", "p", "--split", "lecture", "--clean"], "data.clean, data.split: leave them out"),
        (["train", "p", "--weight", "a=1"], "b has none; the sources are a, b"),
        (["train", "p", "--weight", "a"], "--weight a: write NAME=SHARE"),
        (["train", "p", "--set", "train.batch_size=all", *TINY_GPT], "too large for one batch"),
        (
            ["train", "a.jsonl", "--weight", "a=1"],
            "--weight needs a folder made by moreish prepare",
        ),
        (["doctor", "p"], "p is prepared text, for train, plan, ladder and lr-range"),
        (["tokenize", "p"], "p is prepared text"),
        (["prepare", "p", "--out", "q"], "p is prepared text"),
    ],
)
def test_options_that_prepared_text_rejects(
    moreish: Moreish, prepared: Path, arguments: list[str], message: str
) -> None:
    result = moreish(*arguments)
    assert result.status == 2 and message in result.err


def test_large_training_data_are_neither_searched_nor_scored(
    moreish: Moreish, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moreish.runs import folder as run_folder
    from moreish.runs import run

    assert moreish("train", "p", "--out", "r", *TINY_GPT).status == 0
    monkeypatch.setattr(run_folder, "MAX_SEARCHABLE_TOKENS", 1000)
    monkeypatch.setattr(run, "MAX_SCORED_TRAINING_TOKENS", 1000)
    assert "can be searched" in moreish("novelty", "r", "-n", "1").err
    assert "can be searched" in moreish("sample", "r", "--new-only").err
    assert "is not scored" in moreish("eval", "r").out


def test_unfinished_dataset_is_rejected_by_train(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.jsonl").write_bytes(to_json_lines(stories(200)))

    def interrupt(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "encode_block", interrupt)
        result = moreish("prepare", "a.jsonl", "--out", "p", "--tokenizer", "byte")
    assert result.status == 130 and "Run the same command to resume" in result.out
    assert "the preparation of p is unfinished" in moreish("train", "p").err


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt.zst").write_bytes(b"")
    for given, library, extra in (
        (tmp_path / "a.txt.zst", "zstandard", "large"), ("hf:x", "datasets", "hub"),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MoreishError, match=rf"{library}\): pip install 'moreish\[{extra}\]'"):
            prepare(tmp_path / "out", given)
