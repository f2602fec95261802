"""The audit of a text: what it finds, where, and that its fixes work."""

import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moreish
from conftest import Moreish
from moreish.data.audit import audit as audit_module
from moreish.data.audit.audit import AuditReport, audit_corpus, audit_source
from moreish.data.audit.checks import Finding, LineBlock
from moreish.data.text.clean import MIN_UNIQUE_LINE, CleaningOptions, clean_texts
from moreish.data.text.corpus import Corpus, read_corpus
from moreish.data.text.decode import Text, text_from_chunks
from moreish.data.text.detect_encoding import guess_encoding
from moreish.data.text.lines import bounded_lines, complete_lines, filter_lines
from moreish.ui.tables import warning_lines

GENEROUS_DEADLINE_S = 20
"""Processor time; a check takes about a second, and minutes if its time is quadratic."""


@pytest.fixture
def run_cli(moreish: Moreish) -> Moreish:
    """The fixture `moreish` under another name, because this module imports the package."""
    return moreish


WORDS = ["amber", "birch", "cedar", "dogwood", "elder", "fir", "ginkgo", "hazel", "ivy", "juniper",
         "kapok", "larch", "maple"]  # fmt: skip
VARIED = [
    " ".join(WORDS[(n * step + place) % 13] for place, step in enumerate((1, 3, 5, 7, 11, 2, 4, 6)))
    + " " + WORDS[n // 13 % 13] + WORDS[n // 169]
    for n in range(600)
]  # fmt: skip
"""Running text of distinct lines without any problem."""


def audit_lines(path: Path, lines: list[str], **options: object) -> dict[str, Finding]:
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    return {finding.name: finding for finding in audit_source(str(path), **options).findings}  # type: ignore[arg-type]


def test_clean_text_has_no_findings(tmp_path: Path) -> None:
    assert audit_lines(tmp_path / "a.txt", VARIED) == {}


@pytest.mark.parametrize(
    ("name", "line", "count", "is_warning"),
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
        ("trailing whitespace", "here it ends   ", 1, False),
        ("long lines", "x" * 20_000, 1, False),
        ("not normalized", "cafe\u0301", 1, False),
        ("scripts", "Привет", 2, False),
        ("duplicates", VARIED[17], 1, False),
        ("near duplicates", VARIED[17].upper() + "!", 1, False),
        ("mojibake", "cafÃ©”", 1, True),
        ("mojibake", "itâ\x80\x99s Ã\x81rbol", 2, True),
        ("secrets", "DB_PASSWORD=hunter2hunter2", 1, True),
        ("secrets", "client_secret: 8f3kd93kd93k and api-key: 8f3kd93kd93k", 2, True),
        ("telephone numbers", "Call me at (555) 123-4567.", 1, False),
        ("telephone numbers", "+491712345678", 1, False),
        ("misread characters", "it\x92s \x93here\x94", 3, True),
        ("control characters", "one page\x0canother\x0bline\u2028and\u2029more\x85", 5, False),
        ("invisible characters", "\u200eleft\u200f \u061c \u3164 \u00a0no break\u202f", 6, False),
        ("invisible characters", "join\u200cing\u200dnothing", 2, False),
        ("invisible characters", "tagged\U000e0041\U000e007f", 2, False),
        ("telephone numbers", "+33 1 23 45 67 89 or +49 171 1234567", 2, False),
        ("telephone numbers", "+81 3-1234-5678, +45 12 34 56 78, +91 98765 43210", 3, False),
        ("telephone numbers", "+353 1 234 5678, +61 2 9374 4000, 0049 30 123456", 3, False),
        ("telephone numbers", "0171/1234567, 030 12345678, 07700 900123", 3, False),
        ("telephone numbers", "1-800-555-1234, 8 (495) 123-45-67, 01 23 45 67 89", 3, False),
        ("secrets", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX", 1, True),
        ("secrets", "SECRET_KEY = 'django-insecure-8f3kd93k$d93k'", 1, True),
        ("secrets", "github_pat_11ABCDEFG0123456789_abcdefghijklmnop", 1, True),
        ("secrets", "glpat-abcdefghij0123456789 sk_live_abcdefghij0123456789", 2, True),
        ("secrets", "hf_abcdefghijklmnopqrstuvwxyzabcdefgh", 1, True),
        ("secrets", "npm_abcdefghijklmnopqrstuvwxyz0123456789", 1, True),
        ("secrets", "-----BEGIN PGP PRIVATE KEY BLOCK-----", 1, True),
        ("secrets", "Authorization: Bearer abcdef8f3kd93kd93kd93k", 1, True),
        ("secrets", "TOKEN=8f3kd93kd93kd9 pwd=hunter2 password=hunter2 ", 3, True),
        ("secrets", "sk-proj-abcdefgh8f3kd93kd93kd93k", 1, True),
        ("secrets", "postgres://anna:hunter2@db.example.com/x", 1, True),
        ("line ends", "the end of this line is another\r", 1, False),
    ],
)
def test_problem_is_found_with_count_line_and_example(
    tmp_path: Path, name: str, line: str, count: int, is_warning: bool
) -> None:
    found = audit_lines(tmp_path / "a.txt", [*VARIED[:400], line, *VARIED[400:]], kind="text")
    finding = found[name]
    severity = "warning" if is_warning else "note"
    assert (finding.count, finding.severity, finding.location) == (count, severity, "line 401")
    if name in ("secrets", "card numbers"):
        assert "…" in finding.example  # reports are read by others
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
        "می‌خواهم, क्‍ष, 👩‍👩‍👧 and 👩🏽‍🚒",
        "at the token: nothing",
        "31.12.1999 23:59, 05/10/2023 12:30, 2024-01-15 10:20",
        "100 200 300 400",
        "Psalm 119 105 106 107",
        "10.1000/182",
        "+1.2345678901",
        "password: self.password",
        "api_key = get_api_key()",
        "password: str|None=None, and password==other",
        "token: 1234567890123 and token = tokenizer2.next",
        "sk-this-is-a-css-class-name-long",
        "the key is under the mat",
    ],
)
def test_harmless_lookalikes_are_not_reported(tmp_path: Path, line: str) -> None:
    found = audit_lines(tmp_path / "a.txt", [*VARIED, line])
    assert set(found) <= {"rare characters", "scripts"}


