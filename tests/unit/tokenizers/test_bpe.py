"""Byte pair encoding compared with other libraries, and runs with each tokenizer."""

import json
import math
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import STORY, Moreish, needs_gpt2
from moreish import api
from moreish.errors import MoreishError
from moreish.runs.run import Run
from moreish.tokenizers import VocabularyLimits, tokenizer_builder, tokenizer_from_json
from moreish.tokenizers.bpe import BPETokenizer
from moreish.training.events import ignore

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
GENEROUS_DEADLINE_S = 60

UNUSUAL_TEXTS = [
    "",
    " ",
    "   a  b ",
    "\n\n\n",
    "don't I'LL we've",
    "x" * 5000,
    " " * 3000,
    "漢字 и é́ 🙂",
    "1234 5",
]


@pytest.fixture(scope="module")
def gpt2() -> BPETokenizer:
    needs_gpt2()
    built = tokenizer_builder("gpt2").build([], boundary=True)
    assert isinstance(built, BPETokenizer)
    return built


@pytest.fixture(scope="module")
def trained_bpe() -> BPETokenizer:
    built = tokenizer_builder("bpe").build(
        [STORY * 3], boundary=True, limits=VocabularyLimits(vocab_size=400)
    )
    assert isinstance(built, BPETokenizer)
    return built


