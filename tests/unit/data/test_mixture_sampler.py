"""Batches of prepared text: every window once per epoch, sources by weight, and all of it a pure
function of seed and step."""

import tracemalloc
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreish.data.mixture_sampler import BLOCK_ROWS, MixtureSampler, mixture_quotas
from moreish.data.permutation import RandomPermutation
from moreish.data.sharded_array import PreparedReference, ShardedArray
from moreish.data.token_dataset import TokenDataset
from moreish.errors import MoreishError


def sharded(sizes: list[int], bounds: dict[str, tuple[int, int]] | None = None) -> ShardedArray:
    """Shards of these sizes, in which each token is its position."""
    edges = np.cumsum([0, *sizes])
    shards = [np.arange(a, b, dtype=np.uint32) for a, b in pairwise(edges)]
    bounds = bounds or {"all": (0, int(edges[-1]))}
    return ShardedArray(
        shards, PreparedReference(folder=Path("prepared"), manifest="", bounds=bounds)
    )


def make_sampler(
    sizes: dict[str, int], weights: dict[str, float] | None = None, **options: int
) -> MixtureSampler:
    """A sampler of sources with these numbers of tokens."""
    edges = np.cumsum([0, *sizes.values()]).tolist()
    bounds = dict(zip(sizes, pairwise(edges), strict=True))
    options = {"batch_size": 4, "length": 8, "overlap": 0, "seed": 0, **options}
    tokens = TokenDataset(sharded(list(sizes.values()), bounds), items=False)
    return MixtureSampler(tokens, weights=weights, **options)


