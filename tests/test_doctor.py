"""The data doctor: what it finds, where, and that what it names mends it."""

import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moreish
from conftest import Moreish
from moreish.data import doctor, mend
from moreish.data.checks import Seen
from moreish.data.decode import Text, text_of
from moreish.data.doctor import Diagnosis, diagnose, examine, guess_encoding
from moreish.data.lines import chosen_lines, short_lines, whole_lines
from moreish.data.mend import Mending, mended
from moreish.data.text import Corpus, read_corpus

PROSE = [
    f"In chapter {n} nothing much happens to anybody, and it takes its time." for n in range(300)
]
"""Lines that are near copies of each other, and nothing else."""


@pytest.fixture
def moreish_(moreish: Moreish) -> Moreish:
    """The command line; the package has its name here."""
    return moreish


WORDS = ["amber", "birch", "cedar", "dogwood", "elder", "fir", "ginkgo", "hazel", "ivy", "juniper",
         "kapok", "larch", "maple"]  # fmt: skip
VARIED = [
    " ".join(WORDS[(n * step + place) % 13] for place, step in enumerate((1, 3, 5, 7, 11, 2, 4, 6)))
    + " " + WORDS[n // 13 % 13] + WORDS[n // 169]
    for n in range(600)
]  # fmt: skip
"""Running text, all of its lines different, with nothing to find in it."""


def found_in(path: Path, lines: list[str], **options: object) -> dict[str, doctor.Finding]:
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    return {finding.name: finding for finding in diagnose(str(path), **options).findings}  # type: ignore[arg-type]


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert found_in(tmp_path / "a.txt", VARIED) == {}


@pytest.mark.parametrize(
    ("name", "line", "count", "grave"),
    [
        ("control characters", "a bell \x07 and another \x07", 2, False),
        ("invisible characters", "zero\u200bwidth", 1, False),
        ("lost characters", "what was it \ufffd", 1, True),
        ("mojibake", "schÃ¶n und grÃ¼n", 2, True),
        ("mojibake", "itâ€™s", 1, True),
        ("secrets", "password = hunter2hunter2", 1, True),
        ("secrets", "-----BEGIN RSA PRIVATE KEY-----", 1, True),
        ("secrets", "AKIAIOSFODNN7EXAMPLE", 1, True),
        ("e-mail addresses", "write to anna.schmidt@example.org, or to bob@example.com", 2, False),
        ("telephone numbers", "call +49 30 1234 5678 or (030) 123-45 67", 2, False),
        ("card numbers", "paid by 4111 1111 1111 1111", 1, True),
        ("white space", "here it ends   ", 1, False),
        ("long lines", "x" * 20_000, 1, False),
        ("not normalised", "cafe\u0301", 1, False),
        ("scripts", "Привет", 2, False),
        ("copies", VARIED[17], 1, False),
        ("near copies", VARIED[17].upper() + "!", 1, False),
        ("mojibake", "cafÃ©”", 1, True),
        ("mojibake", "itâ\x80\x99s Ã\x81rbol", 2, True),
        ("secrets", "DB_PASSWORD=hunter2hunter2", 1, True),
        ("secrets", "client_secret: 8f3kd93kd93k and api-key: 8f3kd93kd93k", 2, True),
        ("telephone numbers", "Call me at (555) 123-4567.", 1, False),
        ("telephone numbers", "+491712345678", 1, False),
        ("line ends", "the end of this line is another\r", 1, False),
    ],
)
def test_findings_have_counts_lines_and_examples(
    tmp_path: Path, name: str, line: str, count: int, grave: bool
) -> None:
    found = found_in(tmp_path / "a.txt", [*VARIED[:400], line, *VARIED[400:]], kind="text")
    finding = found[name]
    assert (finding.count, finding.grave, finding.where) == (count, grave, "line 401")
    if name in ("secrets", "card numbers"):
        assert "…" in finding.example  # it is not shown to everybody who reads a report
        assert "hunter2" not in finding.example and "8f3k" not in finding.example
    elif name != "scripts":
        assert finding.example[:20].strip("'…") in line.rstrip("\r")


@pytest.mark.parametrize(
    "line",
    [
        "Secret: fearfully",
        "on 2024-01-15 10 of them came",
        "number 123456789012",
        "4111 1111 1111 1112",
        "0.4111111111111111 0.3456789123456789",
        "0000000000000000",
        "192.168.100.200 and 10.120.130.140",
        "1º 2ª 5 µm",
        "naïve façade, Ærø, über",
        "at the token: nothing",
        "the key is under the mat",
    ],
)
def test_what_only_looks_alike_is_left_in_peace(tmp_path: Path, line: str) -> None:
    found = found_in(tmp_path / "a.txt", [*VARIED, line])
    assert set(found) <= {"rare characters"}


def test_vowel_signs_matter(tmp_path: Path) -> None:
    lines = [f"{word} और फिर बहुत दिनों तक कुछ भी नहीं हुआ, कुछ नहीं" for word in ("की", "के", "का", "कु")]
    assert "near copies" not in found_in(tmp_path / "a.txt", [*VARIED, *lines])


def test_leakage_of_running_text(tmp_path: Path) -> None:
    found = found_in(tmp_path / "a.txt", [*VARIED, *VARIED[:80]])
    assert found["leakage"].grave and found["leakage"].mend == "--dedup"
    assert found["leakage"].count == 68  # of the last tenth, which ends at line 680
    assert found["copies"].count == 80
    diagnosis = diagnose(str(tmp_path / "a.txt"))
    diagnosis.save(tmp_path / "doctor.json")
    assert Diagnosis.load(tmp_path / "doctor.json") == diagnosis


def test_leakage_goes_by_characters_as_the_split_does(tmp_path: Path) -> None:
    lines = ["a"] * 9000 + VARIED[:500] + VARIED[:500]
    leaked = found_in(tmp_path / "a.txt", lines, kind="text")["leakage"]
    text = "\n".join(lines)
    held = text[int(0.9 * len(text)) :].count("\n")
    assert abs(leaked.count - held) <= 1


def test_no_leakage_is_claimed_from_the_beginning_alone(tmp_path: Path) -> None:
    corpus = Corpus.of(
        ["\n".join([*VARIED, *VARIED[:80], *(f"{n} " * 20 for n in range(9999))])], "text"
    )
    names = {finding.name for finding in examine(corpus, most=60_000).findings}
    assert "copies" in names and "leakage" not in names and "rare characters" not in names


def test_secrets_are_shown_by_no_other_finding(tmp_path: Path) -> None:
    line = "password=hunter2hunter2 bob@example.com \x07 and so on for a while, a while"
    found = found_in(tmp_path / "a.txt", [*VARIED, line, line, "x" * 12_000 + line])
    assert {"e-mail addresses", "control characters", "copies", "long lines"} <= set(found)
    assert not [finding for finding in found.values() if "hunter2" in finding.example]


def test_lines_and_line_ends_are_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x\ny\n")
    (tmp_path / "b.txt").write_bytes(b"a\r\nb\r\nc\rd\n")
    diagnosis = diagnose(str(tmp_path), "text")
    assert diagnosis.lines == 6
    ends = {f.what[20:25].strip(): (f.count, f.where) for f in diagnosis.findings[:2]}
    b = tmp_path / "b.txt"
    assert ends == {"CR LF": (2, f"{b}, line 1"), "CR in": (1, f"{b}, line 3")}


def test_a_line_that_is_too_long_to_be_held(tmp_path: Path) -> None:
    found = found_in(tmp_path / "a.txt", ["begin begin begin begin begin " + "x" * 4_500_000])
    assert set(found) == {"long lines"}
    assert found["long lines"].count == 1 and "4,500,030" in found["long lines"].what
    assert found["long lines"].example.startswith("begin begin")


@pytest.mark.parametrize(
    "line",
    ["-eyJ" * 250_000, "a" * 1_000_000, "e" + "\u0301\u0327" * 250_000, "1-" * 500_000,
     "".join(map(chr, range(0x3400, 0xD7FF))) * 2, "Ã" * 300_000, "@a." * 300_000,
     "password:" * 100_000, "-----BEGIN " * 90_000, "+1" * 500_000],
    ids=range(10),
)  # fmt: skip
def test_no_line_takes_for_ever(tmp_path: Path, line: str) -> None:
    began = time.process_time()
    found_in(tmp_path / "a.txt", [*VARIED, line], mending=Mending(nfc=True))
    assert time.process_time() - began < 20  # a second or two; quadratic time takes minutes


def test_figures_and_copies_without_end_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line again and again, and lines without a letter, which once were never forgotten."""
    kept: list[int] = []

    class Watched(doctor.Copies):
        def see(self, seen: Seen) -> None:
            super().see(seen)
            kept.append(self.kept)

    monkeypatch.setattr(moreish.data.copies, "REMEMBERED", 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(doctor, "Copies", Watched)
    texts = ["\n".join(["12:34"] * 5000), "\n".join(f"{n},{n * 7}" for n in range(20_000))]
    examine(Corpus.of(["\n".join(texts)], "lines"))
    assert 0 < max(kept) <= 2000
    (copies,) = (f for f in examine(Corpus.of(texts[:1], "lines")).findings if f.name == "copies")
    assert (copies.count, copies.about) == (4999, False)  # one line is not too many


def test_commands_keep_the_options_that_were_given(moreish_: Moreish, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join([*VARIED, *VARIED, "naïve"]).encode("latin-1"))
    told = moreish_("doctor", path, "--as", "text", "--encoding", "latin-1", "--clean").out
    assert f"moreish train {path} --as text --encoding latin-1 --clean --dedup" in told


def test_other_alphabets_are_not_taken_for_latin(moreish_: Moreish, tmp_path: Path) -> None:
    for encoding in ("cp1251", "shift_jis", "koi8-r"):
        path = tmp_path / "a.txt"
        path.write_bytes(("привет, как дела\n" * 99).encode(encoding))
        assert guess_encoding(path) is None
        refused = moreish_("doctor", path)
        assert refused.status == 2 and "is not utf-8" in refused.err
    assert "unknown encoding" in moreish_("doctor", path, "--encoding", "foo").err


def test_leakage_of_the_lectures_split() -> None:
    """makemore's shuffle leaves copies of names on both sides: counted apart from us."""
    corpus = read_corpus("names-lecture")
    names = [name for names in corpus.items() for name in names]
    sides = moreish.data.split.split_items_as_lecture(len(names))  # type: ignore[attr-defined]
    train = {names[place] for place in sides["train"]}
    leaked = sum(names[place] in train for side in ("val", "test") for place in sides[side])
    (finding,) = [f for f in examine(corpus, "lecture").findings if f.name == "leakage"]
    assert finding.count == leaked > 700
    assert finding.mend == "--split seeded"
    assert not [f for f in examine(corpus, "seeded").findings if f.name == "leakage"]


def test_rare_characters(tmp_path: Path) -> None:
    found = found_in(tmp_path / "a.txt", [*VARIED, "漢字かな交じり文"])
    assert found["rare characters"].mend == "--min-count 5"
    assert found["rare characters"].where == "line 601"
    after = found_in(
        tmp_path / "a.txt", [*VARIED, "漢字かな交じり文"], mending=Mending(min_count=5)
    )
    assert "rare characters" not in after


def test_what_is_named_mends_it(tmp_path: Path) -> None:
    lines = [*VARIED, "zero\u200bwidth \x07", "cafe\u0301", "ab漢字かな交じり文", *VARIED[:40]]
    before = found_in(tmp_path / "a.txt", lines)
    mending = {finding.mend for finding in before.values()} - {""}
    assert mending == {"--clean", "--nfc", "--min-count 5", "--dedup"}
    how = Mending(clean=True, nfc=True, min_count=5, dedup=True)
    assert not {f.mend for f in found_in(tmp_path / "a.txt", lines, mending=how).values()} - {""}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_other_encodings_are_read_and_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    quoted = [] if encoding == "latin-1" else ["naïve “façade”"]
    path.write_bytes("\n".join([*VARIED, *quoted, "naïve façade"]).encode(encoding))
    guess = guess_encoding(path)
    assert guess is not None
    assert "naïve" in path.read_bytes().decode(guess)
    (first, *_) = diagnose(str(path)).findings
    assert first.name == "encoding" and first.grave and first.mend == f"--encoding {guess}"
    moreish.data.text.read_corpus(str(path), None, guess)  # type: ignore[attr-defined]


def test_places_name_the_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(VARIED[:300]))
    (tmp_path / "b.txt").write_text("\n".join([*VARIED[300:], "write to bob@example.com"]))
    (finding,) = diagnose(str(tmp_path)).findings
    assert finding.where == f"{tmp_path / 'b.txt'}, line 301"


