import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreish.errors import MoreishError
from moreish.tokenizers import REGISTRY, tokenizer_class, tokenizer_from_json

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
NAMES = sorted(REGISTRY)


@pytest.mark.parametrize("name", NAMES)
@given(texts=st.lists(TEXT, min_size=1), boundary=st.booleans())
def test_decode_undoes_encode(name: str, texts: list[str], boundary: bool) -> None:
    tokenizer = tokenizer_class(name).build(texts, boundary=boundary)
    for text in texts:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert ((ids >= int(boundary)) & (ids < tokenizer.vocab_size)).all()
        assert tokenizer.char_lengths()[ids].sum() == len(text)
        assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXT, boundary=st.booleans())
def test_json_form_gives_an_equal_tokenizer(name: str, text: str, boundary: bool) -> None:
    tokenizer = tokenizer_class(name).build([text], boundary=boundary)
    again = tokenizer_from_json(tokenizer.to_json())
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_fingerprints_tell_tokenizers_apart() -> None:
    built = [
        tokenizer_class(name).build([text], boundary=boundary)
        for name in NAMES
        for text in ("ab", "abc")
        for boundary in (True, False)
    ]
    prints = {(t.name, t.vocab_size, t.has_boundary): t.fingerprint() for t in built}
    assert len(set(prints.values())) == len(prints)


def test_boundary_is_dropped_in_decoding() -> None:
    tokenizer = tokenizer_class("char").build(["emma"], boundary=True)
    assert tokenizer.decode(np.array([0, 2, 3, 3, 1, 0])) == "emma"


def test_unknown_characters_are_named_once_and_in_order() -> None:
    tokenizer = tokenizer_class("char").build(["abc"], boundary=True)
    assert tokenizer.unknown("azbyaz") == "zy"
    with pytest.raises(MoreishError, match="never saw 'z' 'y'"):
        tokenizer.encode("azbyaz")


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_half_characters_are_refused_not_crashed_on(text: str) -> None:
    for name in NAMES:
        tokenizer = tokenizer_class(name).build(["ab"], boundary=False)
        with pytest.raises(MoreishError):
            tokenizer.encode(text)


def test_bytes_that_a_terminal_escaped_are_bytes_again() -> None:
    tokenizer = tokenizer_class("byte").build([], boundary=False)
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
def test_damaged_json_is_refused(data: object) -> None:
    with pytest.raises(MoreishError, match="damaged"):
        tokenizer_from_json(data)


def test_unknown_tokenizer_suggests_the_nearest() -> None:
    with pytest.raises(MoreishError, match="did you mean 'char'"):
        tokenizer_class("chr")


def test_labels_are_readable() -> None:
    tokenizer = tokenizer_class("char").build([" \n\ta\x07"], boundary=True)
    labels = [tokenizer.label(i) for i in range(tokenizer.vocab_size)]
    assert labels == ["·", "07", "⇥", "↵", "␣", "a"]
    of_bytes = tokenizer_class("byte").build([], boundary=False)
    assert [of_bytes.label(byte) for byte in (0, 65, 195)] == ["00", "A", "c3"]
    assert of_bytes.unknown("any é") == ""


@pytest.mark.parametrize("name", NAMES)
@given(items=st.lists(TEXT.map(lambda text: text.replace("\n", ""))))
def test_items_are_encoded_as_one_by_one(name: str, items: list[str]) -> None:
    tokenizer = tokenizer_class(name).build([*items, "a"], boundary=True)
    one_by_one = [[*tokenizer.encode(item).tolist(), 0] for item in items]
    assert tokenizer.encode_items(items).tolist() == [i for item in one_by_one for i in item]


def test_ids_are_code_points_in_order_after_the_boundary() -> None:
    for boundary in (True, False):
        tokenizer = tokenizer_class("char").build(["zé\n", "a漢"], boundary=boundary)
        ids = tokenizer.encode("\nazé漢")
        assert ids.tolist() == [place + boundary for place in range(5)]
        assert tokenizer.vocab_size == 5 + boundary
        assert tokenizer.byte_lengths()[ids].tolist() == [1, 1, 1, 2, 3]
        assert tokenizer.char_lengths().tolist() == [1] * (5 + boundary)
        assert tokenizer.byte_lengths().tolist() == [1] * boundary + [1, 1, 1, 2, 3]
        for unknown in ("b", "\U0010ffff", "\x00", "鿿"):  # between, beyond and before the known
            with pytest.raises(MoreishError, match="never saw"):
                tokenizer.encode("a" + unknown)
        of_bytes = tokenizer_class("byte").build([], boundary=boundary)
        assert of_bytes.vocab_size == 256 + boundary
        assert of_bytes.encode("a\xff").tolist() == [n + boundary for n in (97, 195, 191)]
        assert of_bytes.byte_lengths().tolist() == [1] * (256 + boundary)
        assert of_bytes.char_lengths().sum() == 192 + boundary  # 64 bytes go on with a character


def test_fingerprints_stay_what_they_are() -> None:
    """Runs hold them: one that changed would refuse every run there is."""
    built = tokenizer_class("char").build(["abé"], boundary=True)
    expected = '{"boundary": true, "characters": "ab\\u00e9", "name": "char"}'
    assert built.fingerprint() == hashlib.sha256(expected.encode()).hexdigest()


def test_an_empty_alphabet_has_only_the_boundary() -> None:
    tokenizer = tokenizer_class("char").build([""], boundary=True)
    assert tokenizer.vocab_size == 1
    assert tokenizer.encode_items([""]).tolist() == [0]
    assert tokenizer.unknown("aa") == "a"