def like_llama(trained_bpe: BPETokenizer) -> BPETokenizer:
    """The same merges with the pre-tokenizer of Llama 3, which joins line ends to signs."""
    words = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    words += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": False}
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    parts = [split, {**bytewise, "use_regex": False}]
    data = {**trained_bpe.to_json(), "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts}}
    return BPETokenizer.from_json(data, boundary=True)


def load_with_transformers(tokenizer: BPETokenizer, folder: Path) -> object:
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    path.write_text(json.dumps(tokenizer.to_json()), encoding="utf-8")
    return PreTrainedTokenizerFast(tokenizer_file=str(path))


def test_gpt2_token_counts_of_tiny_shakespeare(gpt2: BPETokenizer, shakespeare: str) -> None:
    """The expected numbers are in nanoGPT's data/shakespeare/readme.md."""
    cut = int(0.9 * len(shakespeare))
    train, val = gpt2.encode(shakespeare[:cut]), gpt2.encode(shakespeare[cut:])
    assert (len(train), len(val)) == (301_966, 36_059)
    assert gpt2.decode(val) == shakespeare[cut:]


def test_ids_equal_those_of_the_libraries(
    gpt2: BPETokenizer, trained_bpe: BPETokenizer, tmp_path: Path
) -> None:
    import tiktoken

    assert gpt2.is_like_gpt2 and trained_bpe.is_like_gpt2
    ranks = {gpt2.decode_bytes(np.array([i])): i for i in range(50_256)}
    words = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    original = tiktoken.Encoding("x", pat_str=words, mergeable_ranks=ranks, special_tokens={})
    libraries = [
        (tokenizer, load_with_transformers(tokenizer, tmp_path))
        for tokenizer in (gpt2, trained_bpe)
    ]

    @settings(deadline=None, max_examples=100)
    @given(TEXT)
    def same(text: str) -> None:
        for tokenizer, library in libraries:
            ids = tokenizer.encode(text).tolist()
            assert ids == library(text, split_special_tokens=True)["input_ids"]
            assert tokenizer is not gpt2 or ids == original.encode_ordinary(text)

    same()
    for text in UNUSUAL_TEXTS:
        same.hypothesis.inner_test(text)


def test_names_of_special_tokens_are_encoded_as_text(
    gpt2: BPETokenizer, trained_bpe: BPETokenizer
) -> None:
    for tokenizer in (gpt2, trained_bpe, like_llama(trained_bpe)):
        ids = tokenizer.encode("a<|endoftext|>b")
        assert tokenizer.boundary_id not in ids
        assert tokenizer.decode(ids) == "a<|endoftext|>b"


def test_training_is_deterministic(trained_bpe: BPETokenizer) -> None:
    again = tokenizer_builder("bpe").build(
        [STORY * 3], boundary=True, limits=VocabularyLimits(vocab_size=400)
    )
    assert again.fingerprint() == trained_bpe.fingerprint()
    assert trained_bpe.vocab_size == 400 and trained_bpe.boundary_id == 0
    texts = ["x y " * 30_000]
    assert (
        tokenizer_builder("bpe").build(texts, boundary=False).vocab_size < 512
    )  # no pairs are left to merge
    with pytest.raises(MoreishError, match="--vocab-size 256: give 257"):
        tokenizer_builder("bpe").build(
            [STORY], boundary=True, limits=VocabularyLimits(vocab_size=256)
        )


@pytest.mark.parametrize("long", ["x", " ", "ab", "漢"])
def test_long_words_are_cut_before_training(long: str) -> None:
    """The library takes five minutes for a word of half a million characters."""
    text = long * (300_000 // len(long))
    start = time.process_time()
    built = tokenizer_builder("bpe").build([STORY, text], boundary=False)
    ids = built.encode(text)
    assert time.process_time() - start < GENEROUS_DEADLINE_S
    assert built.decode(ids) == text
    assert len(ids) < len(text) / 50


def test_vocabulary_of_another_project(trained_bpe: BPETokenizer, tmp_path: Path) -> None:
    other = like_llama(trained_bpe)
    assert not other.is_like_gpt2
    library = load_with_transformers(other, tmp_path)
    for text in [*UNUSUAL_TEXTS, "so!\n\nwhat?\nno 12345"]:
        assert other.decode(other.encode(text)) == text
        expected = library(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert other.encode(text).tolist() == expected
    for text in ("word\nword\nlast", "a!\nb\n c\nd e", "x.\n\ny\nz"):
        place = other.safe_cut(text)
        halves = [other.encode(part).tolist() for part in (text[:place], text[place:])]
        assert place and halves[0] + halves[1] == other.encode(text).tolist()
    assert other.safe_cut("no line ends here") == 0
    items = ["a b", "", " x", "c!"]
    joined = [i for item in items for i in (*other.encode(item).tolist(), other.boundary_id)]
    assert other.encode_items(items).tolist() == joined


def test_boundary_is_added_if_missing() -> None:
    plain = tokenizer_builder("bpe").build(
        [STORY], boundary=False, limits=VocabularyLimits(vocab_size=300)
    )
    again = tokenizer_from_json(plain.to_json(), boundary=True)
    assert (again.boundary_id, again.vocab_size) == (plain.vocab_size, plain.vocab_size + 1)
    assert again.byte_lengths()[-1] == again.char_lengths()[-1] == 1
    assert again.decode_bytes(np.array([again.boundary_id])) == b""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", None),
        ("model.type", "Unigram"),
        ("model.vocab", {"a": 0}),
        ("model.vocab", ["a"]),
        ("model.vocab", {"a": -1}),
        ("model.merges", ["a"]),
        ("model.merges", ["zz zz"]),
        ("model.merges", [["a", 3]]),
        ("model.merges", 5),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer", None),
        ("pre_tokenizer", "ByteLevel"),
        ("added_tokens", [{"content": "<|endoftext|>", "id": 0.0}]),
        ("added_tokens", [{"content": "x", "id": 10**12}]),
        ("added_tokens", [{}]),
    ],
)
def test_damaged_vocabularies_are_rejected(
    trained_bpe: BPETokenizer, path: str, value: object
) -> None:
    data = json.loads(json.dumps(trained_bpe.to_json()))
    *groups, last = path.split(".")
    inner = data
    for group in groups:
        inner = inner[group]
    inner[last] = value
    with pytest.raises(MoreishError, match="damaged or of another kind"):
        tokenizer_from_json(data, boundary=True)


def test_escaped_bytes_are_encoded(trained_bpe: BPETokenizer) -> None:
    ids = trained_bpe.encode("a\udcff")
    assert trained_bpe.decode_bytes(ids) == b"a\xff"


# --- runs ---

TINY = {"model": {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 16}}


@pytest.mark.parametrize("name", ["bpe", "word", pytest.param("gpt2", marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", ["lines", "text"])
def test_run_with_each_tokenizer(name: str, kind: str, tmp_path: Path, moreish: Moreish) -> None:
    copies = 4
    if name == "gpt2":  # its large vocabulary makes every evaluation slow
        needs_gpt2()
        copies = 1
    source = tmp_path / "story.txt"
    source.write_text(STORY * copies, encoding="utf-8")
    settings = {**TINY, "data": {"min_word_count": 2}}
    run = api.train(
        source, kind=kind, tokenizer=name, vocab_size=300 if name == "bpe" else None, steps=4,
        settings=settings, out=tmp_path / "r", report=ignore,
    )  # fmt: skip
    again = Run.open(run.path)
    assert again.tokenizer.fingerprint() == run.tokenizer.fingerprint()
    assert again.tokenizer.boundary_id == run.tokenizer.boundary_id
    assert again.score("val").loss == pytest.approx(run.scores["val"].loss, abs=1e-5)
    assert again.sample(3, max_tokens=9, seed=1) == run.sample(3, max_tokens=9, seed=1)
    prompt = "the" if name == "word" else " the"
    text = again.sample(1, prompt=prompt, max_tokens=9)[0]
    assert text.startswith(prompt)
    (found,) = again.novelty([text])
    assert found.text == text
    assert sum(token.nats for token in again.surprisal(prompt)) > 0
    bits = again.score("val").bits_per_byte
    if name == "word":
        assert math.isnan(bits) == (run.tokenizer.unk_id in run.split("val").ids_N[1:])
    else:
        tokens = again.split("val")
        assert bits == pytest.approx(
            again.score("val").loss * tokens.num_predictions / math.log(2)
            / again.tokenizer.byte_lengths()[tokens.ids_N[1:].astype(int)].sum()
        )  # fmt: skip
    written = run.training_bytes.decode()
    if name != "word":
        assert all(line in STORY for line in written.split("\n")[1:-1])
    shown = moreish("tokenize", run.path, "--text", prompt, "--json")
    assert "".join(token["label"] for token in shown.json["tokens"][name]) == "␣the"


def test_unknown_word_is_never_sampled(tmp_path: Path) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 4, encoding="utf-8")
    settings = {"data": {"min_word_count": 6}, "model": {"name": "ngram", "order": 1}}
    run = api.train(source, tokenizer="word", settings=settings, out=tmp_path / "r", report=ignore)
    assert (run.split("train").ids_N == run.tokenizer.unk_id).mean() > 0.05
    assert all("\ufffd" not in text for text in run.sample(5, max_tokens=200))
    with pytest.raises(MoreishError, match="vocabulary: 'xylophones'"):
        run.sample(1, prompt=" the xylophones")
    for prompt in (" the xylophones", "the xylophones "):  # spaces around it do not matter
        assert run.sample(1, prompt=prompt, unknown="drop")[0].startswith("the")


def test_mostly_unknown_words_are_rejected(tmp_path: Path, moreish: Moreish) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"anna{n}" for n in range(90)))
    refused = moreish(
        "train", tmp_path / "names.txt", "--tokenizer", "word", "--vocab-size", "5",
        "--set", "data.min_word_count=1", "--model", "ngram", "--out", "r",
    )  # fmt: skip
    assert refused.status == 2
    assert "of the words are too rare for the vocabulary" in refused.err
    assert not Path("r").exists()


def test_training_index_finds_text_of_any_tokens(tmp_path: Path) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 4, encoding="utf-8")
    run = api.train(
        source, tokenizer="bpe", model="ngram", vocab_size=300, out=tmp_path / "r", report=ignore
    )
    by_bytes = run.tokenizer.encode_bytewise(STORY[3:30].encode())  # type: ignore[attr-defined]
    assert len(by_bytes) > len(run.tokenizer.encode(STORY[3:30]))
    assert run.tokenizer.decode_bytes(by_bytes) in run.training_index