def test_private_data_are_shown_before_training(tmp_path: Path) -> None:
    lines = [*VARIED, "write to a.b@example.com", "or call +44 20 7946 0958"]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    shown = "\n".join(map(str, warning_lines(audit_source(str(tmp_path / "a.txt"), "text"))))
    assert "e-mail addresses" in shown and "telephone numbers" in shown
    assert "rare characters" not in shown


def test_the_example_of_scripts_names_the_script_that_it_shows(tmp_path: Path) -> None:
    finding = audit_lines(tmp_path / "a.txt", [*VARIED[:9], "Иван", *VARIED[9:]])["scripts"]
    assert finding.location == "line 10"
    assert finding.example == "Cyrillic: И а в н"


def test_vowel_signs_distinguish_words(tmp_path: Path) -> None:
    lines = [f"{word} और फिर बहुत दिनों तक कुछ भी नहीं हुआ, कुछ नहीं" for word in ("की", "के", "का", "कु")]
    assert "near duplicates" not in audit_lines(tmp_path / "a.txt", [*VARIED, *lines])


def test_leakage_of_running_text(tmp_path: Path) -> None:
    found = audit_lines(tmp_path / "a.txt", [*VARIED, *VARIED[:80]], kind="text")
    assert found["leakage"].severity == "warning" and found["leakage"].fix == "--dedup"
    assert found["leakage"].count == 68  # the duplicates in the last tenth of 680 lines
    assert found["duplicates"].count == 80
    audit = audit_source(str(tmp_path / "a.txt"), "text")
    (tmp_path / "doctor.json").write_bytes(audit.encode())
    assert AuditReport.load(tmp_path / "doctor.json") == audit


def test_leakage_is_measured_by_characters(tmp_path: Path) -> None:
    lines = ["a"] * 9000 + VARIED[:500] + VARIED[:500]
    leaked = audit_lines(tmp_path / "a.txt", lines, kind="text")["leakage"]
    text = "\n".join(lines)
    held = text[int(0.9 * len(text)) :].count("\n")
    assert abs(leaked.count - held) <= 1


def test_partial_audit_reports_no_leakage(tmp_path: Path) -> None:
    corpus = Corpus.of(
        ["\n".join([*VARIED, *VARIED[:80], *(f"{n} " * 20 for n in range(9999))])], "text"
    )
    names = {finding.name for finding in audit_corpus(corpus, max_characters=60_000).findings}
    assert "duplicates" in names and "leakage" not in names and "rare characters" not in names


