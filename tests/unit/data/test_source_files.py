"""Files that people bring: tables, compressed files, documents with markup, several files."""

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from collections import UserList
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pypdf
import pytest
import zstandard

import moreish as moreish_package
from conftest import Moreish, Result
from moreish.data.text.corpus import Corpus, read_corpus
from moreish.data.text.files import TABLES
from moreish.errors import MoreishError

ITEMS = ["Wild Fig", "Mango Swirl", 'Salted "Butter"', "Crème, brûlée"]
REVIEWS = [{"id": n, "text": f"{item} is good", "stars": 5} for n, item in enumerate(ITEMS)]


def items_of(corpus: Corpus) -> list[str]:
    assert corpus.kind == "lines"
    return [item for items in corpus.items() for item in items]


def documents_of(corpus: Corpus) -> list[str]:
    assert corpus.kind == "text"
    return ["".join(text) for text in corpus.texts]


def write_csv(path: Path, rows: list[list[str]], separator: str) -> None:
    quoted = [[f'"{field.replace(chr(34), 2 * chr(34))}"' for field in row] for row in rows]
    path.write_text("\n".join(separator.join(row) for row in quoted) + "\n")


@pytest.mark.parametrize("suffix", TABLES)
def test_the_column_of_a_table(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"reviews{suffix}"
    if suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(REVIEWS), path)
    elif suffix == ".json":
        path.write_text(json.dumps(REVIEWS))
    elif suffix in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(row) + "\n" for row in REVIEWS))
    else:
        rows = [list(REVIEWS[0]), *([str(v) for v in row.values()] for row in REVIEWS)]
        write_csv(path, rows, "\t" if suffix == ".tsv" else ",")
    texts = [str(row["text"]) for row in REVIEWS]
    assert items_of(read_corpus(str(path))) == texts
    assert items_of(read_corpus(str(path), column="text")) == texts
    with pytest.raises(MoreishError, match=r"no column 'review' \(--column\)"):
        read_corpus(str(path), column="review")


