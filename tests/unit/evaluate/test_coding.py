"""Arithmetic coding: the length of a code is the loss, and decoding gives the text back."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreish import api
from moreish.errors import MoreishError
from moreish.evaluate import AdaptiveModel, adaptive, adaptive_losses
from moreish.evaluate.coding import Decoder, Encoder, decode_tokens, encode_tokens, frequencies
from moreish.runs.run import Run
from moreish.settings import Tree
from moreish.training.events import ignore

GPT: Tree = {"name": "gpt", "layers": 1, "heads": 2, "width": 16, "context": 16}
MODELS: dict[str, Tree] = {
    "kneser-ney": {"name": "kneser-ney"},
    "mlp": {"name": "mlp", "context": 3},
    "lstm": {"name": "lstm", "width": 8, "context": 16},
    "gpt": {**GPT, "positions": "learned"},
    "hybrid": {"name": "hybrid", "network": {**GPT, "positions": "rotary"}, "folds": 4},
}
STORY = "the cat sat on the mat, and Anna told the cat of a rat. " * 12


@settings(deadline=None, max_examples=60)
@given(
    tokens=st.lists(st.integers(0, 6), max_size=300),
    skew=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 9),
)
def test_codes_are_as_long_as_their_loss(tokens: list[int], skew: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    logits = skew * random.normal(size=(len(tokens), 7))
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    cumulatives = [frequencies(row) for row in probabilities]
    encoder = Encoder()
    for token, cumulative in zip(tokens, cumulatives, strict=True):
        encoder.encode(token, cumulative)
    code = encoder.finish()
    decoder = Decoder(code)
    assert [decoder.decode(cumulative) for cumulative in cumulatives] == tokens
    bits = sum(
        math.log2(cumulative[-1] / (cumulative[token + 1] - cumulative[token]))
        for token, cumulative in zip(tokens, cumulatives, strict=True)
    )
    assert bits / 8 <= len(code) <= bits / 8 + 1.4


@pytest.fixture(scope="module", params=MODELS)
def text_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("coding")
    (folder / "story.txt").write_text(STORY)
    chosen: Tree = {"model": MODELS[request.param], "data": {"kind": "text"}}
    return api.train(
        folder / "story.txt", steps=20, out=folder / "r", settings=chosen, report=ignore
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_codes_of_a_split(text_run: Run, adaptive: bool) -> None:
    scores = text_run.evaluate(adaptive=adaptive, code=True)
    score = scores["val"]
    loss = score.adaptive_loss if adaptive else score.running_loss
    assert loss is not None and score.code_bytes is not None
    nats = 8 * math.log(2) * score.code_bytes
    # Within two bytes, unless a model reads half of its context again, which it does less often
    # where it reads token by token.
    slack = 0.05 * loss * score.tokens if text_run.config.model.name == "gpt" else 0.0
    assert nats == pytest.approx(loss * score.tokens, abs=12 + slack)


def test_an_adaptive_model_learns_and_leaves_the_model_alone(text_run: Run) -> None:
    before = [parameter.clone() for parameter in text_run.model.parameters()]
    training = text_run.split("train")
    # Read twice, the second time is easier.
    twice = type(training)(np.tile(text_run.split("val").ids_N[:], 40), items=False)
    losses = adaptive_losses(text_run.model, twice, training)
    assert losses[-300:].mean() < losses[:300].mean()
    for old, new in zip(before, text_run.model.parameters(), strict=True):
        assert old.equal(new)


def test_counts_learn_from_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "story.txt").write_text(STORY)
    chosen: Tree = {"model": MODELS["kneser-ney"], "data": {"kind": "text"}}
    run = api.train(tmp_path / "story.txt", out=tmp_path / "r", settings=chosen, report=ignore)
    training = run.split("train")
    backward = type(training)(training.ids_N[::-1].copy(), items=False)
    monkeypatch.setattr(adaptive, "COUNTED", 100)
    learned = adaptive_losses(run.model, backward, training)
    fixed = adaptive_losses(run.model, backward, None)
    assert learned[:100] == pytest.approx(fixed[:100])
    assert learned[-100:].mean() < fixed[-100:].mean() / 2


def test_a_list_is_coded_item_by_item(tmp_path: Path) -> None:
    names = [a + b + c for a in ("ka", "ri", "mo") for b in ("lu", "na", "te") for c in "sxz"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    run = api.train(tmp_path / "names.txt", model="kneser-ney", out=tmp_path / "r", report=ignore)
    score = run.evaluate(code=True)["val"]
    assert score.code_bytes is not None
    nats = 8 * math.log(2) * score.code_bytes
    assert nats == pytest.approx(score.loss * score.tokens, abs=8)
    with pytest.raises(MoreishError, match="is for running text"):
        run.evaluate(adaptive=True)


def test_the_code_needs_the_model(text_run: Run) -> None:
    """With other probabilities, the code means another text."""
    tokens = text_run.split("val")
    code = encode_tokens(text_run.model, tokens, adaptive=AdaptiveModel(text_run.model, None))
    other = AdaptiveModel(text_run.model, None)
    for parameter in other.model.parameters():
        parameter.data.mul_(-1.5)
    if not list(other.model.parameters()):
        other.model.fit_counts(tokens)
    first, number = int(tokens.ids_N[0]), tokens.num_predictions
    same = AdaptiveModel(text_run.model, None)
    ids = decode_tokens(text_run.model, code, first, number, adaptive=same)
    assert ids.tolist() == tokens.ids_N.tolist()
    ids = decode_tokens(text_run.model, code, first, number, adaptive=other)
    assert ids.tolist() != tokens.ids_N.tolist()
