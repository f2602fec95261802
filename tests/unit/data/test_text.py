from pathlib import Path

import pytest

from conftest import STORY
from moreish.data.text.corpus import Corpus, read_corpus
from moreish.data.text.guess_kind import sign_of_text
from moreish.errors import MoreishError


def read(tmp_path: Path, content: bytes | str, **options: str):
    path = tmp_path / "source.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_corpus(str(path), **options)


def documents(corpus: Corpus) -> list[str]:
    if corpus.kind == "lines":
        return [item for items in corpus.items() for item in items]
    return ["".join(text) for text in corpus.texts]


def test_kind_is_guessed(tmp_path: Path) -> None:
    assert read(tmp_path, "emma\nolivia\nava\n").kind == "lines"
    assert read(tmp_path, STORY).kind == "text"
    assert read(tmp_path, "one line without an end").kind == "text"
    assert read(tmp_path, "word " * 500 + "\n" + "word " * 400).kind == "text"
    assert read(tmp_path, Path(__file__).read_bytes()).kind == "text"


def test_kind_guess_is_noted_and_can_be_overridden(tmp_path: Path) -> None:
    assert "--as text" in " ".join(read(tmp_path, "a\nb\n").notes)
    assert documents(read(tmp_path, "a\nb\n", kind="text")) == ["a\nb\n"]
    assert read(tmp_path, STORY, kind="lines").kind == "lines"


def test_kind_of_built_in_data_sets_is_guessed(shakespeare: str, lecture_names: list[str]) -> None:
    assert sign_of_text([[shakespeare]]) == "blank lines"
    assert sign_of_text([["\n".join(lecture_names)]]) == ""


def test_items_are_stripped_and_empty_lines_dropped(tmp_path: Path) -> None:
    corpus = read(tmp_path, " emma \n\n\tolivia\n   \nava", kind="lines")
    assert documents(corpus) == ["emma", "olivia", "ava"]
    assert "left out 2 empty lines" in corpus.notes


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    assert documents(read(tmp_path, "a\u2028b\nc\x0bd\n", kind="lines")) == ["a\u2028b", "c\x0bd"]


def test_bom_and_windows_line_ends_are_removed_and_noted(tmp_path: Path) -> None:
    corpus = read(tmp_path, b"\xef\xbb\xbfemma\r\nolivia\r\n", kind="lines")
    assert documents(corpus) == ["emma", "olivia"]
    assert "byte order mark" in corpus.notes[0]
    assert "line ends" in corpus.notes[1]


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "utf8", "utf_8", "utf-8-sig"])
def test_bom_is_removed_for_any_spelling_of_utf8(tmp_path: Path, encoding: str) -> None:
    raw = b"\xef\xbb\xbfemma\nolivia\n"
    assert documents(read(tmp_path, raw, kind="lines", encoding=encoding)) == ["emma", "olivia"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "UTF-32LE", "utf_16", "utf-32"])
def test_bom_of_wide_encodings_is_removed(tmp_path: Path, encoding: str) -> None:
    text = "emma\nolivia\n"
    marked = text if encoding in ("utf_16", "utf-32") else "\ufeff" + text
    corpus = read(tmp_path, marked.encode(encoding), kind="lines", encoding=encoding)
    assert documents(corpus) == ["emma", "olivia"]


def test_line_ends_of_several_files_give_one_note(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.txt").write_bytes(b"emma\r\nolivia\r\n")
    notes = read_corpus(str(tmp_path)).notes
    assert sum("line ends" in note for note in notes) == 1


def test_run_folders_are_left_out(tmp_path: Path) -> None:
    """A folder may hold runs of an earlier `moreish train .`."""
    (tmp_path / "a.txt").write_text("first\n\n" * 9)
    run = tmp_path / "runs" / "a-gpt"
    (run / "checkpoints" / "step-000001").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (run / "samples.txt").write_text("samples")
    (run / "checkpoints" / "step-000001" / "state.json").write_text("{}")
    corpus = read_corpus(str(tmp_path))
    assert documents(corpus) == ["first\n\n" * 9]
    assert "left out 1 run folder" in corpus.notes
    with pytest.raises(MoreishError, match="is a run, not a text"):
        read_corpus(str(run))


def test_list_with_a_few_empty_lines_is_a_list(tmp_path: Path) -> None:
    names = "\n".join(f"name{i}" for i in range(58))
    assert read(tmp_path, names + "\n\n" + "last\n\nnow\n").kind == "lines"


def test_decoding_error_names_the_offset(tmp_path: Path) -> None:
    with pytest.raises(
        MoreishError, match=r"byte 0xff at offset 5; .*--encoding cp1252; .*moreish doctor"
    ):
        read(tmp_path, b"emma\n\xff\n")
    with pytest.raises(MoreishError, match=r"byte 0xff at offset 8"):
        read(tmp_path, b"\xef\xbb\xbfemma\n\xff\n")
    assert documents(read(tmp_path, b"caf\xe9\nth\xe9\n", encoding="latin-1")) == ["café", "thé"]


def test_utf16_is_recognized(tmp_path: Path) -> None:
    raw = "emma\nolivia\n".encode("utf-16")
    with pytest.raises(MoreishError, match="--encoding utf-16"):
        read(tmp_path, raw)
    corpus = read(tmp_path, raw, encoding="utf-16")
    assert documents(corpus) == ["emma", "olivia"]
    assert any("byte order mark" in note for note in corpus.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b" \n\n \n", "empty"),
        (b"a\0b\n", "NUL at character 1"),
    ],
)
def test_files_without_text_are_rejected(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(MoreishError, match=message):
        read(tmp_path, content)


def test_unknown_encoding(tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match="unknown encoding 'utf-99'"):
        read(tmp_path, "a", encoding="utf-99")


def test_folder_is_read_in_order_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("second\n" * 9)
    (tmp_path / "a.txt").write_text("first\n\n" * 9)
    (tmp_path / ".hidden").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\0")
    corpus = read_corpus(str(tmp_path))
    assert documents(corpus) == ["first\n\n" * 9, "second\n" * 9]
    assert corpus.has_boundary
    assert any("picture.png" in note for note in corpus.notes)


def test_folder_without_text_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match="no text files"):
        read_corpus(str(tmp_path))


def test_encoding_of_a_folder_is_guessed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff\0")
    (tmp_path / "b.txt").write_bytes("“façade”, naïve".encode("cp1252"))
    with pytest.raises(MoreishError, match=r"no text files.*perhaps --encoding cp1252 for b\.txt"):
        read_corpus(str(tmp_path))
    assert len(read_corpus(str(tmp_path), encoding="cp1252").left_out) == 1


def test_missing_source_suggests_the_nearest() -> None:
    with pytest.raises(MoreishError, match="did you mean 'shakespeare'"):
        read_corpus("shakespear")


def test_stripped_whitespace_is_noted(tmp_path: Path) -> None:
    corpus = read(tmp_path, b"  emma\nolivia \nava\n")
    assert documents(corpus) == ["emma", "olivia", "ava"]
    assert any("whitespace" in note for note in corpus.notes)
    assert not any("whitespace" in note for note in read(tmp_path, b"emma\nava\n").notes)
