import hashlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import needs_gpt2
from moreish.errors import MoreishError
from moreish.tokenizers import (
    REGISTRY,
    Tokenizer,
    VocabularyLimits,
    tokenizer_builder,
    tokenizer_from_json,
)

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
NAMES = sorted(REGISTRY)


def build(name: str, texts: list[str], *, boundary: bool) -> Tokenizer:
    if name == "gpt2":
        return _gpt2(boundary)
    texts = [f"{text}\n" for text in texts] if name == "word" else texts  # chunks of one text
    limits = VocabularyLimits(vocab_size=300 if name == "bpe" else None, min_word_count=1)
    return tokenizer_builder(name).build(texts, boundary=boundary, limits=limits)


@cache
def _gpt2(boundary: bool) -> Tokenizer:
    needs_gpt2()
    return tokenizer_builder("gpt2").build([], boundary=boundary)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)  # the first example downloads files
@given(texts=st.lists(TEXT, min_size=1), boundary=st.booleans())
def test_decode_undoes_encode(name: str, texts: list[str], boundary: bool) -> None:
    tokenizer = build(name, texts, boundary=boundary)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
        assert tokenizer.boundary_id not in ids.tolist() and tokenizer.unk_id not in ids.tolist()
        implied = tokenizer.implied_spaces(ids).sum()
        assert tokenizer.char_lengths()[ids].sum() - implied == len(text)
        assert tokenizer.byte_lengths()[ids].sum() - implied == len(text.encode())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gpt2"])
@settings(deadline=None)
@given(text=TEXT, boundary=st.booleans())
def test_json_round_trip(name: str, text: str, boundary: bool) -> None:
    tokenizer = build(name, [text], boundary=boundary)
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())), boundary=boundary)
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_fingerprints_are_distinct() -> None:
    built = [
        build(name, [text], boundary=boundary)
        for name in NAMES
        if name != "gpt2"  # its JSON is the same with and without a boundary
        for text in ("ab", "abc")
        for boundary in (True, False)
    ]
    prints = {(t.name, t.vocab_size, t.boundary_id): t.fingerprint() for t in built}
    assert len(set(prints.values())) == len(prints)


def test_boundary_decodes_to_an_empty_string() -> None:
    tokenizer = build("char", ["emma"], boundary=True)
    assert tokenizer.decode(np.array([0, 2, 3, 3, 1, 0])) == "emma"


def test_unknown_characters_are_named_in_order() -> None:
    tokenizer = build("char", ["abc"], boundary=True)
    assert tokenizer.find_unknown("azbyaz") == ["z", "y"]
    with pytest.raises(MoreishError, match="vocabulary: 'z' 'y'"):
        tokenizer.encode("azbyaz")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_lone_surrogates_are_rejected(text: str) -> None:
    for name in NAMES:
        tokenizer = build(name, ["ab"], boundary=False)
        with pytest.raises(MoreishError):
            tokenizer.encode(text)


def test_surrogate_escapes_are_decoded_to_bytes() -> None:
    tokenizer = build("byte", [], boundary=False)
    assert tokenizer.encode("\udcff").tolist() == [255]
    assert tokenizer.decode(np.array([255])) == "\ufffd"


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"name": 3},
        {"name": "char"},
        {"name": "char", "boundary": True, "characters": "ba"},
        {"name": "char", "boundary": "yes", "characters": "ab"},
        {"name": "byte"},
    ],
)
def test_damaged_json_is_rejected(data: object) -> None:
    with pytest.raises(MoreishError, match="damaged"):
        tokenizer_from_json(data, boundary=True)


def test_unknown_tokenizer_suggests_the_nearest() -> None:
    with pytest.raises(MoreishError, match="did you mean 'char'"):
        tokenizer_builder("chr")


