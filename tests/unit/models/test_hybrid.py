"""The hybrid of counts and a network: where it starts, and that it does not overfit the counts."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import STORY, Moreish
from moreish import api
from moreish.data.token_dataset import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate.loss import mean_loss
from moreish.evaluate.metrics import evaluate_losses
from moreish.models import build_model, model_config
from moreish.models.hybrid import Hybrid
from moreish.models.ngram.counts import Folds
from moreish.models.ngram.kneser_ney import KneserNey
from moreish.runs.run import Run
from moreish.training.events import ignore
from moreish.training.objectives import next_token_loss

pytestmark = pytest.mark.usefixtures("shape_checks")

NETWORK = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 16}


def hybrid(tokens: TokenDataset, size: int, order: int = 4, memory: int = 0) -> Hybrid:
    config = model_config(
        {"name": "hybrid", "network": NETWORK, "counts": {"order": order}, "memory": memory}
    )
    torch.manual_seed(0)
    model = build_model(config.for_data(None, size), size)
    assert isinstance(model, Hybrid)
    model.fit_counts(tokens)
    return model


def random_tokens(length: int, size: int, seed: int) -> TokenDataset:
    ids = np.random.default_rng(seed).integers(size, size=length)
    return TokenDataset(ids.astype("u1"), items=False)


@pytest.mark.parametrize("memory", [0, 50])
def test_candidates_and_rows_of_all_tokens_give_the_same_predictions(memory: int) -> None:
    tokens = TokenDataset((np.random.default_rng(0).zipf(1.3, 3000) % 40).astype("u1"), items=False)
    batch, predictions = tokens.gather(tokens.windows(16)[:8]), []
    for candidates in (False, True):
        config = model_config(
            {
                "name": "hybrid",
                "folds": 4,
                "memory": memory,
                "candidates": candidates,
                "network": {"name": "lstm", "width": 8},
                "counts": {"order": 4},
            }
        )
        model = build_model(config.for_data(None, 40), 40)
        model.fit_counts(tokens)
        torch.manual_seed(1)
        for parameter in model.get_submodule("network").parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        both = [model.training_logits(batch), model(batch.tokens_BT)[0]]
        loss = mean_loss(both[0], batch.targets_BT)
        loss.backward()
        grads = [p.grad for name, p in model.named_parameters() if "candidate" not in name]
        predictions.append([x.log_softmax(dim=-1) for x in both] + grads)
    torch.testing.assert_close(*predictions, atol=2e-5, rtol=1e-4)


def test_a_hybrid_starts_at_the_loss_of_its_counts() -> None:
    tokens, held_out = random_tokens(500, 5, 0), random_tokens(200, 5, 1)
    model = hybrid(tokens, 5)
    windows = held_out.gather(held_out.windows(16))
    torch.testing.assert_close(
        model(windows.tokens_BT)[0], model.counts(windows.tokens_BT)[0], atol=1e-5, rtol=0
    )
    batch = tokens.gather(tokens.windows(16))
    held_out_counts = KneserNey(model.counts.config, 5)
    folds = Folds(tokens, 20)
    held_out_counts.fit_folds(folds)
    fold_BT = torch.from_numpy(folds.of(batch.start_B[:, None] + np.arange(16)))
    honest = held_out_counts.log_probs_by_order(batch.tokens_BT, fold_BT=fold_BT, orders=1)[0][
        :, :, 0
    ]
    assert next_token_loss(model, batch).item() == pytest.approx(
        mean_loss(honest, batch.targets_BT).item(), abs=1e-4
    )


def test_a_hybrid_does_not_rely_on_counts_that_memorized_the_text() -> None:
    """Random text cannot be predicted, but counts of long contexts memorize it."""
    tokens, held_out = random_tokens(3000, 5, 0), random_tokens(1000, 5, 1)
    model = hybrid(tokens, 5, order=7)
    counts_loss = evaluate_losses(model.counts, tokens).mean()
    assert counts_loss < 0.8 * math.log(5)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        windows = tokens.windows(16)[np.random.default_rng(step).integers(180, size=32)]
        optimizer.zero_grad()
        next_token_loss(model, tokens.gather(windows)).backward()
        optimizer.step()
    assert evaluate_losses(model, held_out).mean() < math.log(5) + 0.1
    assert evaluate_losses(model.counts, held_out).mean() > evaluate_losses(model, held_out).mean()


@pytest.mark.parametrize(
    "network",
    [
        "gpt",
        *(pytest.param(n, marks=pytest.mark.soak) for n in ("mlp", "lstm", "wavenet", "bigram")),
    ],
)
def test_a_hybrid_trains_and_samples_with_any_network(network: str, tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(STORY * 6, encoding="utf-8")
    small = {"layers": 1, "heads": 2, "width": 16} if network == "gpt" else {}
    model = {"name": "hybrid", "network": {"name": network, **small}, "counts": {"order": 4}}
    settings = {"model": model}
    run = api.train(path, steps=4, settings=settings, out=tmp_path / "run", report=ignore)
    again = Run.open(run.path)
    assert again.score("val").loss == pytest.approx(run.scores["val"].loss, abs=1e-5)
    assert again.sample(2, max_tokens=20, seed=3) == run.sample(2, max_tokens=20, seed=3)


def test_short_names_of_the_networks_settings(moreish: Moreish, tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text(STORY * 6, encoding="utf-8")
    result = moreish(
        "train", tmp_path / "story.txt", "--model", "hybrid", "--context", 8, "--steps", 2,
        "--set", "model.width=16", "--set", "model.counts.order=3", "--out", "r",
    )  # fmt: skip
    assert result.status == 0, result.err
    config = Run.open("r").config.model
    assert (config.network.context, config.network.width, config.counts.order) == (8, 16, 3)
    for name in ("kneser-ney", "hybrid", "mixture"):
        with pytest.raises(MoreishError, match="trained by gradients"):
            model_config({"name": "hybrid", "network": {"name": name}})
