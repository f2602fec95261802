"""Losses of whole splits: exact, however they are batched, and their standard errors."""

import math

import numpy as np
import pytest
import torch

from conftest import Proved, item_tokens
from moreish.data.token_dataset import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate import metrics
from moreish.evaluate.metrics import Score, evaluate_losses, evaluation_windows, score
from moreish.models import Model, build_model, model_config
from moreish.runs.run import Run
from moreish.tokenizers.byte import ByteTokenizer

pytestmark = pytest.mark.usefixtures("shape_checks")


def test_a_uniform_model_has_the_uniform_loss() -> None:
    tokenizer, tokens = item_tokens(["ab", "abc", "c"])
    model = build_model(model_config({"name": "bigram"}), 4)
    found = score(evaluate_losses(model, tokens), tokens, tokenizer)
    assert found.loss == pytest.approx(math.log(4))
    assert found.bits_per_char == pytest.approx(2)
    assert found.perplexity == pytest.approx(4)
    assert found.stderr == pytest.approx(0, abs=1e-6)
    assert found.tokens == 9


@pytest.mark.parametrize("positions", [1, 7, 64, 100_000])
def test_the_batch_size_does_not_matter(
    small_run: Run,
    text_run: Run,
    positions: int,
    monkeypatch: pytest.MonkeyPatch,
    proved: Proved,
) -> None:
    for run in (small_run, text_run):
        reference = run.score("val")
        monkeypatch.setattr(metrics, "BATCH_POSITIONS", positions)
        assert run.score("val").loss == pytest.approx(reference.loss, abs=1e-6)
        assert run.score("val").stderr == pytest.approx(reference.stderr, abs=1e-6)
        monkeypatch.undo()
    proved(5, "the loss of a split is the same for every batch size, to 1e-6", {"batch sizes": 1})


def test_losses_are_those_of_one_item_at_a_time(small_run: Run) -> None:
    tokens = small_run.split("val")
    losses = evaluate_losses(small_run.model, tokens)
    for i in range(5):
        first, last = tokens.boundaries[i], tokens.boundaries[i + 1]
        ids = torch.from_numpy(tokens.ids_N[first : last + 1].astype(np.int64))[None]
        with torch.inference_mode():
            logp = small_run.model(ids[:, :-1])[0].log_softmax(-1)
        want = -logp[0].gather(1, ids[0, 1:, None])[:, 0]
        np.testing.assert_allclose(losses[first:last], want, atol=1e-5)


def test_windows_change_nothing_for_a_model_of_limited_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = np.random.default_rng(0).integers(0, 5, 4000).astype(np.uint8)
    tokens = TokenDataset(ids, items=False)
    model = build_model(model_config({"name": "mlp", "context": 6}), 5)
    torch.nn.init.normal_(model.head.weight)
    reference = evaluate_losses(model, tokens)
    monkeypatch.setattr(metrics, "WINDOW", 10_000)
    np.testing.assert_allclose(evaluate_losses(model, tokens), reference, atol=1e-5)


def test_a_stride_gives_every_token_more_context(text_run: Run) -> None:
    tokens = text_run.split("val")
    windows = evaluation_windows(text_run.model, tokens, 16)
    assert windows.skip_W.tolist()[:3] == [0, 48, 48]
    assert text_run.score("val", stride=1).tokens == text_run.score("val").tokens
    with pytest.raises(MoreishError, match="give 1 to 64"):
        text_run.score("val", stride=65)


def test_the_standard_error_counts_items_not_tokens() -> None:
    """If all tokens of an item have the same loss, the error is that of the mean over items."""
    tokenizer, tokens = item_tokens(["aaa"] * 200)
    costs = np.random.default_rng(0).normal(3, 1, 200).astype(np.float32)
    found = score(np.repeat(costs, 4), tokens, tokenizer)
    assert found.stderr == pytest.approx(costs.std(ddof=1) / math.sqrt(200), rel=1e-3)


def test_the_standard_error_is_the_spread_of_the_means() -> None:
    rng = np.random.default_rng(1)
    means, errors = [], []
    for _ in range(300):
        items = ["a" * n for n in rng.integers(1, 9, 100)]
        tokenizer, tokens = item_tokens(items)
        losses = rng.exponential(2, tokens.num_predictions).astype(np.float32)
        found = score(losses, tokens, tokenizer)
        means.append(found.loss)
        errors.append(found.stderr)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


