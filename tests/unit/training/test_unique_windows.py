"""Distinct windows with their counts: the gradient of the whole text."""

import numpy as np
import pytest
import torch

from conftest import item_tokens
from moreish.config import resolve
from moreish.data.sampler import BatchSampler
from moreish.data.token_dataset import TokenDataset
from moreish.models import build_model, model_config
from moreish.training.objectives import next_token_loss
from moreish.training.setup import build_sampler
from moreish.training.unique_windows import UniqueWindowSampler, unique_windows

WORDS = ["anna", "anne", "nan", "an", "banana", "nab", "bee"] * 9


def gradients(model: torch.nn.Module, batch: object) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    loss = next_token_loss(model, batch)
    loss.backward()
    return loss.item(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("settings", [{"name": "bigram"}, {"name": "mlp", "context": 3}])
@pytest.mark.parametrize("items", [True, False])
def test_the_gradient_is_that_of_the_whole_text(settings: dict, items: bool) -> None:
    if items:
        tokenizer, tokens = item_tokens(WORDS)
        size = tokenizer.vocab_size
    else:
        ids = np.random.default_rng(0).integers(5, size=400)
        tokens, size = TokenDataset(ids.astype("u1"), items=False), 5
    model = build_model(model_config(settings), size)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    whole = tokens.gather(tokens.windows(1000))
    found = unique_windows(tokens, model, 0, positions=tokens.num_predictions)
    assert (
        found is not None and found.batch(0).tokens_BT.numel() < tokens.num_predictions
    ) or not items
    found = UniqueWindowSampler(tokens, model, 0)
    batch = found.batch(3)
    assert batch.num_targets == whole.num_targets == tokens.num_predictions
    loss, expected = gradients(model, whole)
    assert gradients(model, batch)[0] == pytest.approx(loss, abs=1e-5)
    for got, want in zip(gradients(model, batch)[1], expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-4)
    ranks = [batch[rank::3] for rank in range(3)]
    assert sum(part.num_targets for part in ranks) == batch.num_targets
    assert sum(part.num_targets for part in batch.split(4)) == batch.num_targets


def test_it_is_taken_where_it_costs_no_more_than_a_batch() -> None:
    tokenizer, tokens = item_tokens(WORDS)

    def sampler(**settings: object) -> BatchSampler:
        config = resolve(settings)
        return build_sampler(config, tokens, build_model(config.model, tokenizer.vocab_size))

    assert isinstance(sampler(model="bigram"), UniqueWindowSampler)
    assert isinstance(sampler(model="bigram", train={"batch_size": "all"}), UniqueWindowSampler)
    assert not isinstance(sampler(model="bigram", train={"batch_size": 4}), UniqueWindowSampler)
    assert not isinstance(sampler(model="bigram", train={"batch_tokens": 4}), UniqueWindowSampler)
    assert not isinstance(sampler(model="gpt"), UniqueWindowSampler)
    assert not isinstance(sampler(model={"name": "mlp", "context": 300}), UniqueWindowSampler)