def test_tokenizer_from_a_file(tmp_path: Path, moreish: Moreish) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 4, encoding="utf-8")
    first = api.train(
        source, tokenizer="bpe", vocab_size=300, model="ngram", out=tmp_path / "a", report=ignore
    )
    path = str(first.path / "tokenizer.json")
    second = api.train(source, tokenizer=path, model="ngram", out=tmp_path / "b", report=ignore)
    assert second.record.tokenizer == first.record.tokenizer
    assert second.record.data.sha256 == first.record.data.sha256
    (tmp_path / "no.json").write_text('{"name": "char"}')
    for wrong, why in (
        ("no.json", "damaged"),
        ("story.txt", "not a tokenizer"),
        ("a", "unknown tok"),
    ):
        refused = moreish("train", source, "--tokenizer", tmp_path / wrong, "--out", "c")
        assert refused.status == 2 and why in refused.err, refused.err


# --- tokenize ---


def test_tokenize_compares_tokenizers(tmp_path: Path, moreish: Moreish) -> None:
    source = tmp_path / "story.txt"
    source.write_text(STORY * 3, encoding="utf-8")
    names = ("char", "byte", "word", "bpe")
    flags = [part for name in names for part in ("--tokenizer", name)]
    found = moreish("tokenize", source, *flags, "--json").json["tokenizers"]
    assert [each["name"] for each in found] == list(names)
    by_name = {each["name"]: each for each in found}
    size = len((STORY * 3).encode())
    assert by_name["byte"]["tokens"] == size and by_name["byte"]["bytes_per_token"] == 1
    assert by_name["bpe"]["tokens"] < size / 2
    assert by_name["bpe"]["bytes_per_token"] == pytest.approx(size / by_name["bpe"]["tokens"])
    assert by_name["char"]["unknown"] == 0 < by_name["word"]["unknown"]
    shown = moreish("tokenize", source, *flags)
    assert shown.status == 0
    assert "bytes/token" in shown.out and "bpe" in shown.out
    lines = tmp_path / "l.txt"
    lines.write_text("anna\notto\n" * 20)
    by_line = moreish("tokenize", lines, "--tokenizer", "char", "--json").json["tokenizers"]
    assert by_line[0]["tokens"] == 200 and by_line[0]["bytes_per_token"] == 1