def test_secrets_are_masked_in_all_findings(tmp_path: Path) -> None:
    line = "password=hunter2hunter2 bob@example.com \x07 and so on for a while, a while"
    found = audit_lines(tmp_path / "a.txt", [*VARIED, line, line, "x" * 12_000 + line])
    assert {"e-mail addresses", "control characters", "duplicates", "long lines"} <= set(found)
    assert not [finding for finding in found.values() if "hunter2" in finding.example]
    url = "postgres://anna:hunter2@db.example.com/x?mail=bob@example.com "
    secret = "password=" + "8f3k" * 20
    lines = [*VARIED, url, url, secret + " ", "x" * 50 + secret + "x" * 12_000]
    found = audit_lines(tmp_path / "a.txt", lines, kind="text")
    assert found["e-mail addresses"].count == 2
    assert {"trailing whitespace", "long lines"} <= set(found)
    assert not [f for f in found.values() if "hunter2" in f.example or "8f3k" in f.example]


def test_line_ends_are_counted_per_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x\ny\n")
    (tmp_path / "b.txt").write_bytes(b"a\r\nb\r\nc\rd\n")
    audit = audit_source(str(tmp_path), "text")
    assert audit.lines == 6
    ends = {f.description[20:25].strip(): (f.count, f.location) for f in audit.findings[:2]}
    b = tmp_path / "b.txt"
    assert ends == {"CR LF": (2, f"{b}, line 1"), "CR in": (1, f"{b}, line 3")}


def test_line_longer_than_the_buffer(tmp_path: Path) -> None:
    found = audit_lines(tmp_path / "a.txt", ["begin begin begin begin begin " + "x" * 4_500_000])
    assert set(found) == {"long lines"}
    assert found["long lines"].count == 1 and "4,500,030" in found["long lines"].description
    assert found["long lines"].example.startswith("begin begin")


@pytest.mark.parametrize(
    "line",
    ["-eyJ" * 125_000, "a" * 500_000, "e" + "\u0301\u0327" * 125_000, "1-" * 250_000,
     "".join(map(chr, range(0x3400, 0xD7FF))), "Ã" * 150_000, "@a." * 150_000,
     "password:" * 50_000, "-----BEGIN " * 45_000, "+1" * 250_000, "+1 " * 150_000,
     "01 " * 150_000, "://a:" * 100_000, "bearer a" * 60_000, "token=a" * 70_000],
    ids=range(15),
)  # fmt: skip
def test_hostile_lines_take_linear_time(tmp_path: Path, line: str) -> None:
    start = time.process_time()
    audit_lines(tmp_path / "a.txt", [*VARIED, line], cleaning=CleaningOptions(nfc=True))
    assert time.process_time() - start < GENEROUS_DEADLINE_S


