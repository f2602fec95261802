"""Optimizers, Muon above all: against PyTorch's own, and as the paper says it."""

import pytest
import torch

from moreish.config import TrainConfig
from moreish.models import build_model, model_config
from moreish.training.optim import (
    MUON_LR,
    build_optimizer,
    hidden_matrices,
    orthogonalize,
    set_lr,
)

GPT = {"name": "gpt", "layers": 2, "heads": 2, "width": 16, "context": 8}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 64), (2, 5, 40)])
def test_singular_values_are_near_one(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_matrices_of_one_shape_do_not_touch_each_other() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, 16)
    together = orthogonalize(x)
    for i in range(3):
        torch.testing.assert_close(together[i], orthogonalize(x[i : i + 1])[0])


def test_muon_has_the_matrices_between_vectors_and_adamw_the_rest() -> None:
    model = build_model(model_config(GPT), 27)
    own = {id(matrix) for matrix in hidden_matrices(model)}
    names = {name for name, p in model.named_parameters() if id(p) in own}
    assert names == {
        f"blocks.{i}.{part}.weight"
        for i in (0, 1)
        for part in ("attention.qkv", "attention.out", "feedforward.up", "feedforward.down")
    }
    optimizer = build_optimizer(model, TrainConfig(optimizer="muon"))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))


def test_a_step_is_pytorchs_own() -> None:
    """torch.optim.Muon reckons in bfloat16, so the directions agree to a per cent."""
    torch.manual_seed(0)
    model = build_model(model_config(GPT), 27)
    matrices = hidden_matrices(model)
    before = [m.detach().clone() for m in matrices]
    theirs = [m.detach().clone().requires_grad_() for m in matrices]
    config = TrainConfig(optimizer="muon", weight_decay=0.1)
    optimizer = build_optimizer(model, config)
    peer = torch.optim.Muon(theirs, lr=MUON_LR, weight_decay=0.1, momentum=0.95, nesterov=True)
    set_lr(optimizer, MUON_LR)
    for _ in range(3):
        for ours, other in zip(matrices, theirs, strict=True):
            ours.grad = torch.randn_like(ours)
            other.grad = ours.grad.clone()
        optimizer.step()
        peer.step()
    for ours, other, old in zip(matrices, theirs, before, strict=True):
        a, b = (ours.detach() - old).flatten(), (other.detach() - old).flatten()
        assert torch.cosine_similarity(a, b, dim=0) > 0.99
        assert a.norm() / b.norm() == pytest.approx(1, abs=0.03)