def test_labels_are_printable() -> None:
    tokenizer = build("char", [" \n\ta\x07"], boundary=True)
    labels = [tokenizer.label(i) for i in range(tokenizer.vocab_size)]
    assert labels == ["·", "‹07›", "⇥", "↵", "␣", "a"]
    of_bytes = build("byte", [], boundary=False)
    assert [of_bytes.label(byte) for byte in (0, 65, 195)] == ["‹00›", "A", "‹c3›"]
    assert of_bytes.find_unknown("any é") == []


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)  # the first example downloads files
@given(items=st.lists(TEXT.map(lambda text: text.replace("\n", ""))))
def test_encode_items_equals_encoding_each_item(name: str, items: list[str]) -> None:
    tokenizer = build(name, [*items, "a"], boundary=True)
    one_by_one = [[*tokenizer.encode(item).tolist(), tokenizer.boundary_id] for item in items]
    assert tokenizer.encode_items(items).tolist() == [i for item in one_by_one for i in item]


def test_character_and_byte_ids_follow_code_points() -> None:
    for boundary in (True, False):
        tokenizer = build("char", ["zé\n", "a漢"], boundary=boundary)
        ids = tokenizer.encode("\nazé漢")
        assert ids.tolist() == [place + boundary for place in range(5)]
        assert tokenizer.vocab_size == 5 + boundary
        assert tokenizer.byte_lengths()[ids].tolist() == [1, 1, 1, 2, 3]
        assert tokenizer.char_lengths().tolist() == [1] * (5 + boundary)
        assert tokenizer.byte_lengths().tolist() == [1] * boundary + [1, 1, 1, 2, 3]
        for unknown in ("b", "\U0010ffff", "\x00", "鿿"):  # between, above and below the known ones
            with pytest.raises(MoreishError, match="vocabulary"):
                tokenizer.encode("a" + unknown)
        of_bytes = build("byte", [], boundary=boundary)
        assert of_bytes.vocab_size == 256 + boundary
        assert of_bytes.encode("a\xff").tolist() == [n + boundary for n in (97, 195, 191)]
        assert of_bytes.byte_lengths().tolist() == [1] * (256 + boundary)
        assert of_bytes.char_lengths().sum() == 192 + boundary  # 64 values are not first bytes


def test_fingerprint_is_stable() -> None:
    """Runs store fingerprints: a change would reject all existing runs."""
    built = build("char", ["abé"], boundary=True)
    expected = '{"boundary": true, "characters": "ab\\u00e9", "name": "char"}'
    assert built.fingerprint() == hashlib.sha256(expected.encode()).hexdigest()


def test_empty_alphabet_has_only_the_boundary() -> None:
    tokenizer = build("char", [""], boundary=True)
    assert tokenizer.vocab_size == 1
    assert tokenizer.encode_items([""]).tolist() == [0]
    assert tokenizer.find_unknown("aa") == ["a"]


def test_fingerprints_of_gpt2() -> None:
    built = [build("gpt2", [], boundary=boundary) for boundary in (True, False)]
    again = tokenizer_from_json(json.loads(json.dumps(built[0].to_json())), boundary=True)
    assert {t.fingerprint() for t in (*built, again)} == {built[0].fingerprint()}
    assert [t.boundary_id for t in (*built, again)] == [50256, None, 50256]
    assert again.encode("Hello world").tolist() == [15496, 995]
    assert again.label(50256) == "·" and again.label(995) == "␣world"