def test_duplicate_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line many times, and lines without letters, must not fill the table."""
    kept: list[int] = []

    class Watched(audit_module.DuplicateCheck):
        def update(self, block: LineBlock) -> None:
            super().update(block)
            kept.append(max(self.exact.num_rows, self.near.num_rows))

    monkeypatch.setattr(moreish.data.audit.duplicates, "MAX_KEYS", 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(audit_module, "DuplicateCheck", Watched)
    texts = ["\n".join(["12:34"] * 5000), "\n".join(f"{n},{n * 7}" for n in range(20_000))]
    audit_corpus(Corpus.of(["\n".join(texts)], "lines"))
    assert 0 < max(kept) <= 2000
    (copies,) = (
        f for f in audit_corpus(Corpus.of(texts[:1], "lines")).findings if f.name == "duplicates"
    )
    assert (copies.count, copies.is_estimate) == (
        4999,
        False,
    )  # one distinct line needs no estimate


def test_fix_command_keeps_the_options(run_cli: Moreish, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join([*VARIED, *VARIED, "naïve"]).encode("latin-1"))
    output = run_cli("doctor", path, "--as", "text", "--encoding", "latin-1", "--clean").out
    assert f"moreish train {path} --as text --encoding latin-1 --clean --dedup" in output


SAMPLES = {
    "fr": "Le garçon naïve à la façade, l'été où l'élève arrive\n",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności, łącznie\n",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy\n",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar\n",
    "ru": "Все люди рождаются свободными\n",
    "mixed": "the word for it is привет and so on\n",
    "zh": "the word 自由 means freedom, and 权利上一律平等 much else\n",
}


@pytest.mark.parametrize(
    ("language", "encoding"),
    [("fr", "cp1252"), ("fr", "mac_roman"), ("fr", "cp850"), ("pl", "cp1250"),
     ("pl", "iso8859-2"), ("cs", "iso8859-2"), ("cs", "cp1250"), ("tr", "cp1254"),
     ("ru", "cp1251"), ("ru", "koi8-r"), ("mixed", "cp1251"), ("mixed", "koi8-r"),
     ("zh", "gb18030")],
)  # fmt: skip
def test_encoding_guess_shows_an_example(
    run_cli: Moreish, tmp_path: Path, language: str, encoding: str
) -> None:
    """The text beyond ASCII is far from the beginning of the file."""
    path = tmp_path / "a.txt"
    path.write_bytes(("hello there\n" * 9000 + SAMPLES[language]).encode(encoding))
    guess = guess_encoding(path)
    assert guess is not None and not guess.is_certain
    right = guess.example.partition(f"{encoding}: ")[2].partition(" | ")[0]
    assert len(right) > 15 and right in SAMPLES[language]
    output = run_cli("doctor", path).out
    assert f"perhaps --encoding {guess.encoding}" in output and right in output
    assert "To fix this while training, if the guess is right: moreish train" in output


def test_implausible_encodings_are_not_guessed(run_cli: Moreish, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("naïve façade, “été”\n".encode() * 99 + b"\xe9")  # UTF-8 but for the last byte
    assert guess_encoding(path) is None
    refused = run_cli("doctor", path)
    assert refused.status == 2 and "is not utf-8" in refused.err
    assert "unknown encoding" in run_cli("doctor", path, "--encoding", "foo").err
    path.write_bytes("hello there".encode("utf-16")[:-1])
    assert "moreish doctor" not in run_cli("doctor", path).err  # that command is running


def test_files_left_out_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(VARIED))
    (tmp_path / "b.png").write_bytes(b"\x89PNG\xff\0")
    (finding,) = audit_source(str(tmp_path)).findings
    assert (finding.name, finding.count, finding.severity) == ("files left out", 1, "note")
    (tmp_path / "c.txt").write_bytes("“façade”, naïve password=hunter2hunter2".encode("cp1252"))
    (finding,) = audit_source(str(tmp_path)).findings
    assert (finding.count, finding.severity, finding.fix) == (2, "warning", "")
    convert = f"iconv -f cp1252 -t utf-8 {tmp_path / 'c.txt'} > NEW"
    assert finding.fix_label == f"convert it, perhaps: {convert}" and "façade" in finding.example
    assert finding.location == str(tmp_path / "c.txt") and "hunter2" not in finding.example
    (tmp_path / "a.txt").unlink()
    (first, *_) = audit_source(str(tmp_path)).findings
    assert first.fix_label == "perhaps --encoding cp1252"


def test_mojibake_is_not_fixed_by_the_encoding_that_caused_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join([*VARIED, *VARIED[:90], "schön"]), encoding="utf-8")
    arguments = [str(path), "--encoding", "cp1252", "--as", "text"]
    audit = audit_source(str(path), "text", "cp1252", source_args=arguments)
    assert "mojibake" in {finding.name for finding in audit.findings}
    assert audit.fix_command.endswith(f"moreish train {path} --as text --dedup")
    path.write_text("\n".join([*VARIED, "schön"]), encoding="utf-8")
    audit = audit_source(str(path), "text", "cp1252", source_args=arguments)
    assert audit.fix_command.endswith(f"moreish train {path} --as text")


def test_fixes_that_remove_much_are_left_to_the_user(tmp_path: Path) -> None:
    rare = audit_lines(tmp_path / "a.txt", [*VARIED, "漢字かな交じり文"], kind="text")
    rare = rare["rare characters"]
    letters = len(set("\n".join(VARIED)))
    assert rare.fix_label == f"--min-count 5 (removes 8 of {letters + 8} characters)"
    few = [*WORDS * 9, *WORDS, "acorn", "acorn"]
    audit = audit_corpus(Corpus.of(few, "lines"), source_args=["a.txt"])
    (copies,) = (f for f in audit.findings if f.name == "duplicates")
    assert copies.fix_label == f"--dedup (leaves 14 of {len(few)} items)"
    assert audit.fix_command == ""
    distinct = [f"{a} {b}" for a in WORDS for b in WORDS]
    audit = audit_corpus(Corpus.of([*distinct, *distinct[:9]], "lines"), source_args=["a.txt"])
    assert audit.fix_command.endswith("moreish train a.txt --dedup")


def test_distinct_characters_are_counted_alike(tmp_path: Path) -> None:
    """The line feed is one of the characters of running text, and none of those of a list."""
    path = tmp_path / "a.txt"
    for kind in ("text", "lines"):
        path.write_text("\n".join([*VARIED, "qz xy jü äöß", *VARIED]) + "\n", encoding="utf-8")
        audit = audit_source(str(path), kind)
        (rare,) = (f for f in audit.findings if f.name == "rare characters")
        assert f"({audit.distinct_characters} distinct)" in audit.size
        assert f"(of {audit.distinct_characters} distinct characters)" in rare.description
        assert audit.distinct_characters == len(set(path.read_text("utf-8"))) - (kind == "lines")


def test_items_of_a_column_have_no_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [f'{n},"{line}"' for n, line in enumerate(VARIED)]
    rows[30] = '30,"two\nlines"'
    rows[50] = '50,"schÃ¶n"'
    path.write_text("id,plant\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = {f.name: f for f in audit_source(str(path), "lines", column="plant").findings}
    assert found["mojibake"].location == "item 51"
    path.write_text("plant,use\n" + "Malus domestica,schÃ¶n\n" * 9, encoding="utf-8")
    found = {f.name: f for f in audit_source(str(path), "lines").findings}
    assert found["mojibake"].location == "line 2"  # of the file: the header is line 1
    documents = tmp_path / "b.txt"
    documents.write_text("one\n<|endoftext|>\ntwo\nschÃ¶n\n", encoding="utf-8")
    found = {f.name: f for f in audit_source(str(documents)).findings}
    assert found["mojibake"].location == "document 2, line 2"


def test_copies_in_a_list_are_no_leakage() -> None:
    """Items are drawn one by one, so copies in several splits are what new draws would give."""
    found = {finding.name for finding in audit_corpus(read_corpus("names-lecture")).findings}
    assert "duplicates" in found and "leakage" not in found


def test_rare_characters(tmp_path: Path) -> None:
    found = audit_lines(tmp_path / "a.txt", [*VARIED, "漢字かな交じり文"])
    assert found["rare characters"].fix == "--min-count 5"
    assert found["rare characters"].location == "line 601"
    after = audit_lines(
        tmp_path / "a.txt", [*VARIED, "漢字かな交じり文"], cleaning=CleaningOptions(min_count=5)
    )
    assert "rare characters" not in after


def test_removing_rare_characters_is_not_offered_where_it_removes_the_items(tmp_path: Path) -> None:
    """Each item has a rare character."""
    lines = [f"abcdefghijklmnop{chr(0x4E00 + n)}" for n in range(7)] * 4
    found = audit_lines(tmp_path / "a.txt", lines, kind="lines")
    assert found["rare characters"].fix == ""
    found = audit_lines(tmp_path / "a.txt", lines + ["abcdefghijklmnop"] * 2_000, kind="lines")
    assert found["rare characters"].fix == "--min-count 5"


def test_a_flag_keeps_its_invisible_tags(tmp_path: Path) -> None:
    """Scotland's flag is a black flag and seven tags; tags elsewhere are removed."""
    scotland = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    text = f"a\u200b {scotland}{scotland} \U000e0067b \U0001f3f4 {scotland}"
    cleaned = f"a {scotland}{scotland} b \U0001f3f4 {scotland}"
    options = CleaningOptions(clean=True)
    for size in range(1, 12):
        chunks = [text[at : at + size] for at in range(0, len(text), size)]
        assert clean(chunks, options) == cleaned
    found = audit_lines(tmp_path / "a.txt", [*VARIED, f"the flag of Scotland: {scotland}"])
    assert "invisible characters" not in found
    assert "scripts" not in audit_lines(tmp_path / "a.txt", [*VARIED, "flags: 🇩🇪 🇫🇷"])