def test_memory_is_bounded_by_an_even_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line twice: from an eighth of them the doctor knows nearly how many there are."""
    monkeypatch.setattr(moreish.data.copies, "REMEMBERED", 500)  # type: ignore[attr-defined]
    lines = [f"{a} {b} {c} and so on until it is long enough" for a in WORDS for b in WORDS
             for c in WORDS]  # fmt: skip
    found = found_in(tmp_path / "a.txt", lines + lines, kind="text")["copies"]
    assert found.about
    assert abs(found.count - len(lines)) < 0.15 * len(lines)


def test_only_the_beginning_is_looked_at_where_that_is_asked() -> None:
    corpus = Corpus.of(["\n".join([*VARIED, "bob@example.com"])], "text")
    assert not examine(corpus, most=1000).findings
    assert not examine(corpus, most=1000).whole
    assert examine(corpus).findings and examine(corpus).whole


def test_a_training_says_what_the_doctor_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join([*VARIED, "zero\u200bwidth"]))
    run = moreish.train(source, model="bigram", steps=2, out=tmp_path / "run")
    shown = capsys.readouterr().out
    assert "characters that cannot be seen" in shown and "--clean" in shown
    assert "moreish doctor" in shown
    kept = Diagnosis.load(run.path / "doctor.json")
    assert [finding.name for finding in kept.findings] == ["invisible characters"]
    mended = moreish.train(source, model="bigram", steps=2, out=tmp_path / "clean", clean=True)
    assert "cannot be seen" not in capsys.readouterr().out
    assert run.record.data.vocabulary - mended.record.data.vocabulary == 1
    assert "left out control and invisible characters" in mended.record.data.notes
    moreish.train("names", model="bigram", steps=2, out=tmp_path / "names")
    assert not (tmp_path / "names" / "doctor.json").exists()


def test_pages_show_text_as_text(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join([*VARIED, "<script>x bob@example.com"]))
    diagnosis = moreish.doctor(source)
    moreish.api.doctor_page(diagnosis, tmp_path / "page.html")  # type: ignore[attr-defined]
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page


# Mending


def through(pieces: list[str], how: Mending, kind: str = "text") -> str:
    return "".join(mended([text_of(*pieces)], how, kind)[0])  # type: ignore[arg-type]


pieces_of_text = st.lists(st.text(alphabet="ab\n e\u0301\u0327가\u1100\u1161漢", max_size=12))


@given(pieces_of_text)
def test_normal_forms_do_not_depend_on_the_pieces(pieces: list[str]) -> None:
    assert through(pieces, Mending(nfc=True)) == unicodedata.normalize("NFC", "".join(pieces))


@given(st.lists(st.text(alphabet="ab\n ", max_size=6)), st.integers(1, 9))
@settings(max_examples=300)
def test_lines_are_the_same_in_parts(pieces: list[str], longest: int) -> None:
    whole = "".join(pieces).split("\n")
    assert [line for lines in whole_lines(pieces) for line in lines] == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moreish.data.lines, "LONGEST", longest)  # type: ignore[attr-defined]
        told, begun = [], ""
        for lines, goes_on in short_lines(pieces):
            lines = [begun + lines[0], *lines[1:]]
            begun = lines.pop() if goes_on else ""
            told += lines
        assert told == whole
        assert "".join(chosen_lines(pieces, lambda line: True)) == "".join(pieces)


@given(st.lists(st.lists(st.sampled_from(["ab", " ab", "b", "", "abc"])), min_size=1, max_size=3))
def test_copies_go_wherever_they_stand(files: list[list[str]]) -> None:
    texts = [text_of("\n".join(lines)) for lines in files]
    seen: set[str] = set()
    expected = []
    for lines in files:
        kept = []
        for line in lines:
            if not line.strip() or line.strip() not in seen:
                kept.append(line)
            seen.add(line.strip())
        expected.append("\n".join(kept))
    for _ in range(2):  # whenever they are gone through
        assert ["".join(text) for text in mended(texts, Mending(dedup=True), "lines")] == expected


def test_short_lines_of_running_text_may_come_again() -> None:
    line = "x" * mend.REMARKABLE
    assert through(["yes\nyes\n", line, "\n", line, "\nyes"], Mending(dedup=True)) == (
        f"yes\nyes\n{line}\nyes"
    )


def test_rare_characters_go_from_text_and_take_their_items_with_them() -> None:
    assert through(["abz", "ab"], Mending(min_count=2)) == "abab"
    assert through(["ab\nabz\nab"], Mending(min_count=2), "lines") == "ab\nab"
    # Leaving one out makes others rare; and what stands around items is left out anyway.
    assert through(["ab\nab\nac\ncz\nab\t"], Mending(min_count=2), "lines") == "ab\nab\nab\t"
    # Copies go first.
    assert through(["a\nz\nz\nba\nb"], Mending(min_count=2, dedup=True), "lines") == "a\nba\nb"


def test_mending_reads_whenever_it_is_gone_through() -> None:
    times = []

    def read() -> object:
        times.append(1)
        return iter(["a\x07b"])

    (text,) = mended([Text(read)], Mending(clean=True), "text")  # type: ignore[arg-type]
    assert ["".join(text), "".join(text)] == ["ab", "ab"]
    assert len(times) == 2


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc\ndef\n" * 2)
    with pytest.raises(moreish.MoreishError, match="mending leaves nothing"):
        read_corpus(str(path), "lines", "utf-8", Mending(min_count=9))
