"""Texts are read and encoded in chunks, with the same result as all at once."""

import random
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import STORY, Moreish
from moreish.config import resolve
from moreish.data import encode, token_dataset
from moreish.data.encode import encode_corpus
from moreish.data.text import decode
from moreish.data.text.corpus import Corpus, read_corpus
from moreish.data.token_dataset import TokenDataset, fingerprint
from moreish.errors import MoreishError
from moreish.tokenizers import tokenizer_builder
from moreish.training.setup import describe_dataset, set_up

HARD_TEXTS = {
    "running text": [STORY],
    "one line": ["word " * 30],
    "lines": ["\n".join(["emma", "olivia", "ava", "emma", "isabella"] * 4)],
    "line ends": ["emma\r\nolivia\rava\n\r\n\r\r\n mia \r\n" * 4 + "\r"],
    "blank lines": ["\n\n emma\n\n\t\n" + "\n olivia \t\n\n\nava\n" * 5 + "\n \n\n"],
    "wide": ["é€😀 日本\n" * 9 + "😀" * 9 + "ž\u2028\x0b\x85a\n" * 3],
    "texts": [STORY, "  \n", "é\n" * 20, STORY, "no line end", "\r\n"],
    "lists": ["emma\nolivia\n", "ava", "emma\n\nmia\n" * 5, "\n"],
}


def expected_splits(
    raw: list[str], kind: str, rule: str, name: str
) -> tuple[dict[str, list[int]], str]:
    """Compute the ids of each split and the alphabet without chunks, item by item."""
    texts = [text.replace("\r\n", "\n").replace("\r", "\n") for text in raw]
    texts = [text for text in texts if text.strip()]
    items = [line.strip() for text in texts for line in text.split("\n") if line.strip()]
    documents = items if kind == "lines" else texts
    boundary = kind == "lines" or len(documents) > 1
    alphabet = "".join(sorted(set("".join(documents))))
    if name == "char":
        number = {character: i + boundary for i, character in enumerate(alphabet)}
        ids = [[number[character] for character in text] for text in documents]
    else:
        ids = [[[b + boundary for b in c.encode()] for c in text] for text in documents]
        ids = [[b for c in text for b in c] if kind == "lines" else text for text in ids]
    if kind == "lines":
        parts = lecture_indices(items) if rule == "lecture" else seeded_indices(items)
        return {
            part: [0] + [token for i in places for token in [*ids[i], 0]]
            for part, places in parts.items()
        }, alphabet
    stream = [0] * boundary
    for text in ids:
        stream += [*text, *[0] * boundary]
    cuts = [int(share * len(stream)) for share in ([0.9] if rule == "lecture" else [0.9, 0.95])]
    cut = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    flat = [np.hstack(stream[first:last]).tolist() for first, last in cut]
    return dict(zip(["train", "val", "test"], flat, strict=False)), alphabet


def lecture_indices(items: list[str]) -> dict[str, list[int]]:
    places = list(range(len(items)))
    random.Random(42).shuffle(places)
    first, second = int(0.8 * len(items)), int(0.9 * len(items))
    return {"train": places[:first], "val": places[first:second], "test": places[second:]}


def seeded_indices(items: list[str]) -> dict[str, list[int]]:
    """Compute the seeded split of items directly."""
    shuffled = np.random.default_rng(42).permutation(len(items)).tolist()
    first = min(int(0.8 * len(items)), len(items) - 2)
    second = max(int(0.9 * len(items)), first + 1)
    parts = {"train": shuffled[:first], "val": shuffled[first:second], "test": shuffled[second:]}
    return {part: sorted(places) for part, places in parts.items()}


def limit_chunks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "CHUNK_BYTES", size)
    monkeypatch.setattr(encode, "CHUNK_TOKENS", size)
    monkeypatch.setattr(token_dataset, "CHUNK_TOKENS", size)