def test_fixes_remove_their_findings(tmp_path: Path) -> None:
    lines = [*VARIED, "zero\u200bwidth \x07", "cafe\u0301", "ab漢字かな交じり文", *VARIED[:40]]
    before = audit_lines(tmp_path / "a.txt", lines)
    cleaning = {finding.fix for finding in before.values()} - {""}
    assert cleaning == {"--clean", "--nfc", "--min-count 5", "--dedup"}
    options = CleaningOptions(clean=True, nfc=True, min_count=5, dedup=True)
    assert not {
        f.fix for f in audit_lines(tmp_path / "a.txt", lines, cleaning=options).values()
    } - {""}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_other_encodings_are_detected(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    quoted = [] if encoding == "latin-1" else ["naïve “façade”"]
    path.write_bytes("\n".join([*VARIED, *quoted, "naïve façade"]).encode(encoding))
    guess = guess_encoding(path)
    assert guess is not None
    assert guess.is_certain == encoding.startswith("utf")
    assert "naïve" in path.read_bytes().decode(guess.encoding)
    (first, *_) = audit_source(str(path)).findings
    assert first.name == "encoding" and first.severity == "warning"
    assert first.fix == f"--encoding {guess.encoding}"
    moreish.data.text.corpus.read_corpus(str(path), None, guess.encoding)  # type: ignore[attr-defined]


def test_locations_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(VARIED[:300]))
    (tmp_path / "b.txt").write_text("\n".join([*VARIED[300:], "write to bob@example.com"]))
    (finding,) = audit_source(str(tmp_path)).findings
    assert finding.location == f"{tmp_path / 'b.txt'}, line 301"


