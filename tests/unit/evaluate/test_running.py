"""The running loss: what a model predicts whose state is carried through a whole split."""

from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import Moreish
from moreish import api
from moreish.errors import MoreishError
from moreish.evaluate import evaluate_losses, running_losses
from moreish.evaluate.loss import token_losses
from moreish.models import Model
from moreish.runs.run import Run
from moreish.settings import Tree
from moreish.training.events import ignore

GPT: Tree = {"name": "gpt", "layers": 2, "heads": 2, "width": 16, "context": 12}
MODELS: dict[str, Tree] = {
    "kneser-ney": {"name": "kneser-ney"},
    "mlp": {"name": "mlp", "context": 3},
    "lstm": {"name": "lstm", "width": 8, "context": 16},
    "rotary": {**GPT, "positions": "rotary"},
    "learned": {**GPT, "positions": "learned"},
    "hybrid": {"name": "hybrid", "network": {**GPT, "positions": "rotary"}, "folds": 4},
    "hybrid of an mlp": {"name": "hybrid", "network": {"name": "mlp", "context": 3}, "folds": 4},
}
STORY = "the cat sat on the mat, and Anna told the cat of a rat in a hat. " * 12


def train(folder: Path, model: Tree, text: str = STORY, kind: str = "text") -> Run:
    (folder / "story.txt").write_text(text)
    chosen: Tree = {"model": model, "data": {"kind": kind}}
    return api.train(
        folder / "story.txt", steps=15, out=folder / "r", settings=chosen, report=ignore
    )


@torch.inference_mode()
def token_by_token(model: Model, ids: np.ndarray) -> np.ndarray:
    losses, state = [], None
    for token, target in pairwise(ids):
        logits_11V, state = model(torch.tensor([[int(token)]]), state)
        losses.append(token_losses(logits_11V, torch.tensor([[int(target)]])).item())
    return np.array(losses)


@pytest.mark.parametrize("name", MODELS)
def test_running_is_token_by_token(name: str, tmp_path: Path) -> None:
    run = train(tmp_path, MODELS[name])
    tokens = run.split("val")
    losses = running_losses(run.model, tokens)
    assert losses is not None and len(losses) == tokens.num_predictions
    expected = token_by_token(run.model, tokens.ids_N)
    if name == "learned":  # windows that overlap by half; token by token it is the same on average
        assert losses.mean() == pytest.approx(expected.mean(), rel=0.05)
    else:
        assert losses == pytest.approx(expected, abs=2e-4)
    score = run.scores["val"]
    assert score.running_loss == pytest.approx(float(losses.mean()), abs=1e-6)
    assert run.evaluate()["val"].running_loss == pytest.approx(score.running_loss, abs=1e-6)
    if name in ("kneser-ney", "mlp"):
        assert losses == pytest.approx(evaluate_losses(run.model, tokens), abs=1e-5)


def test_items_have_no_running_loss(tmp_path: Path) -> None:
    names = [a + b for a in ("ka", "ri", "mo", "lu") for b in ("lu", "na", "te", "so", "vi")]
    run = train(tmp_path, {"name": "mlp"}, "\n".join(names), kind="lines")
    assert running_losses(run.model, run.split("val")) is None
    assert run.scores["val"].running_loss is None
    assert "running_loss" not in run.scores["val"].as_json()


def test_nothing_is_computed_where_it_takes_too_long(tmp_path: Path) -> None:
    run = train(tmp_path, MODELS["rotary"])
    assert running_losses(run.model, run.split("train"), max_seconds=0.0) is None


def test_what_was_remembered_is_expected_again(tmp_path: Path, moreish: Moreish) -> None:
    run = train(tmp_path, MODELS["hybrid"], STORY * 8)
    prompt = "and Anna told the ca"
    options = {"prompt": prompt, "max_tokens": 1, "seed": 0}
    plain = run.sample(60, **options)
    primed = run.sample(60, **options, remember="and Anna told the can " * 30)
    assert sum(text.endswith("can") for text in primed) > sum(
        text.endswith("can") for text in plain
    )
    assert list(primed) == list(run.sample(60, **options, remember="and Anna told the can " * 30))
    streamed = "".join(run.stream(prompt=prompt, max_tokens=9, seed=1, remember="a cat " * 5))
    assert [streamed] == run.sample(prompt=prompt, max_tokens=9, seed=1, remember="a cat " * 5)
    with pytest.raises(MoreishError, match="vocabulary"):
        run.sample(remember="žluťoučký")
    (tmp_path / "pages.txt").write_text("a cat " * 5)
    command = ("sample", run.path, "--prompt", prompt, "--max-tokens", 9, "--seed", 1)
    from_file = moreish(*command, "--remember", tmp_path / "pages.txt")
    assert from_file.out == streamed + "\n"
    assert moreish(*command, "--remember", "a cat " * 5).out == streamed + "\n"
    missing = moreish(*command, "--remember", "pagse.txt")
    assert missing.status == 2 and "there is no such file" in missing.err


def test_surprisal_after_a_text_to_remember_is_token_by_token(tmp_path: Path) -> None:
    run = train(tmp_path, MODELS["hybrid"])
    before, text = "a rat in a hat. " * 60, "and Anna told the cat of a mat. " * 3
    found = run.surprisal(text, remember=before)
    assert [token.token for token in found] == [token.token for token in run.surprisal(text)]
    ids = run.tokenizer.encode(text)
    prefix = run.encode_remembered(before, "error", ids)
    last_1T, state = run.model.skip_to_end(torch.from_numpy(prefix)[None])
    expected = []
    with torch.inference_mode():
        for token in ids:
            logits_1TV, state = run.model(last_1T, state)
            last_1T = torch.tensor([[int(token)]])
            expected.append(token_losses(logits_1TV[:, -1:], last_1T).item())
    assert [token.nats for token in found] == pytest.approx(expected, abs=2e-4)
    first = {token.id: token.probability for token in run.next(n=99, remember=before)}
    assert found[0].probability == pytest.approx(first[found[0].id], abs=1e-5)


def test_only_characters_of_the_vocabulary_are_remembered(tmp_path: Path) -> None:
    run = train(tmp_path, MODELS["hybrid"])
    known = run.next(remember="the cat")
    assert run.next(remember="«the cat»", unknown="drop") == known
    with pytest.raises(MoreishError, match="'«' '»'"):
        run.next(remember="«the cat»")
    with pytest.raises(MoreishError, match="nothing of the text to remember"):
        run.next(remember="«»", unknown="drop")


def test_only_models_with_a_memory_remember(tmp_path: Path) -> None:
    run = train(tmp_path, MODELS["rotary"])
    for call in (run.sample, run.next, partial(run.surprisal, "the")):
        with pytest.raises(MoreishError, match="no memory of recent text"):
            call(remember="the cat")