def test_a_column_must_be_chosen_among_several(tmp_path: Path) -> None:
    rows = [{"title": f"title {n}", "review": f"review {n}"} for n in range(9)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(MoreishError) as error:
        read_corpus(str(path))
    assert "columns title, review" in str(error.value) and "--column 'review'" in str(error.value)
    assert items_of(read_corpus(str(path), column="title"))[8] == "title 8"
    assert items_of(read_corpus(str(path), "lines"))[0] == json.dumps(rows[0])  # as it is


def test_a_missing_column_lists_the_others_and_empty_values_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "tree.csv"
    path.write_text("id,surname\n" + "1,Schöne\n2,\n3,  \n4,Huber\n" * 9, encoding="utf-8")
    with pytest.raises(MoreishError, match=r"no column 'name' .*: its columns are id, surname$"):
        read_corpus(str(path), column="name")
    corpus = read_corpus(str(path), column="surname")
    assert "left out 18 empty values of the column" in corpus.notes
    assert corpus.name == "tree-surname" and corpus.stats.documents == 18


@pytest.mark.parametrize(
    ("beginning", "what"),
    [
        (b"\x89PNG\r\n\x1a\n\0", "a PNG image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
        (b"GIF89a\x01\0", "a GIF image"),
        (b"RIFF\x24\x0a\0\0WEBPVP8 ", "a WebP image"),
        (b"\0\0\0\x20ftypisom", "an MP4 video"),
        (b"ID3\x04\0\0", "an MP3 recording"),
        (b"\x7fELF\x02\x01", "a program"),
    ],
)
def test_binary_files_are_named(beginning: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(beginning + b"\x01\x02" * 40)
    with pytest.raises(MoreishError, match=f"is {what}.*, not text: leave it out"):
        read_corpus(str(path))


def test_a_table_on_standard_input_is_that_of_a_file(
    moreish: Moreish, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = "id,surname\n" + "".join(f"{n},Name{n % 40} {'ab'[n % 2]}\n" for n in range(90))

    def on_stdin(*arguments: str, text: str = table) -> Result:
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
        monkeypatch.setattr("sys.stdin", stdin)
        return moreish(*arguments)

    refused = on_stdin("doctor", "-")
    assert refused.status == 2
    assert "moreish: standard input is a table with the columns id, surname" in refused.err
    found = on_stdin("doctor", "-", "--column", "surname")
    assert found.out.startswith("text-surname: list of 90 lines"), found
    trained = on_stdin("train", "-", "--column", "surname", "--model", "ngram")
    assert trained.status == 0 and "moreish-" not in trained.out
    assert "All findings: moreish doctor - --column surname" in trained.out
    ladder = on_stdin("ladder", "-", "--column", "surname", "--rungs", "counts")
    assert ladder.status == 0 and "ladders/text-surname/counts" in ladder.out
    poem = "Roses, red\nViolets are blue\nSugar, sweet\n" * 9
    assert on_stdin("doctor", "-", text=poem).status == 0
    empty = on_stdin("doctor", "-", text=" \n")
    assert "moreish: standard input is empty" in empty.err


def test_a_table_without_a_header_is_a_list_of_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    lines = ["the book\tle livre", "big sky\tgrand ciel", "a cat\tun chat", "water\teau"] * 3
    path.write_text("\n".join(lines))
    assert items_of(read_corpus(str(path))) == lines
    assert items_of(read_corpus(str(path), column="2"))[:2] == ["le livre", "grand ciel"]


def test_fields_of_several_lines_are_documents(tmp_path: Path) -> None:
    texts = ["one\ntwo\n", "three\r\nfour", ""]
    path = tmp_path / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in [*texts, None]))
    assert documents_of(read_corpus(str(path))) == ["one\ntwo", "three\nfour"]
    assert items_of(read_corpus(str(path), "lines", column="text")) == ["one two", "three four"]


def test_a_json_list_of_strings_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(ITEMS))
    assert items_of(read_corpus(str(path))) == ITEMS
    for content, message in (
        ('{"a": 1}', "one JSON object"),
        ("[1, 2]", "neither a list of strings"),
        ("[1, 2", "not JSON"),
    ):
        path.write_text(content)
        with pytest.raises(MoreishError, match=message):
            read_corpus(str(path))
    assert documents_of(read_corpus(str(path), "text")) == ["[1, 2"]


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstandard.compress),
    ],
)
def test_compressed_files(suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    raw = compress(json.dumps(ITEMS).encode())
    (tmp_path / f"list.json{suffix}").write_bytes(raw)
    corpus = read_corpus(str(tmp_path / f"list.json{suffix}"))
    assert items_of(corpus) == ITEMS and corpus.name == "list"
    (tmp_path / "list.txt").write_bytes(raw)
    with pytest.raises(MoreishError, match=rf"rename it to end with {suffix}"):
        read_corpus(str(tmp_path / "list.txt"))


def test_documents_between_separators(tmp_path: Path) -> None:
    path = tmp_path / "eot.txt"
    path.write_text("<|startoftext|>one\n\n\ntwo<|endoftext|>\nthree<|endoftext|>\n")
    assert documents_of(read_corpus(str(path))) == ["one\n\n\ntwo", "three"]
    path.write_text("one\n---\ntwo\nmore\n---\nthree")
    assert documents_of(read_corpus(str(path), separator="\n---\n")) == [
        "one",
        "two\nmore",
        "three",
    ]


def test_separators_are_found_across_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a==b===c=d")
    for size in range(1, 9):
        monkeypatch.setattr("moreish.data.text.decode.CHUNK_BYTES", size)
        assert documents_of(read_corpus(str(path), separator="==")) == ["a", "b", "=c=d"]


HTML = """<!doctype html><html><head><title>T</title><style>p { color: red }</style></head>
<body><h1>Soup &amp; bread</h1><p>Boil <b>the</b>
water.</p><script>let x = 1;</script><ul><li>one<li>two</ul></body></html>"""


def test_html_has_no_markup(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(HTML)
    assert documents_of(read_corpus(str(path))) == ["Soup & bread\nBoil the water.\none\ntwo\n"]


def test_a_book(tmp_path: Path) -> None:
    path = tmp_path / "book.epub"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "META-INF/container.xml", '<container><rootfile full-path="x/a.opf"/></container>'
        )
        archive.writestr(
            "x/a.opf",
            '<package><item id="2" href="second.xhtml"/><item href="first.xhtml" id="1"/>'
            '<itemref idref="1"/><itemref linear="yes" idref="2"/></package>',
        )
        archive.writestr("x/first.xhtml", "<p>One day</p>")
        archive.writestr("x/second.xhtml", "<p>The end</p>")
    text = "".join(read_corpus(str(path), "text").texts[0])
    assert text.split() == ["One", "day", "The", "end"]
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(MoreishError, match=r"book\.epub is damaged"):
        read_corpus(str(path))


def test_a_word_document(tmp_path: Path) -> None:
    path = tmp_path / "letter.docx"
    body = (
        '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
        "<w:body><w:p><w:r><w:t>Dear</w:t><w:tab/><w:t>Ada &amp; co</w:t></w:r></w:p>"
        "<w:p><w:r><w:t>Yours</w:t></w:r></w:p></w:body></w:document>"
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", body)
    assert "".join(read_corpus(str(path), "text").texts[0]) == "Dear\tAda & co\nYours\n"


def test_subtitles(tmp_path: Path) -> None:
    path = tmp_path / "film.srt"
    path.write_text(
        "1\n00:00:01,000 --> 00:00:02,000\n<i>Hello</i>\n7\n\n"
        "2\n00:00:03,000 --> 00:00:04,000\nBye\n"
    )
    assert documents_of(read_corpus(str(path))) == ["Hello\n7\nBye\n"]


def test_a_pdf_without_text_says_what_to_do(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(tmp_path / "scan.pdf")
    with pytest.raises(MoreishError, match="recognize the text first"):
        read_corpus(str(tmp_path / "scan.pdf"))


@pytest.mark.parametrize(
    ("head", "advice"),
    [
        (b"%PDF-1.7", "rename it to end with .pdf"),
        (b"{\\rtf1", "save it as plain text"),
        (b"PK\x03\x04", "unpack it"),
        (b"\xd0\xcf\x11\xe0", "save it as plain text"),
    ],
)
def test_unsupported_files_are_refused(
    head: bytes, advice: str, tmp_path: Path, moreish: Moreish
) -> None:
    Path("notes.txt").write_bytes(head + b" and so on " * 50)
    for verb in ("train", "doctor"):
        result = moreish(verb, "notes.txt")
        assert result.status == 2 and advice in result.err and result.err.count("\n") == 1


def test_several_files_and_patterns(moreish: Moreish) -> None:
    for name, lines in (("a.txt", "anna\notto\n" * 9), ("b.txt", "bob\n" * 9)):
        Path(name).write_text(lines)
    expected = ["anna", "otto"] * 9 + ["bob"] * 9
    assert items_of(read_corpus(["a.txt", "b.txt"], "lines")) == expected
    assert items_of(read_corpus("*.txt", "lines")) == expected
    result = moreish("train", "a.txt", "b.txt", "--as", "lines", "--model", "ngram", "--out", "r")
    assert result.status == 0 and "a-and-1-more: 27 lines" in result.out
    with pytest.raises(MoreishError, match="no file, folder or built-in data set"):
        read_corpus("*.md")


def test_files_of_a_program_are_not_tables(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "main.py").write_text("import x\n" * 9)
    assert len(read_corpus(str(tmp_path)).texts) == 2


def test_texts_and_items_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = moreish_package.train(iter(["anna", "otto", "bob"] * 9), model="ngram", out="items")
    assert run.kind == "lines" and run.record.data.documents == 27
    run = moreish_package.train(text="One day. " * 90, model="ngram", out="text")
    assert run.kind == "text" and run.record.data.characters == 810
    assert moreish_package.doctor(text="One day. " * 90).characters == 810
    with pytest.raises(MoreishError, match="not both"):
        moreish_package.train("names", text="x")


class Frame(UserList[str]):
    """Iterates over the names of its columns, as a pandas.DataFrame does."""

    columns = ("review",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "the list of items is empty"),
        (["a", 1], "item 1 (counted from 0) is 1, not a string"),
        (["a", float("nan")], "item 1 (counted from 0) is nan, not a string: leave it out"),
        (["a", "b\nc"], r"item 1 (counted from 0), 'b\nc', has a line end: replace line ends by"),
        (["a\n"], "has a line end"),
        (["a", ""], "item 1 (counted from 0) is empty: leave out empty strings"),
        (["a", Path("b")], "item 1 (counted from 0) is the path b, and others are not"),
        (["a\ud800"], "character 1 of the items is half of a character (a lone surrogate, U+D800)"),
        (["here.txt", "b"], "'here.txt' is the name of a file, and 'b' is not: give files as path"),
        ({"review": 1}, "the source is a table: give one column of it"),
        (Frame(["review"]), "the source is a table: give one column of it"),
        ("one\ntwo\n" * 90, "a text itself goes in text=, and items in a list"),
        ("é" * 200, "a text itself goes in text=, and items in a list"),
    ],
)
def test_what_is_no_source_in_memory(
    source: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("anna")
    with pytest.raises(MoreishError) as error:
        moreish_package.train(source)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_errors_about_a_text_in_memory_call_it_the_text() -> None:
    for text, options, message in (
        ("", {}, "the text is empty: there is no text to train on"),
        ("a\0b\n" * 30, {}, "the text holds a NUL at character 1"),
        ("a,b\n" * 30, {"column": "c"}, "the text: no column 'c'"),
        ("abc\n" * 30, {"weights": {"a": 1.0}}, "weights= needs a folder made by moreish prepare"),
    ):
        with pytest.raises(MoreishError, match=re.escape(message)) as error:
            moreish_package.train(text=text, **options)  # type: ignore[arg-type]
        assert "moreish-" not in str(error.value)


def test_values_of_several_lines_are_documents_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.csv"
    values = ["ab cd"] * 90 + ['"x\ny"'] * 10
    path.write_text("\n".join(["review", *values]))
    corpus = read_corpus(str(path), column="review")
    assert len(documents_of(corpus)) == 100
    (note,) = corpus.notes
    assert note == (
        "each value is a document of running text, as 10 of 100 have several lines or more than "
        "250 characters (if not: --as lines and --column 'review')"
    )
    assert items_of(read_corpus(str(path), "lines", column="review"))[-1] == "x y"
    rows = ["id,review", *(f"{number},{value}" for number, value in enumerate(values))]
    path.write_text("\n".join(rows))
    run = moreish_package.train(path, column=2, model="ngram", out=tmp_path / "r")
    assert run.record.data.documents == 100
    assert "in 100 documents" in capsys.readouterr().out


PAIRS = ["I see the house.\tJe vois la maison.", "We need bread.\tIl nous faut du pain."]


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        ("English\tFrançais", True),
        ("source\ttarget text", False),  # nearly as long as what is below
        ("source\ttarget", True),
        ("I see it.\tJe le vois.", False),
        ("Good morning\tBonjour à tous", False),
        ("English\tEnglish", False),
    ],
)
def test_titles_above_columns_of_sentences_are_a_header(
    first: str, is_header: bool, tmp_path: Path
) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join([first, *PAIRS * 5]) + "\n", encoding="utf-8")
    corpus = read_corpus(str(path), "lines")
    assert (first not in items_of(corpus)) == is_header
    assert items_of(corpus)[-10:] == PAIRS * 5
    assert [note for note in corpus.notes if "header" in note] == (
        [f"left out the header of pairs.tsv: {first}"] * is_header
    )
    if is_header:
        with pytest.raises(MoreishError, match="choose the one to learn with --column"):
            read_corpus(str(path))


def test_the_error_for_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "places.txt").write_text("anna")
    nearest = f"did you mean '{tmp_path / 'places.txt'}'"
    with pytest.raises(MoreishError, match=re.escape(nearest)):
        read_corpus(str(tmp_path / "placs.txt"))
    with pytest.raises(MoreishError, match="did you mean 'shakespeare'"):
        read_corpus("shakespear")
    with pytest.raises(
        MoreishError, match=r"the built-in ones are cmudict, names, .* standard input, -$"
    ):
        read_corpus("Once upon a time")