def test_duplicates_are_estimated_from_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line occurs twice, and an eighth of the lines is sampled."""
    monkeypatch.setattr(moreish.data.audit.duplicates, "MAX_KEYS", 500)  # type: ignore[attr-defined]
    lines = [f"{a} {b} {c} and so on until it is long enough" for a in WORDS for b in WORDS
             for c in WORDS]  # fmt: skip
    found = audit_lines(tmp_path / "a.txt", lines + lines, kind="text")["duplicates"]
    assert found.is_estimate
    assert abs(found.count - len(lines)) < 0.15 * len(lines)


def test_frequent_near_duplicates_are_counted_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that differ only in their number are near duplicates of each other. A very frequent
    line is always sampled."""
    monkeypatch.setattr(moreish.data.audit.duplicates, "MAX_KEYS", 2000)  # type: ignore[attr-defined]
    index_items = [f"user{n}" for n in range(12_000)]
    found = audit_lines(tmp_path / "a.txt", index_items + index_items[:6000], kind="lines")
    assert found["duplicates"].is_estimate and abs(found["duplicates"].count - 6000) < 0.1 * 6000
    near = found["near duplicates"]
    assert (near.count, near.is_estimate) == (
        17_998,
        False,
    )  # user0 occurs twice
    words = [f"{a} {b}{c} {d}" for a in WORDS for b in WORDS for c in WORDS for d in WORDS]
    lines = [line for word in words[:8000] for line in (word, "often")]
    again = [word.upper() for word in words[:4000]]
    found = audit_lines(tmp_path / "a.txt", lines + again, kind="lines")
    assert found["duplicates"].is_estimate and found["duplicates"].count == 7999
    assert (
        found["near duplicates"].is_estimate
        and abs(found["near duplicates"].count - 4000) < 0.1 * 4000
    )


def test_audit_of_the_beginning_only() -> None:
    corpus = Corpus.of(["\n".join([*VARIED, "bob@example.com"])], "text")
    assert not audit_corpus(corpus, max_characters=1000).findings
    assert not audit_corpus(corpus, max_characters=1000).is_complete
    assert audit_corpus(corpus).findings and audit_corpus(corpus).is_complete


def test_training_prints_the_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join([*VARIED, "zero\u200bwidth"]))
    run = moreish.train(source, model="bigram", steps=2, out=tmp_path / "run")
    shown = capsys.readouterr().out
    assert "invisible characters and no-break spaces" in shown and "clean=True" in shown
    assert "moreish.doctor(" in shown
    kept = AuditReport.load(run.path / "doctor.json")
    assert [finding.name for finding in kept.findings] == ["invisible characters"]
    cleaned = moreish.train(source, model="bigram", steps=2, out=tmp_path / "clean", clean=True)
    assert "invisible characters and no-break" not in capsys.readouterr().out
    assert run.record.data.vocabulary - cleaned.record.data.vocabulary == 1
    assert "left out control and invisible characters" in cleaned.record.data.notes
    moreish.train("names", model="bigram", steps=2, out=tmp_path / "names")
    assert not (tmp_path / "names" / "doctor.json").exists()


