"""Parts of models: averaging in three forms, recurrences, rotary embedding, switches."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import STORY
from moreish import api
from moreish.config import resolve
from moreish.errors import MoreishError
from moreish.models import build_model, model_config
from moreish.models.bow import causal_average
from moreish.models.gpt.attention import Attention
from moreish.models.gpt.layers import FeedForward, NgramEmbedding, apply_rope, rope_table
from moreish.models.gpt.model import GPT, GPTConfig
from moreish.models.rnn import GRU, LSTM, RNN, Recurrent
from moreish.training.events import ignore

pytestmark = pytest.mark.usefixtures("shape_checks")


@pytest.mark.parametrize("context", [1, 3, 8, 100])
def test_averaging_the_context_in_three_forms(context: int) -> None:
    """The GPT lecture's: a loop, a product with a triangular matrix, a softmax of masked zeros."""
    x = torch.randn(4, 8, 2)
    loop = torch.stack([x[:, max(0, t + 1 - context) : t + 1].mean(dim=1) for t in range(8)], 1)
    is_seen = torch.ones(8, 8).tril().triu(1 - context) == 1
    affinity = torch.zeros(8, 8).masked_fill(~is_seen, -torch.inf)
    torch.testing.assert_close(causal_average(x, context), loop)
    torch.testing.assert_close(affinity.softmax(dim=-1) @ x, loop)
    torch.testing.assert_close(loop[:, 0], x[:, 0])
    if context >= 8:
        torch.testing.assert_close(loop[:, -1], x.mean(1))


