"""Windows of a token stream: every prediction has a loss exactly once, however it is cut."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import item_tokens
from moreish.data.encode import encode_corpus
from moreish.data.sampler import BatchSampler
from moreish.data.text.corpus import Corpus
from moreish.data.token_dataset import (
    IGNORE_INDEX,
    TokenDataset,
    fingerprint,
    load_tokens,
    save_tokens,
)
from moreish.tokenizers.byte import ByteTokenizer
from moreish.tokenizers.char import CharTokenizer

ITEMS = st.lists(st.integers(1, 30), min_size=1, max_size=12)


def stream(lengths: list[int], items: bool) -> TokenDataset:
    """A stream of distinct tokens, so that the target identifies the prediction."""
    ids, number = [0], 1
    for length in lengths:
        ids += [*range(number, number + length), 0]
        number += length
    if not items:
        ids = list(range(len(ids)))
    return TokenDataset(np.array(ids, dtype=np.uint16), items=items)


@given(lengths=ITEMS, items=st.booleans(), max_length=st.integers(1, 9), overlap=st.integers(0, 8))
def test_spans_score_everything_once(
    lengths: list[int], items: bool, max_length: int, overlap: int
) -> None:
    overlap = min(overlap, max_length - 1)
    tokens = stream(lengths, items)
    windows = tokens.windows(max_length, overlap)
    assert windows.length_W.max() <= max_length
    scored = np.zeros(tokens.num_predictions, dtype=int)
    for start, length, skip in zip(windows.start_W, windows.length_W, windows.skip_W, strict=True):
        assert length > skip
        scored[start + skip : start + length] += 1
    assert (scored == 1).all()


@given(lengths=ITEMS, items=st.booleans(), max_length=st.integers(1, 9))
def test_gather_gives_each_token_its_successor(
    lengths: list[int], items: bool, max_length: int
) -> None:
    tokens = stream(lengths, items)
    batch = tokens.gather(tokens.windows(max_length, max_length // 2))
    follows = dict(zip(tokens.ids_N[:-1].tolist(), tokens.ids_N[1:].tolist(), strict=True))
    count = 0
    for inputs, targets in zip(batch.tokens_BT.tolist(), batch.targets_BT.tolist(), strict=True):
        for token, target in zip(inputs, targets, strict=True):
            if target != IGNORE_INDEX:
                count += 1
                assert token == 0 or follows[token] == target
    assert count == tokens.num_predictions


def test_items_by_index() -> None:
    tokens = stream([2, 3, 1], items=True)
    assert [tokens.item(i).tolist() for i in range(3)] == [[1, 2], [3, 4, 5], [6]]
    assert tokens.longest_item == 3


def make_sampler(
    tokens: TokenDataset, batch_size: int = 4, length: int = 5, overlap: int = 0
) -> BatchSampler:
    return BatchSampler(tokens, batch_size=batch_size, length=length, overlap=overlap, seed=7)


@pytest.mark.parametrize("items", [True, False])
@pytest.mark.parametrize("overlap", [0, 2])
def test_epoch_serves_every_window_once(items: bool, overlap: int) -> None:
    tokens = stream([3, 9, 1, 4, 4, 12, 2, 7], items)
    sampler = make_sampler(tokens, batch_size=1, overlap=overlap)
    rows = [sampler.batch(step) for step in range(sampler.num_windows)]
    targets = [t for row in rows for t in row.targets_BT[0].tolist() if t != IGNORE_INDEX]
    assert len([t for t in targets if t]) == len({t for t in targets if t})
    if items:
        assert len(targets) == tokens.num_predictions
    again = [
        sampler.batch(step + sampler.num_windows).tokens_BT.tolist()
        for step in range(sampler.num_windows)
    ]
    assert again != [row.tokens_BT.tolist() for row in rows]


@given(length=st.integers(2, 40), window=st.integers(1, 50))
def test_text_shorter_than_a_window_gives_batches(length: int, window: int) -> None:
    tokens = TokenDataset(np.arange(length, dtype=np.uint8), items=False)
    batch = make_sampler(tokens, length=window).batch(3)
    inside = batch.targets_BT != IGNORE_INDEX
    assert inside.any(1).all()
    assert (batch.targets_BT[inside] == batch.tokens_BT[inside] + 1).all()


def test_saved_tokens_keep_their_fingerprint(tmp_path: Path) -> None:
    tokens = stream([3, 2], items=True)
    save_tokens(tmp_path / "t.npy", tokens)
    again = load_tokens(tmp_path / "t.npy", items=True)
    assert isinstance(again.ids_N, np.memmap)
    assert fingerprint(again) == fingerprint(tokens)
    wider = TokenDataset(tokens.ids_N.astype(np.uint32), items=True)
    assert fingerprint(wider) == fingerprint(tokens)
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(ValueError):
        load_tokens(tmp_path / "bad.npy", items=True)


@pytest.mark.parametrize("documents", [["abcdefghij" * 9], ["é" * 50, "abc" * 20, "ž"]])
def test_text_splits_do_not_depend_on_the_tokenizer(documents) -> None:
    corpus = Corpus.of(documents, "text")
    texts = []
    for kind in (CharTokenizer, ByteTokenizer):
        tokenizer = kind.build(documents, boundary=len(documents) > 1)
        splits = encode_corpus(corpus, tokenizer, "seeded", 42)
        texts.append([tokenizer.decode(tokens.ids_N.astype(int)) for tokens in splits.values()])
        if len(documents) > 1:
            edges = sum(int((tokens.ids_N == 0).sum()) for tokens in splits.values())
            assert edges == len(documents) + 1
    assert texts[0] == texts[1]
    assert "".join(texts[0]) == "".join(documents)


@given(
    length=st.integers(2, 200),
    window=st.integers(1, 40),
    overlap=st.integers(0, 12),
    batch_size=st.integers(1, 9),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=6),
)
def test_text_batches_equal_an_independent_computation(
    length: int, window: int, overlap: int, batch_size: int, steps: list[int]
) -> None:
    """There is one window fewer than would fit, and all are shifted by one random number."""
    overlap = min(overlap, window - 1, length - 2)
    sampler = make_sampler(
        TokenDataset(np.arange(length, dtype=np.uint16), items=False), batch_size, window, overlap
    )
    predictions = length - 1
    stride = min(window, predictions) - overlap
    windows = max(1, (predictions - overlap) // stride - 1)
    assert sampler.num_windows == windows
    assert sampler.steps_per_epoch == -(-windows // batch_size)
    for step in steps:
        epoch, number = divmod(step, sampler.steps_per_epoch)
        random = np.random.default_rng((7, epoch))
        order = random.permutation(windows)[number * batch_size : (number + 1) * batch_size]
        shift = random.integers(predictions - windows * stride - overlap + 1)
        batch = sampler.batch(step)
        for row, start in enumerate((order * stride + shift).tolist()):
            read = list(range(start, start + stride + overlap))
            skipped = overlap if start > 0 else 0
            targets = [IGNORE_INDEX] * skipped + [token + 1 for token in read[skipped:]]
            assert batch.tokens_BT[row].tolist() == read
            assert batch.targets_BT[row].tolist() == targets
            assert targets[-1] < length
        assert len(batch.tokens_BT) == len(order)
        assert batch.start_B is not None
        assert batch.start_B.tolist() == (order * stride + shift).tolist()


def test_shifts_cover_the_whole_range() -> None:
    """5 windows of 10 tokens in 69 predictions can be shifted by 0 to 19."""
    sampler = make_sampler(TokenDataset(np.arange(70, dtype=np.uint16), items=False), 5, 10)
    assert sampler.num_windows == 5
    shifts = {int(sampler.batch(epoch).tokens_BT.min()) for epoch in range(400)}
    assert shifts == set(range(20))


def test_shorter_windows_keep_the_number_of_tokens() -> None:
    ids = np.arange(5000, dtype=np.uint16)
    whole = BatchSampler(TokenDataset(ids, items=False), batch_size=8, length=64, overlap=0, seed=3)
    short = whole.with_shorter_windows(4)
    batch, part = whole.batch(2), short.batch(2)
    assert tuple(batch.tokens_BT.shape) == (8, 64)
    assert tuple(part.tokens_BT.shape) == (32, 16)
    assert part.num_targets == batch.num_targets == 8 * 64
    assert short.with_shorter_windows(4) is short  # the windows would be too short
    for length, divided in ((31, 31), (32, 8)):  # eight tokens is the minimum
        one = BatchSampler(
            TokenDataset(ids, items=False), batch_size=8, length=length, overlap=0, seed=3
        )
        assert one.with_shorter_windows(4).length == divided
    overlapping = BatchSampler(
        TokenDataset(ids, items=False), batch_size=8, length=64, overlap=1, seed=3
    )
    assert overlapping.with_shorter_windows(4) is overlapping
    _, items = item_tokens(["anna", "bob"] * 40)
    of_items = BatchSampler(items, batch_size=8, length=64, overlap=0, seed=3)
    assert of_items.with_shorter_windows(4) is of_items