def test_report_page_escapes_text(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join([*VARIED, "<script>x bob@example.com \x1b[31m"]))
    audit = moreish.doctor(source)
    moreish.api.doctor_page(audit, tmp_path / "page.html")  # type: ignore[attr-defined]
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in page and "␛[31m" in page
    assert f"To fix this while training: moreish train {source} --clean" in page


def test_report_page_overwrites_only_report_pages(run_cli: Moreish, tmp_path: Path) -> None:
    folder, page = tmp_path / "texts", tmp_path / "page.html"
    folder.mkdir()
    source, notes = folder / "a.txt", tmp_path / "notes.txt"
    source.write_text("\n".join(VARIED))
    notes.write_text("mine")
    for text, place in ((source, source), (folder, folder / "new.html"), (source, notes)):
        refused = run_cli("doctor", text, "--report", place)
        assert refused.status == 2 and f"--report {place}" in refused.err
    assert source.read_text() == "\n".join(VARIED) and notes.read_text() == "mine"
    assert not (folder / "new.html").exists()
    for _ in range(2):
        assert run_cli("doctor", source, "--report", page).status == 0
    page.write_text(moreish.reports.html.page("another", "", []))  # type: ignore[attr-defined]
    assert run_cli("doctor", source, "--report", page).status == 2
    with pytest.raises(moreish.MoreishError, match="part of the source"):
        moreish.api.doctor_page(moreish.doctor(source), source)  # type: ignore[attr-defined]


# --- cleaning ---


def clean(chunks: list[str], options: CleaningOptions, kind: str = "text") -> str:
    return "".join(clean_texts([text_from_chunks(*chunks)], options, kind)[0][0])  # type: ignore[arg-type]


CHUNKS = st.lists(st.text(alphabet="ab\n e\u0301\u0327가\u1100\u1161漢", max_size=12))


@given(CHUNKS)
def test_nfc_does_not_depend_on_chunks(chunks: list[str]) -> None:
    assert clean(chunks, CleaningOptions(nfc=True)) == unicodedata.normalize("NFC", "".join(chunks))


@given(st.lists(st.text(alphabet="ab\n ", max_size=6)), st.integers(1, 9))
@settings(max_examples=300)
def test_bounded_lines_join_to_all_lines(chunks: list[str], longest: int) -> None:
    whole = "".join(chunks).split("\n")
    assert [line for lines in complete_lines(chunks) for line in lines] == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moreish.data.text.lines, "MAX_HELD_CHARACTERS", longest)  # type: ignore[attr-defined]
        output, begun = [], ""
        for lines, goes_on in bounded_lines(chunks):
            lines = [begun + lines[0], *lines[1:]]
            begun = lines.pop() if goes_on else ""
            output += lines
        assert output == whole
        assert "".join(filter_lines(chunks, lambda line: True)) == "".join(chunks)


@given(st.lists(st.lists(st.sampled_from(["ab", " ab", "b", "", "abc"])), min_size=1, max_size=3))
def test_duplicates_are_removed_across_files(files: list[list[str]]) -> None:
    texts = [text_from_chunks("\n".join(lines)) for lines in files]
    seen: set[str] = set()
    expected = []
    for lines in files:
        kept = []
        for line in lines:
            if not line.strip() or line.strip() not in seen:
                kept.append(line)
            seen.add(line.strip())
        expected.append("\n".join(kept))
    once, _ = clean_texts(texts, CleaningOptions(dedup=True), "lines")
    for _ in range(2):  # on every iteration
        assert ["".join(text) for text in once] == expected


def test_short_duplicate_lines_are_kept() -> None:
    line = "x" * MIN_UNIQUE_LINE
    assert clean(["yes\nyes\n", line, "\n", line, "\nyes"], CleaningOptions(dedup=True)) == (
        f"yes\nyes\n{line}\nyes"
    )