def test_bytes_and_characters_are_counted() -> None:
    tokenizer = ByteTokenizer(boundary=True)
    tokens = TokenDataset(np.array([0, *tokenizer.encode("né"), 0], dtype=np.uint16), items=True)
    found = score(np.full(4, math.log(2), dtype=np.float32), tokens, tokenizer)
    assert found.bits_per_byte == pytest.approx(1)
    assert found.bits_per_char == pytest.approx(4 / 3)


def test_json_has_null_for_infinity_and_nan() -> None:
    bits = {"bits_per_char": 1.0, "bits_per_byte": 1.0}
    found = Score(loss=math.inf, stderr=math.nan, perplexity=math.inf, tokens=3, **bits)
    assert found.as_json()["loss"] is None
    assert math.isinf(Score.model_validate(found.as_json()).loss)


def test_surprisal_adds_up_to_the_loss(small_run: Run) -> None:
    tokens = small_run.split("val")
    item = small_run.tokenizer.decode(tokens.item(3))
    found = small_run.surprisal(item)
    first, last = tokens.boundaries[3], tokens.boundaries[4]
    np.testing.assert_allclose(
        [t.nats for t in found], evaluate_losses(small_run.model, tokens)[first:last], atol=1e-5
    )
    assert [t.token for t in found] == [*item, "·"]


def test_running_text_of_any_length_has_a_surprisal(text_run: Run) -> None:
    text = "The cat " * 40
    found = text_run.surprisal(text)
    assert "".join(token.token for token in found).replace("␣", " ") == text
    after_a_line_end = evaluate_losses(
        text_run.model,
        TokenDataset(text_run.tokenizer.encode("\nT").astype(np.uint8), items=False),
    )
    assert text_run.surprisal("T")[0].nats == pytest.approx(after_a_line_end[0], abs=1e-5)
    with pytest.raises(MoreishError, match="no text"):
        text_run.surprisal("")
    with pytest.raises(MoreishError, match="vocabulary: 'Z'"):
        text_run.surprisal("aZ")


def test_the_logits_of_a_pass_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    characters = "".join(chr(0x4E00 + i) for i in range(6000))
    tokenizer, tokens = item_tokens([characters[i : i + 20] for i in range(0, 6000, 20)])
    model = build_model(model_config({"name": "bigram"}), tokenizer.vocab_size)
    sizes: list[int] = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model),
        "forward",
        lambda self, ids, state=None: sizes.append(ids.numel()) or forward(self, ids, state),
    )
    losses = metrics.evaluate_losses(model, tokens)
    assert len(losses) == tokens.num_predictions
    assert max(sizes) * tokenizer.vocab_size <= metrics.BATCH_LOGITS


def test_batches_are_halved_until_they_fit(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches stay at the size that fits; here the memory holds three rows."""
    tokens, model = text_run.split("val"), text_run.model
    want = evaluate_losses(model, tokens)
    monkeypatch.setattr(metrics, "BATCH_POSITIONS", 64 * 8)
    rows: list[int] = []
    forward, max_rows = type(model).forward, 3

    def limited(self: Model, ids: torch.Tensor, state: object = None) -> object:
        rows.append(len(ids))
        if len(ids) > max_rows:
            raise torch.OutOfMemoryError
        return forward(self, ids, state)

    monkeypatch.setattr(type(model), "forward", limited)
    np.testing.assert_allclose(evaluate_losses(model, tokens), want, atol=1e-5)
    assert rows[:3] == [8, 4, 2]
    assert max(rows[3:]) == 2
    max_rows = 0
    with pytest.raises(torch.OutOfMemoryError):
        evaluate_losses(model, tokens)


def test_batches_on_a_gpu_grow_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(model_config({"name": "gpt", "width": 64}), 65)
    assert metrics.batch_positions(model) == metrics.BATCH_POSITIONS
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**33))
    assert metrics.batch_positions(model) == 2**30 // (4 * metrics.GPU_ACTIVATIONS) // 256
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**40, 2**40))
    assert metrics.batch_positions(model) * 256 <= 2**31