def test_word_tokenizer_and_unknown_words() -> None:
    text = "the cat, the dog; the cat's  hat\n"
    words = build("word", [text], boundary=True)
    assert words.decode(words.encode(text)) == text
    assert words.label(int(words.encode("cat's")[0])) == "␣cat's"
    few = tokenizer_builder("word").build(
        [text], boundary=True, limits=VocabularyLimits(min_word_count=2)
    )
    assert few.words == [" the"]  # type: ignore[attr-defined]
    assert few.encode("the cat").tolist() == [2, 1]
    assert few.find_unknown("a cat") == ["a", "cat"]
    assert few.drop_unknown("a the cat") == "the"
    assert few.decode(few.encode("the cat")) == "the\ufffd"
    assert few.normalize_prompt(" the cat ") == "the cat"
    small = tokenizer_builder("word").build(
        [text], boundary=True, limits=VocabularyLimits(vocab_size=4, min_word_count=1)
    )
    assert small.vocab_size == 4
    with pytest.raises(MoreishError, match="no word occurs 9 times"):
        tokenizer_builder("word").build(
            [text], boundary=False, limits=VocabularyLimits(min_word_count=9)
        )


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=30)
@given(parts=st.lists(st.sampled_from(["a", "b c", "\n", " ", "  ", "é!", "x'll", "9"])))
def test_safe_cut_does_not_change_tokens(name: str, parts: list[str]) -> None:
    text = "".join(parts)
    tokenizer = build(name, ["a b c\n é! x'll 9 a b c b c b c"], boundary=False)
    place = tokenizer.safe_cut(text)
    if place:
        halves = [tokenizer.encode(text[:place]), tokenizer.encode(text[place:], text[:place])]
        assert np.concatenate(halves).tolist() == tokenizer.encode(text).tolist()


def test_characters_and_bytes_are_cut_anywhere() -> None:
    for name in ("char", "byte"):
        assert not tokenizer_builder(
            name
        ).needs_text  # characters that only validation has are known too
        assert build(name, ["abc"], boundary=False).safe_cut("abcab") == 5
    assert build("byte", [], boundary=False).drop_unknown("é!") == "é!"
    assert build("char", ["ab"], boundary=False).drop_unknown("a b?a") == "aba"


def test_words_need_four_occurrences() -> None:
    words = tokenizer_builder("word").build(["\nfour" * 4 + "\nthree" * 3], boundary=False)
    assert words.encode("four").tolist() != [words.unk_id]
    assert words.encode("three").tolist() == [words.unk_id]


def test_tokenizer_file(tmp_path: Path) -> None:
    built = build("char", ["abc"], boundary=False)
    (tmp_path / "t.json").write_text(json.dumps(built.to_json()))
    again = tokenizer_builder(str(tmp_path / "t.json")).build([], boundary=True)
    assert again.encode("abc").tolist() == [1, 2, 3]
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(MoreishError, match="is not a tokenizer file"):
        tokenizer_builder(str(tmp_path / "t.json")).build([], boundary=True)


@pytest.mark.parametrize("boundary", [False, True])
def test_a_word_is_one_token_at_the_beginning_of_a_line_and_inside_it(boundary: bool) -> None:
    text = "Burnt toast\nToast Burnt\n\nBurnt\tBurnt"
    tokenizer = build("word", [text], boundary=boundary)
    ids = tokenizer.encode(text)
    assert (ids == tokenizer.encode("Burnt")[0]).sum() == 4
    assert tokenizer.decode(ids) == text


@settings(deadline=None)
@given(text=st.text(st.sampled_from("ab \n\t.-\u00a0\r"), max_size=30), data=st.data())
def test_words_decode_in_parts(text: str, data: st.DataObject) -> None:
    tokenizer = build("word", [text], boundary=True)
    ids = tokenizer.encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    previous = int(ids[cut - 1]) if cut else None
    assert tokenizer.decode(ids[:cut]) + tokenizer.decode(ids[cut:], previous) == text


def test_a_vocabulary_of_words_without_implied_spaces_is_read() -> None:
    data = {"name": "word", "boundary": True, "words": ["Burnt", " Burnt"]}  # moreish 0.1.0
    tokenizer = tokenizer_from_json(data, boundary=True)
    assert tokenizer.encode("Burnt Burnt").tolist() == [2, 3]
    assert tokenizer.decode(np.array([2, 3])) == "Burnt Burnt"
    assert tokenizer.to_json() == data