def test_rare_characters_are_removed_from_text_and_with_their_items() -> None:
    assert clean(["abz", "ab"], CleaningOptions(min_count=2)) == "abab"
    assert clean(["ab\nabz\nab"], CleaningOptions(min_count=2), "lines") == "ab\nab"
    # Removing an item makes others rare; whitespace around items does not count.
    assert clean(["ab\nab\nac\ncz\nab\t"], CleaningOptions(min_count=2), "lines") == "ab\nab\nab\t"
    # Duplicates are removed first.
    assert (
        clean(["a\nz\nz\nba\nb"], CleaningOptions(min_count=2, dedup=True), "lines") == "a\nba\nb"
    )


def test_cleaning_notes_count_removals(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    options = CleaningOptions(dedup=True, min_count=2)
    path.write_text("ab\nabz\nab\nac\ncy\nabab\n\n")
    (note,) = (
        n for n in read_corpus(str(path), "lines", "utf-8", options).notes if "duplicates" in n
    )
    assert note == (  # the second ab; abz and cy, then ac
        "left out duplicates: 1, left out items with characters that occur fewer than 2 times: 3"
    )
    path.write_text("aaabbbz" + "y")
    (note,) = read_corpus(str(path), "text", "utf-8", CleaningOptions(min_count=2)).notes
    assert note == "left out characters that occur fewer than 2 times: 2"


def test_cleaned_text_is_read_anew_on_every_iteration() -> None:
    times = []

    def read() -> object:
        times.append(1)
        return iter(["a\x07b"])

    (text,), _ = clean_texts([Text(read)], CleaningOptions(clean=True), "text")  # type: ignore[arg-type]
    assert ["".join(text), "".join(text)] == ["ab", "ab"]
    assert len(times) == 2


def test_cleaning_keeps_words_apart() -> None:
    broken = "one\x0ctwo\x0bthree\x85four\u2028five\u2029six\u00a0seven\x1eeight\x07\u200e\u061c"
    assert (
        clean([broken], CleaningOptions(clean=True))
        == "one\ntwo\nthree\nfour\nfive\nsix seven\neight"
    )
    items = clean([broken + "\nb"], CleaningOptions(clean=True), "lines")
    assert items == "one two three four five six seven eight\nb"


@given(st.lists(st.text(alphabet="a\x07\u06cc\u0915\u200c\u200d👩 ", max_size=6)))
def test_joiners_are_kept_where_they_join(chunks: list[str]) -> None:
    kept = clean(["".join(chunks)], CleaningOptions(clean=True))
    assert clean(chunks, CleaningOptions(clean=True)) == kept
    assert clean([kept], CleaningOptions(clean=True)) == kept
    for text in ("می‌خواهم", "क्‍ष", "👩‍👩‍👧"):
        assert clean([text], CleaningOptions(clean=True)) == text
    assert clean(["a\u200cb\u200d"], CleaningOptions(clean=True)) == "ab"


def test_clean_is_not_offered_for_misread_text(run_cli: Moreish, tmp_path: Path) -> None:
    """Quotes of Windows-1252 that are read as Latin-1, and a control character."""
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join([*VARIED, "it’s “naïve” \x07"]).encode("cp1252"))
    output = run_cli("doctor", path, "--encoding", "latin-1").out
    assert f"moreish train {path} --encoding cp1252" in output.splitlines()[-1]
    assert "! 3 control characters U+0080" in output
    assert "--clean would delete them  perhaps --encoding cp1252\n" in output
    assert "control characters: 1\n" in output
    path.write_bytes("\n".join([*VARIED, "and so on… and on"]).encode("cp1252"))
    assert "perhaps --encoding cp1252" in run_cli("doctor", path, "--encoding", "latin-1").out
    found = audit_lines(tmp_path / "b.txt", [*VARIED, "itâ\x80\x99s \x07"])
    assert not [f for f in found.values() if f.fix == "--clean"]


def test_removing_everything_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc\ndef\n" * 2)
    with pytest.raises(moreish.MoreishError, match="cleaning removes everything"):
        read_corpus(str(path), "lines", "utf-8", CleaningOptions(min_count=9))


def test_min_count_is_not_offered_for_a_short_text(moreish: Moreish) -> None:
    """Most of its characters are rare: no item would be left without them."""
    Path("few.txt").write_text("anna 0171\nbob x@y\nclara = 3\n")
    output = moreish("doctor", "few.txt", "--as", "lines", "--json")
    rare = [f for f in output.json["findings"] if f["name"] == "rare characters"]
    assert len(rare) == 1 and not rare[0]["fix"]
    assert "--min-count" not in str(output.json["fixes"])