@pytest.mark.parametrize(("ours", "theirs"), [("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_recurrences_equal_pytorchs(ours: str, theirs: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    model = build_model(model_config({"name": ours, "width": 16}), 9)
    assert isinstance(model, Recurrent)
    nn.init.normal_(model.head.weight)
    nn.init.normal_(model.recurrent.bias)
    oracle = theirs(16, 16, batch_first=True)
    oracle.load_state_dict(
        {
            "weight_ih_l0": model.input.weight,
            "bias_ih_l0": model.input.bias,
            "weight_hh_l0": model.recurrent.weight,
            "bias_hh_l0": model.recurrent.bias,
        }
    )
    tokens = torch.randint(9, (3, 20))
    hidden, _ = oracle(model.embedding(tokens))
    torch.testing.assert_close(model(tokens)[0], model.head(hidden), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_a_recurrent_state_does_not_grow(kind: type[Recurrent]) -> None:
    model = kind(kind.Config(width=8), 5)
    _, short = model(torch.randint(5, (1, 3)))
    _, long = model(torch.randint(5, (1, 3000)))
    assert [part.shape for part in short] == [part.shape for part in long] == [(1, 8)] * len(short)


def test_wavenet_context_is_two_to_the_power_of_its_layers() -> None:
    model = build_model(model_config({"name": "wavenet", "layers": 3, "width": 8}), 5).eval()
    nn.init.normal_(model.head.weight)
    tokens = torch.randint(5, (1, 30))
    before = model(tokens)[0][0, 20]
    for back in range(21):
        other = tokens.clone()
        other[0, 20 - back] = (other[0, 20 - back] + 1) % 5
        seen = not torch.equal(model(other)[0][0, 20], before)
        assert seen == (back < 8)


def test_separate_embeddings_depend_on_the_place() -> None:
    for shared in (True, False):
        config = {"name": "mlp", "context": 3, "embedding": 4, "hidden": 8, "shared": shared}
        model = build_model(model_config(config), 5)
        assert model.embedding.weight.shape == ((5 if shared else 15), 4)


def test_direct_connections_are_linear() -> None:
    """With the tanh layer silenced, logits are linear in the embeddings."""
    model = build_model(model_config({"name": "mlp", "context": 2, "direct": True}), 5)
    nn.init.normal_(model.direct.weight)
    tokens = torch.randint(5, (1, 6))
    once = model(tokens)[0]
    with torch.no_grad():
        model.embedding.weight.mul_(2)
    torch.testing.assert_close(model(tokens)[0], 2 * once)


def test_a_rotary_product_depends_on_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 9), torch.randn(1, 1, 1, 9)

    def rotated(x: torch.Tensor, place: int) -> torch.Tensor:
        return apply_rope(x, rope_table(torch.tensor([place]), 9))

    def product(i: int, j: int) -> torch.Tensor:
        return (rotated(q, i) * rotated(k, j)).sum()

    torch.testing.assert_close(product(3, 1), product(103, 101), atol=1e-4, rtol=0)
    assert abs(product(3, 1) - product(4, 1)) > 1e-3
    torch.testing.assert_close(rotated(q, 7).norm(), q.norm())


def test_the_variance_of_affinities() -> None:
    """The GPT lecture: about the head size unscaled, about one scaled."""
    torch.manual_seed(1337)
    q, k = torch.randn(8, 64, 16), torch.randn(8, 64, 16)
    affinity = q @ k.mT
    assert affinity.var() == pytest.approx(16, rel=0.1)
    assert (affinity * 16**-0.5).var() == pytest.approx(1, rel=0.1)


def test_shared_keys_equal_copied_ones() -> None:
    torch.manual_seed(0)
    grouped = Attention(GPTConfig(width=16, heads=4, kv_heads=2))
    full = Attention(GPTConfig(width=16, heads=4))
    with torch.no_grad():
        q, k, v = grouped.qkv.weight.split([16, 8, 8])
        copied = [part.view(2, 4, 16).repeat_interleave(2, 0).reshape(16, 16) for part in (k, v)]
        full.qkv.weight.copy_(torch.cat([q, *copied]))
        full.qkv.bias.zero_()
        grouped.qkv.bias.zero_()
        full.out.load_state_dict(grouped.out.state_dict())
    x = torch.randn(2, 8, 16)
    torch.testing.assert_close(grouped(x, None, None)[0], full(x, None, None)[0])
    assert grouped(x, None, None)[1][0].shape == (2, 2, 8, 4)  # the cache is half as large


@pytest.mark.parametrize("settings", [{}, {"positions": "rotary", "qk_norm": True, "kv_heads": 2}])
def test_attention_maps_are_what_attention_does(settings: dict[str, object]) -> None:
    config = GPTConfig(layers=2, heads=4, width=16, context=8, **settings)
    model = GPT(config, 5).eval()
    tokens = torch.randint(5, (2, 8))
    maps = model.attention_maps(tokens)
    assert [m.shape for m in maps] == [(2, 4, 8, 8)] * 2
    for m in maps:
        torch.testing.assert_close(m.sum(-1), torch.ones(2, 4, 8))
        assert (m.triu(1) == 0).all()
    attention = model.blocks[0].attention
    inputs: list[tuple[Any, ...]] = []
    attention.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments))
    model(tokens)
    x, rope, _ = inputs[0]
    _, _, v = attention.split_heads(x, rope)
    groups = config.heads // (config.kv_heads or config.heads)
    mixed = maps[0] @ v.repeat_interleave(groups, 1)
    expected = attention.out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, rope, None)[0], expected)


def test_post_norm_equals_the_paper_of_2017() -> None:
    config = GPTConfig(layers=1, heads=2, width=8, context=8, norm_place="after", bias=False)
    model = GPT(config, 5)
    block, x = model.blocks[0], torch.randn(1, 8, 8)
    y = block.norm_attention(x + block.attention(x, None, None)[0])
    y = block.norm_feedforward(y + block.feedforward(y))
    torch.testing.assert_close(block(x, None, None)[0], y)
    assert isinstance(model.norm, nn.Identity)


def test_feed_forwards() -> None:
    x = torch.randn(2, 3, 6)
    for activation, function in (("relu", F.relu), ("relu2", lambda y: F.relu(y) ** 2)):
        layer = FeedForward(GPTConfig(width=6, heads=1, feedforward=activation))
        torch.testing.assert_close(layer(x), layer.down(function(layer.up(x))))
    gated = FeedForward(GPTConfig(width=6, heads=1, bias=False, feedforward="swiglu"))
    a, b = gated.up(x).chunk(2, -1)
    torch.testing.assert_close(gated(x), gated.down(F.silu(a) * b))
    plain = FeedForward(GPTConfig(width=6, heads=1, bias=False, feedforward="gelu"))
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in (gated, plain)]
    assert sizes[0] == sizes[1]  # the gate is paid for