def test_tokenize_lists_tokens(tmp_path: Path, moreish: Moreish) -> None:
    shown = moreish("tokenize", "names", "--tokenizer", "byte", "--text", "zoë")
    assert "byte: 4 tokens, 1.00 bytes each" in shown.out
    assert re.search(r"^ +172  ‹ab›  ab$", shown.out, re.MULTILINE)
    refused = moreish("tokenize", "names", "--tokenizer", "char", "--text", "é")
    assert refused.status == 2 and "vocabulary: 'é'" in refused.err
    refused = moreish("tokenize", "names", "--tokenizer", "bqe")
    assert refused.status == 2 and "did you mean" in refused.err


# --- random strings ---

KINDS = (
    [chr(point) for point in range(32, 127)],
    list(" \n\t\r  \u3000\x85\x1c"),
    [chr(point) for point in range(0xA0, 0x250)],
    [chr(point) for point in range(0x300, 0x370)],
    [chr(point) for point in (*range(0x370, 0x530), *range(0x5D0, 0x700), *range(0x900, 0xA00))],
    [chr(point) for point in range(0x4E00, 0x5200)],
    [chr(point) for point in (*range(0x1F300, 0x1F700), 0x200D, 0xFE0F, 0x10FFFF, 0xFFFD)],
    list("'sdtmllvere’.,;:!?-–—()[]{}0123456789"),
)


def random_strings(count: int, seed: int) -> list[str]:
    """Return strings of up to forty characters of one to three kinds."""
    random = np.random.default_rng(seed)
    strings = []
    for _ in range(count):
        kinds = [KINDS[place] for place in random.integers(len(KINDS), size=random.integers(1, 4))]
        letters = [letter for kind in kinds for letter in kind]
        places = random.integers(len(letters), size=random.integers(0, 40))
        strings.append("".join(letters[place] for place in places.tolist()))
    return strings


def check_random_strings(count: int, tokenizers: list[BPETokenizer]) -> None:
    """Check that strings round-trip through the tokenizers, with the ids of the library."""
    from tokenizers import Tokenizer

    libraries = []
    for tokenizer in tokenizers:
        bare = {**tokenizer.to_json(), "added_tokens": []}
        libraries.append((tokenizer, Tokenizer.from_str(json.dumps(bare))))
    for seed in range(count // 1000):
        strings = random_strings(1000, seed)
        for tokenizer, library in libraries:
            found = [tokenizer.encode(text) for text in strings]
            assert [tokenizer.decode(ids) for ids in found] == strings
            expected = library.encode_batch_fast(strings, add_special_tokens=False)
            assert [ids.tolist() for ids in found] == [encoding.ids for encoding in expected]


def test_random_strings(gpt2: BPETokenizer, trained_bpe: BPETokenizer) -> None:
    check_random_strings(3000, [gpt2, trained_bpe])


@pytest.mark.soak
@pytest.mark.long
def test_a_million_random_strings(gpt2: BPETokenizer, trained_bpe: BPETokenizer) -> None:
    check_random_strings(1_000_000, [gpt2, trained_bpe])


def test_missing_libraries(monkeypatch: pytest.MonkeyPatch, moreish: Moreish) -> None:
    for name in ("tiktoken", "tokenizers"):
        monkeypatch.setitem(sys.modules, name, None)
    shown = moreish("tokenize", "names")
    assert shown.status == 0 and "Not available: bpe, gpt2." in shown.out
    for name in ("bpe", "gpt2"):
        refused = moreish("tokenize", "names", "--tokenizer", name)
        assert refused.status == 2 and "pip install 'moreish[bpe]'" in refused.err