def check_splits(source: Path, raw: list[str], kind: str, encoding: str = "utf-8") -> None:
    corpus = read_corpus(str(source), kind, encoding)
    for name in ("char", "byte"):
        tokenizer = tokenizer_builder(name).build(
            [corpus.stats.alphabet], boundary=corpus.has_boundary
        )
        for rule in ("seeded", "lecture"):
            expected, alphabet = expected_splits(raw, kind, rule, name)
            assert corpus.stats.alphabet == alphabet
            splits = encode_corpus(corpus, tokenizer, rule, 42)
            assert {part: found.ids_N.tolist() for part, found in splits.items()} == expected
            facts = describe_dataset(corpus, tokenizer, splits)
            assert facts.sha256 == {
                part: fingerprint(TokenDataset(np.array(ids, np.uint32), items=kind == "lines"))
                for part, ids in expected.items()
            }


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("kind", ["lines", "text"])
@pytest.mark.parametrize("case", HARD_TEXTS)
def test_splits_do_not_depend_on_chunks(
    case: str, kind: str, chunk_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = HARD_TEXTS[case]
    if kind == "lines" and case == "one line":
        raw = ["word " * 30, "\nb\nc\nd\n" * 4]
    limit_chunks(chunk_size, monkeypatch)
    for number, text in enumerate(raw):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    check_splits(tmp_path / "0.txt" if len(raw) == 1 else tmp_path, raw, kind)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "gb18030",
     "shift_jis", "iso2022_jp"],
)  # fmt: skip
def test_any_encoding_in_chunks(
    encoding: str, chunk_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_chunks(chunk_size, monkeypatch)
    text = "日本\r\n語emma\r" * 9 + ("😀" * 5 if encoding[:2] in ("ut", "gb") else "")
    path = tmp_path / "source.txt"
    path.write_bytes(text.encode(encoding))
    check_splits(path, [text], "text", encoding)
    mark = decode.BOMS.get(encoding)
    if mark:
        path.write_bytes(mark + text.encode(encoding))
        check_splits(path, [text], "text", encoding)


@settings(deadline=None, max_examples=40)  # writing files takes time
@given(
    texts=st.lists(st.text("ab é😀\r\n\t\n", min_size=40, max_size=80), min_size=1, max_size=3),
    chunk_size=st.integers(1, 5),
)
def test_random_texts_in_chunks(texts: list[str], chunk_size: int) -> None:
    if not "".join(texts).strip():
        return
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        limit_chunks(chunk_size, patch)
        for number, text in enumerate(texts):
            (Path(folder) / f"{number}.txt").write_bytes(text.encode())
        check_splits(Path(folder), texts, "text")


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 1 << 20])
def test_decoding_errors_name_the_offset_in_any_chunks(
    chunk_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_chunks(chunk_size, monkeypatch)
    path = tmp_path / "source.txt"
    for raw, encoding, message in (
        ("aé€😀".encode() + b"\xff\n", "utf-8", "byte 0xff at offset 10;"),
        ("aé€😀".encode() + b"\xf0\x9f\x98a", "utf-8", "byte 0xf0 at offset 10;"),
        ("aé€😀".encode()[:-1], "utf-8", "byte 0xf0 at offset 6;"),
        ("é\r\n\0".encode(), "utf-8", "NUL at character 3:"),
        ("日本".encode("shift_jis") + b"\xff", "shift_jis", "byte 0xff at offset 4;"),
        ("abc".encode("utf-16") + b"\x00\xdc", "utf-16", "at offset 8;"),
        (b"abc+2AA-", "utf-7", "half a character"),
    ):
        path.write_bytes(raw)
        with pytest.raises(MoreishError, match=message):
            read_corpus(str(path), None, encoding)


def test_text_that_changes_while_it_is_read_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "source.txt"
    for kind, content in (("text", STORY), ("lines", "a\nb\nc\nd\n")):
        path.write_text(content)
        corpus = read_corpus(str(path), kind)
        tokenizer = tokenizer_builder("byte").build([], boundary=corpus.has_boundary)
        path.write_text(content + content)
        with pytest.raises(MoreishError, match="changed while it was read"):
            encode_corpus(corpus, tokenizer, "seeded", 42)


def test_large_text_needs_little_memory_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    path = tmp_path / "source.txt"
    with path.open("w") as file:
        for _ in range(80):
            file.write(STORY * 1000)
    assert path.stat().st_size > 30e6
    tracemalloc.start()
    try:
        ready = set_up(resolve({"data": {"source": str(path)}, "model": {"name": "ngram"}}))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert sum(len(split.ids_N) for split in ready.splits.values()) == path.stat().st_size
    assert list(place.iterdir()) == []  # unnamed temporary files cannot remain


def test_missing_temporary_folder_is_a_one_line_error(
    tmp_path: Path, moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    result = moreish("train", "names", "--steps", "1")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert str(tmp_path / "nowhere") in result.err


def test_corpus_in_memory_equals_corpus_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "source.txt"
    path.write_text("emma\nolivia\nava\nemma\n")
    facts = [
        read_corpus(str(path)).stats,
        Corpus.of(["emma", "olivia", "ava", "emma"], "lines").stats,
    ]
    assert [(f.documents, f.distinct, f.characters, f.longest) for f in facts] == [
        (4, 3, 17, 6)
    ] * 2