def test_soft_capped_logits_stay_within() -> None:
    model = GPT(GPTConfig(layers=1, heads=1, width=8, context=8, softcap=2.0), 5)
    nn.init.normal_(model.head.weight, std=100)
    logits = model(torch.randint(5, (2, 8)))[0]
    assert logits.abs().max() <= 2
    assert logits.abs().max() > 1


def test_every_switch_starts_near_uniform() -> None:
    for settings in (
        {"norm": "rms", "positions": "rotary", "tied": True, "softcap": 15.0},
        {"norm_place": "after", "tied": True},
    ):
        model = GPT(GPTConfig(**settings), 65)
        tokens = torch.randint(65, (4, 64))
        loss = F.cross_entropy(model(tokens)[0].flatten(0, 1), tokens.roll(-1, 1).flatten())
        assert abs(loss.item() - math.log(65)) < 0.02, settings


def test_a_mixture_trains_like_its_network() -> None:
    for network in ("mlp", "gpt", "bigram"):
        alone = resolve({"model": {"name": network}}).train
        mixed = resolve({"model": {"name": "mixture", "network": {"name": network}}}).train
        assert mixed == alone
    with pytest.raises(
        MoreishError, match="a network that is trained by gradients, not kneser-ney"
    ):
        resolve({"model": {"name": "mixture", "network": {"name": "kneser-ney"}}})


def test_the_weight_suits_the_windows_that_are_evaluated(tmp_path: Path) -> None:
    """A windowed network: its counts begin afresh in every window too."""
    path = tmp_path / "story.txt"
    path.write_text(STORY * 8, encoding="utf-8")
    gpt = {"name": "gpt", "layers": 1, "heads": 1, "width": 8, "context": 4}
    settings = {"model": {"name": "mixture", "network": gpt, "counts": {"order": 6}}}
    run = api.train(path, steps=30, settings=settings, out=tmp_path / "run", report=ignore)
    best, weight = run.scores["val"].loss, float(run.model.weight)
    for other in (weight - 0.05, weight + 0.05):
        if 0 < other < 1:
            run.model.weight.fill_(other)
            assert run.score("val").loss > best


@pytest.mark.parametrize(("rows", "length"), [(10_000, 3), (64, 3), (10_000, 1)])
def test_equal_n_grams_have_equal_embeddings(rows: int, length: int) -> None:
    embedding = NgramEmbedding(length, 7, GPTConfig(width=8, ngram_embedding_rows=rows))
    nn.init.normal_(embedding.table.weight)
    assert embedding.is_exact == (7**length <= rows)
    tokens = torch.randint(7, (1, 30))
    x = embedding(tokens, 30)[0]
    assert (x[: length - 1] == 0).all()  # the n-gram would reach back beyond the start
    seen: dict[tuple[int, ...], torch.Tensor] = {}
    for t in range(length - 1, 30):
        gram = tuple(tokens[0, t - length + 1 : t + 1].tolist())
        torch.testing.assert_close(x[t], seen.setdefault(gram, x[t]))
    if embedding.is_exact:
        assert len({tuple(v.tolist()) for v in seen.values()}) == len(seen)
    torch.testing.assert_close(embedding(tokens, 4)[0], x[-4:])


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2s_initialization(tied: bool) -> None:
    settings = {"name": "gpt", "layers": 6, "width": 256, "heads": 4, "context": 64, "tied": tied}
    torch.manual_seed(0)
    model = build_model(model_config({**settings, "init": "gpt2"}), 500)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            joins = name.endswith(("out.weight", "down.weight"))
            expected = 0.02 / math.sqrt(12) if joins else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
    logits, _ = model(torch.arange(64)[None])
    loss = F.cross_entropy(logits[0], torch.arange(1, 65))
    assert loss.item() == pytest.approx(math.log(500), abs=0.15)


def test_weights_with_the_names_of_version_0_1_0_load() -> None:
    config = GPTConfig(layers=1, heads=1, width=8, context=8, ngram_embedding=2)
    state = GPT(config, 5, num_features=3).state_dict()
    for name in ("ngram_embeddings.0.table.weight", "feature_projection.weight"):
        nn.init.normal_(state[name])
    old = {
        name.replace("ngram_embeddings.", "grams.").replace("feature_projection.", "hints."): tensor
        for name, tensor in state.items()
    }
    assert {"grams.0.table.weight", "hints.weight"} <= old.keys()
    model = GPT(config, 5, num_features=3)
    model.load_state_dict(old)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