@given(st.integers(1, 3000), st.lists(st.integers(0, 2**62), min_size=1, max_size=3))
def test_permutation_has_every_number_once(size: int, key: list[int]) -> None:
    order = RandomPermutation(size, *key)[np.arange(size)]
    assert sorted(order.tolist()) == list(range(size))
    some = np.arange(size)[:: max(1, size // 7)]
    assert RandomPermutation(size, *key)[some].tolist() == order[some].tolist()


def test_permutation_is_uniform() -> None:
    """Chi-squared test of the sixteenth in which each number ends up, over many keys."""
    size, keys = 1600, 60
    counts = np.zeros((16, 16))
    for key in range(keys):
        order = RandomPermutation(size, key)[np.arange(size)]
        np.add.at(counts, (np.arange(size) // 100, order // 100), 1)
    expected = size * keys / 256
    # 225 degrees of freedom: beyond 320 once in 30,000 times.
    assert ((counts - expected) ** 2 / expected).sum() < 320
    neighbors = np.abs(np.diff(RandomPermutation(100_000, 1)[np.arange(100_000)]))
    assert abs(neighbors.mean() / (100_000 / 3) - 1) < 0.02
    first = Counter(int(RandomPermutation(3, key)[np.array([0])][0]) for key in range(600))
    assert min(first.values()) > 150


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_sharded_array_equals_one_array(sizes: list[int], data: st.DataObject) -> None:
    array, whole = sharded(sizes), np.arange(sum(sizes), dtype=np.uint32)
    assert len(array) == len(whole) and array.dtype == whole.dtype and array.nbytes == whole.nbytes
    a, b = data.draw(st.integers(-50, 250)), data.draw(st.integers(-50, 250))
    for chosen in (slice(a, b), slice(a, None), slice(None, b), slice(None)):
        assert array[chosen].tolist() == whole[chosen].tolist()
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=12))
    places_BT = np.array(places[: len(places) // 2 * 2], dtype=np.int64).reshape(-1, 2)
    assert array[places_BT].tolist() == whole[places_BT].tolist()
    assert array[-1] == whole[-1] and array[len(whole) // 2] == len(whole) // 2
    with pytest.raises(IndexError):
        array[np.array([len(whole)])]
    with pytest.raises(IndexError):
        array[len(whole)]


@settings(deadline=None)
@given(
    st.integers(20, 400), st.integers(20, 400), st.integers(1, 9), st.integers(0, 3),
    st.booleans(), st.integers(0, 40),
)  # fmt: skip
@pytest.mark.soak
def test_a_step_needs_no_steps_before_it(
    one: int, two: int, rows: int, overlap: int, weighed: bool, step: int
) -> None:
    weights = {"one": 1.0, "two": 2.0} if weighed else None
    options = {"batch_size": rows, "overlap": overlap}
    alone = make_sampler({"one": one, "two": two}, weights, **options).batch(step)
    sampler = make_sampler({"one": one, "two": two}, weights, **options)
    found = [sampler.batch(number) for number in range(step + 1)][-1]
    assert found.tokens_BT.tolist() == alone.tokens_BT.tolist()
    # Each token is its position, so each target is the token plus one.
    scored = alone.targets_BT != -1
    assert (alone.targets_BT == alone.tokens_BT + 1)[scored].all()


@settings(deadline=None)
@given(st.integers(9, 300), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
def test_every_window_is_served_once_per_epoch(
    size: int, rows: int, overlap: int, epoch: int
) -> None:
    sampler = make_sampler({"all": size}, batch_size=rows, overlap=overlap)
    steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
    starts = [start for step in steps for start in sampler.batch(step).start_B]
    length = min(8, size - 1) - overlap
    assert len(starts) == sampler.num_windows == max(1, (size - 1 - overlap) // length - 1)
    assert np.unique(np.diff(sorted(starts))).tolist() in ([], [length])
    assert min(starts) >= 0 and max(starts) + length + overlap < size


def test_cuts_and_order_differ_between_epochs_and_seeds() -> None:
    def starts(epoch: int, seed: int) -> list[int]:
        sampler = make_sampler({"all": 4000}, seed=seed)
        first = epoch * sampler.steps_per_epoch
        return [int(s) for n in range(20) for s in sampler.batch(first + n).start_B]

    found = [starts(epoch, seed) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
    assert len({tuple(one) for one in found}) == 3
    shifts = {starts(epoch, 0)[0] % 8 for epoch in range(20)}
    assert len(shifts) > 3


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=5).filter(any), st.integers(0, 3),
    st.integers(1, 7),
)  # fmt: skip
def test_weights_are_exact_to_a_block(shares: list[int], block: int, seed: int) -> None:
    weights = {f"s{n}": float(share) for n, share in enumerate(shares)}
    sizes = {name: 200 + 100 * n for n, name in enumerate(weights)}
    sampler = make_sampler(sizes, weights, batch_size=BLOCK_ROWS, seed=seed)
    quotas = mixture_quotas(weights, list(weights))
    edges = np.cumsum([0, *sizes.values()])
    source = np.searchsorted(edges, sampler.batch(block).start_B, side="right") - 1
    assert np.bincount(source, minlength=len(shares)).tolist() == list(quotas.values())
    for name, quota in quotas.items():
        assert abs(quota - BLOCK_ROWS * weights[name] / sum(shares)) < 1


def test_source_serves_all_windows_before_it_repeats() -> None:
    weights = {"small": 1.0, "large": 3.0}
    sampler = make_sampler({"small": 100, "large": 60_000}, weights, batch_size=BLOCK_ROWS)
    starts = np.concatenate([sampler.batch(step).start_B for step in range(6)])
    large = starts[starts >= 100]
    assert len(np.unique(large)) == len(large) == 6 * 768
    source, place = sampler._assign_sources(np.arange(6 * BLOCK_ROWS))
    for number, quota in enumerate((256, 768)):
        assert sorted(place[source == number]) == list(range(6 * quota))
    small = sampler._windows_S[0]
    for round_ in range(3):  # each has eleven windows
        dealt = small[np.arange(round_ * small.count, (round_ + 1) * small.count)].start_W
        assert small.count == 11 and np.unique(np.diff(np.sort(dealt))).tolist() == [8]


def test_the_order_of_sources_is_shuffled() -> None:
    sampler = make_sampler({"a": 9000, "b": 9000}, {"a": 1, "b": 1}, batch_size=BLOCK_ROWS)
    which = sampler.batch(0).start_B >= 9000
    changes = int((which[1:] != which[:-1]).sum())
    assert 400 < changes < 620
    assert (which != (sampler.batch(1).start_B >= 9000)).any()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1.0}, "b has none; the sources are a, b"),
        ({"a": 1.0, "c": 1.0}, "--weight c: there is no such source; the sources are a, b"),
        ({"a": 0.0, "b": 0.0}, "more than 0"),
        ({"a": 1.0, "b": 1e-5}, "--weight b: give 0, or at least one row in 1024"),
    ],
)
def test_invalid_weights_are_rejected(weights: dict[str, float], message: str) -> None:
    with pytest.raises(MoreishError, match=message):
        make_sampler({"a": 100, "b": 100}, weights)


def test_a_source_shorter_than_a_window_is_named() -> None:
    with pytest.raises(MoreishError, match="b has 8 training tokens, fewer than a window of 8"):
        make_sampler({"a": 100, "b": 8}, {"a": 1, "b": 1})
    left_out = make_sampler({"a": 100, "b": 8}, {"a": 1, "b": 0})
    assert max(left_out.batch(0).start_B) < 100


def test_shorter_windows_are_proportionally_more() -> None:
    sampler = make_sampler({"a": 3000, "b": 3000}, {"a": 1, "b": 3}, length=32)
    short = sampler.with_shorter_windows(4)
    assert isinstance(short, MixtureSampler)
    assert (short.length, short.batch_size, short.weights) == (8, 16, sampler.weights)
    assert sampler.with_shorter_windows(8) is sampler
    assert make_sampler({"a": 3000}, overlap=1, length=32).with_shorter_windows(2).length == 32


def test_dealing_takes_no_memory_for_the_length() -> None:
    """Ten billion tokens in a sparse file, of which only the served windows are read."""

    shard = np.broadcast_to(np.zeros(1, np.uint16), (10**10,))
    origin = PreparedReference(folder=Path("p"), manifest="", bounds={"all": (0, 10**10)})
    tokens = TokenDataset(ShardedArray([shard], origin), items=False)
    tracemalloc.start()
    sampler = MixtureSampler(tokens, weights=None, batch_size=8, length=1024, overlap=0, seed=0)
    for step in (0, 1, sampler.steps_per_epoch - 1, sampler.steps_per_epoch, 10**7):
        sampler.batch(step)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sampler.num_windows == (10**10 - 1) // 1024 - 1
    assert peak < 3_000_000
