"""Memory of recent text: which occurrences it finds, and how they vote."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moreish import api
from moreish.errors import MoreishError
from moreish.models.hybrid import forgets
from moreish.models.memory import (
    CONTEXTS,
    DISTANCE_CLASS,
    NUM_CLASSES,
    UNKNOWN,
    Memory,
    TextIndex,
    Votes,
    latest_votes,
)
from moreish.training.events import ignore

Found = list[tuple[int, int, int]]


def search(ids: list[int], place: int, reach: int) -> Found:
    """The votes at a place as (position, token, kind), by comparing every earlier context."""
    found = []
    for context, (length, number) in enumerate(CONTEXTS):
        current = ids[place - length + 1 : place + 1]
        if place - length + 1 < 0 or UNKNOWN in current:
            continue
        places = [
            at
            for at in range(place - 1, length - 2, -1)
            if ids[at - length + 1 : at + 1] == current and place - at <= reach
        ]
        found += [
            (0, ids[at + 1], context * NUM_CLASSES + int(DISTANCE_CLASS[place - at]))
            for at in places[:number]
        ]
    return sorted(found)


def listed(votes: Votes) -> Found:
    return sorted(zip(*(part.tolist() for part in votes), strict=True))


@settings(deadline=None, max_examples=50)
@given(
    ids=st.lists(st.integers(0, 2), min_size=1, max_size=120),
    unknown=st.integers(0, 5),
    reach=st.sampled_from([1, 7, 50, 32_768]),
)
def test_votes_are_those_of_all_earlier_occurrences(
    ids: list[int], unknown: int, reach: int
) -> None:
    ids = [UNKNOWN] * unknown + ids
    row_1S = np.array([ids], dtype=np.int32)
    index = TextIndex(row_1S)
    for place in (len(ids) - 1, len(ids) // 2):
        expected = search(ids[: place + 1], place, reach)
        found = index.votes(np.array([place]), np.array([0]), reach)
        assert listed(found) == expected
        assert listed(latest_votes(row_1S[:, : place + 1], reach)) == expected


def test_rows_and_the_first_visible_place_are_separate() -> None:
    row = np.random.default_rng(0).integers(0, 3, 60)
    index = TextIndex(np.stack([row, row]))
    places, firsts = np.array([59, 119, 119]), np.array([0, 60, 100])
    votes = index.votes(places, firsts)
    alone = listed(TextIndex(row[None]).votes(np.array([59]), np.array([0])))
    late = listed(TextIndex(row[None]).votes(np.array([59]), np.array([40])))
    for position, expected in enumerate((alone, alone, late)):
        of_position = votes.position_M == position
        assert listed(Votes(*(part[of_position] for part in votes))) == [
            (position, token, kind) for _, token, kind in expected
        ]
    assert len(late) < len(alone)


def test_a_head_adds_weights_to_its_prior() -> None:
    memory, contexts = Memory(vocab_size=3), len(CONTEXTS)
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter.copy_(torch.randn_like(parameter))
    kinds = torch.tensor([0, 2 * NUM_CLASSES + 5, NUM_CLASSES])
    votes = Votes(torch.tensor([0, 0, 1]), torch.tensor([2, 2, 0]), kinds)
    prior = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]])
    logp, total = memory(votes, prior)
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(3, logp.shape[1]))
    log_weight = memory.log_weight.view(-1, contexts, NUM_CLASSES)
    log_scale = memory.log_scale.view(-1, contexts, contexts)
    short = (log_weight[:, 0, 0] + log_scale[:, 2, 0]).exp()  # the longest context is the third
    long = (log_weight[:, 2, 5] + log_scale[:, 2, 2]).exp()
    torch.testing.assert_close(logp[0, :, 2].exp(), (0.2 + short + long) / (1 + short + long))
    alone = (log_weight[:, 1, 0] + log_scale[:, 1, 1]).exp()
    torch.testing.assert_close(logp[1, :, 0].exp(), (0.1 + alone) / (1 + alone))
    torch.testing.assert_close(total[2], torch.zeros(logp.shape[1]))
    torch.testing.assert_close(logp[2].exp(), prior[2].expand_as(logp[2]))


def test_a_name_that_occurred_once_is_expected_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A memory predicts the end of a word that only the recent text contains."""
    generator = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnop"))
    paragraphs = []
    for _ in range(120):  # each has a name of its own
        name = "".join(generator.choice(letters, 9))
        paragraphs.append(
            " ".join(f"{verb} {name}" for verb in ("see", "ask", "let", "see", "ask"))
        )
    folder = tmp_path_factory.mktemp("memory")
    losses = []
    for memory in (0, 2_000):
        model = {"name": "hybrid", "memory": memory, "folds": 4}
        network = {"name": "gpt", "layers": 1, "heads": 1, "width": 16, "context": 16}
        run = api.train(
            text="\n".join(paragraphs), kind="text", steps=60, out=folder / str(memory),
            report=ignore, settings={"model": {**model, "network": network}},
        )  # fmt: skip
        score = run.evaluate()["val"]
        losses.append(score.running_loss if memory else score.loss)
    assert losses[1] < losses[0] - 0.2


def test_items_have_no_memory(tmp_path: Path) -> None:
    settings = {"model": {"name": "hybrid", "memory": 100}}
    with pytest.raises(MoreishError, match="is for running text"):
        api.train(["anna", "otto"] * 30, steps=1, out=tmp_path / "r", settings=settings)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("length", [8, 32, 64, 100, 256])
def test_one_window_in_eight_forgets_wherever_an_epoch_begins(length: int) -> None:
    for shift in range(0, length, max(1, length // 16)):
        share = forgets(shift + length * np.arange(4000)).mean()
        assert 0.08 < share < 0.17, shift
