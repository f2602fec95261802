"""Overlaps with the data and nearest items, compared with brute force."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import STORY, Moreish
from moreish.evaluate.novelty import NearestItemIndex, OverlapIndex
from moreish.runs.run import Run


def longest_by_brute_force(text: str, data: str) -> int:
    pieces = (text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1))
    return max((len(piece.encode()) for piece in pieces if piece in data), default=0)


@given(st.text(alphabet="abé☕", max_size=14), st.text(alphabet="abé☕", min_size=1, max_size=60))
def test_the_longest_overlap_is_the_longest(text: str, data: str) -> None:
    found = OverlapIndex(data.encode()).longest_overlap(text)
    assert found.text in data
    assert found.text in text
    assert len(found.text.encode()) == longest_by_brute_force(text, data)
    at = data.encode()[found.place : found.place + len(found.text.encode())]
    assert at == found.text.encode()


def edits(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        new = [i]
        for j, y in enumerate(b, 1):
            new.append(min(row[j] + 1, new[-1] + 1, row[j - 1] + (x != y)))
        row = new
    return row[-1]


@given(
    st.lists(st.text(alphabet="abc", min_size=1, max_size=8), min_size=1, max_size=12),
    st.text(alphabet="abc", max_size=8),
)
def test_the_nearest_item_is_the_nearest(items: list[str], text: str) -> None:
    found, distance = NearestItemIndex(items).nearest(text)
    assert distance == min(edits(text, item) for item in items)
    assert found in items
    assert edits(text, found) == distance


def test_overlaps_do_not_span_items(small_run: Run) -> None:
    items = small_run.training_bytes.decode().split("\n")
    assert len(items) == small_run.record.data.split_documents["train"]
    joined = items[3] + items[4]
    assert len(small_run.novelty([joined])[0].overlap) < len(joined)
    known = small_run.novelty([items[7]])[0]
    assert known.known
    assert (known.distance, known.nearest, known.overlap) == (0, items[7], items[7])
    for found in small_run.novelty(["zz" + items[9][:4], items[5] + "zz"]):
        assert found.overlap in found.passage
        assert items[found.place - 1] == found.passage  # the item that contains the overlap
        assert not found.known


def test_running_text_names_the_line(text_run: Run) -> None:
    passage = STORY.split("\n")[2][4:40]
    found = text_run.novelty([passage])[0]
    assert found.known
    assert found.overlap == passage
    assert found.place % (STORY.count("\n")) == 3
    assert found.overlap in found.passage
    assert found.nearest is None


def test_max_overlap_bounds_overlaps(moreish: Moreish, text_run: Run) -> None:
    free = text_run.sample(3, max_tokens=40, temperature=1.5, seed=0)
    bound = max(len(t.overlap) for t in text_run.novelty(free)) - 1
    texts = text_run.sample(3, max_tokens=40, temperature=1.5, seed=0, max_overlap=bound)
    assert max(len(t.overlap) for t in text_run.novelty(texts)) <= bound
    result = moreish("sample", text_run.path, "--max-overlap", 1, "--max-tokens", 60)
    assert result.status == 2
    assert "texts found" in result.err


def test_the_command(moreish: Moreish, small_run: Run, text_run: Run) -> None:
    found = moreish("novelty", small_run.path, "-n", 30, "--json").json
    assert len(found["samples"]) == 30
    assert found["known_share"] == np.mean([t["known"] for t in found["samples"]])
    assert found["longest_overlap"] == max(len(t["overlap"]) for t in found["samples"])
    shown = moreish("novelty", small_run.path, "-n", 30)
    assert "are in the training data" in shown.out
    assert "nearest" in shown.out
    longest = found["longest_overlap"]
    top = max((t["overlap"] for t in found["samples"]), key=len)
    assert (top if longest <= 17 else top[:16]) in shown.out
    assert "line" in moreish("novelty", text_run.path, "-n", 2).out


def test_spans_of_running_text_are_named_by_file_and_line(moreish: Moreish) -> None:
    """A model of order 9 copies long spans; the files are found while they are as they were."""
    Path("notes").mkdir()
    for number, lines in enumerate(np.array_split(STORY.split("\n"), 3)):
        text = "".join(f"{number} {line}\n" for line in lines)
        Path(f"notes/{number}.txt").write_text(text)
    options = ("--model", "ngram", "--set", "model.order=12", "--set", "model.add_k=0.0001")
    moreish("train", "notes", "--as", "text", *options, "--out", "r")
    run = Run.open("r")
    found = run.novelty(run.sample(3, seed=0))
    out = moreish("novelty", "r", "-n", 3).out
    longest = max((text.overlap for text in found), key=len)
    place = next(
        f"notes/{n}.txt, line {content.count(chr(10), 0, content.find(longest)) + 1}"
        for n in range(3)
        if longest in (content := Path(f"notes/{n}.txt").read_text())
    )
    assert place[-17:] in out and longest[:20].replace("\n", "↵") in out
    assert "copy 50 characters or more in one piece" in out
    assert all(len(line) <= 80 for line in out.splitlines()[:4])
    shutil.rmtree("notes")
    assert "training line " in moreish("novelty", "r", "-n", 3).out


@pytest.mark.parametrize("kind", ["lines", "text"])
def test_new_only_excludes_known_texts(small_run: Run, text_run: Run, kind: str) -> None:
    run = small_run if kind == "lines" else text_run
    texts = run.sample(5, new_only=True, max_tokens=60, seed=0)
    assert not any(t.known for t in run.novelty(texts))
