"""The contract of every registered model, and what is particular to each."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import repetitions
from moreish.data.token_dataset import Batch
from moreish.errors import MoreishError
from moreish.generate.decode import generate
from moreish.generate.sampling import Sampling
from moreish.models import CountBasedModel, build_model, model_class, model_config
from moreish.models.base import select_rows
from moreish.models.gpt.attention import Attention
from moreish.models.gpt.config import GPTConfig
from moreish.models.gpt.model import GPT
from moreish.models.hybrid import Hybrid
from moreish.training.objectives import next_token_loss
from support.model_contract import (
    CASES,
    GPT_SMALL,
    NAMES,
    PYTORCH_INIT,
    VOCABULARY,
    build,
    check_causality,
    check_decoding_by_state,
    check_learning,
    check_uniform_start,
    tokens_of,
)

each_model = pytest.mark.parametrize(("name", "settings"), CASES)


@each_model
@pytest.mark.usefixtures("shape_checks")
@pytest.mark.parametrize(
    "check", [check_causality, check_decoding_by_state, check_uniform_start, check_learning]
)
def test_every_model_fulfills_the_contract(
    check: Callable[[str, dict], None], name: str, settings: dict
) -> None:
    check(name, settings)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not issubclass(model_class(n), CountBasedModel | Hybrid)]
)
@pytest.mark.parametrize("vocabulary", [27, 65, 1000])
def test_models_of_default_size_start_at_the_uniform_loss_too(name: str, vocabulary: int) -> None:
    for settings in [{}] + [{"tied": True}, {"tied": True, "width": 512}] * (name == "gpt"):
        config = model_config({"name": name, **settings}).for_data(None, vocabulary)
        model = build_model(config, vocabulary)
        tokens = torch.randint(vocabulary, (4, min(64, model.max_length or 64)))
        loss = next_token_loss(model, Batch(tokens_BT=tokens, targets_BT=tokens.roll(-1, 1)))
        tolerance = PYTORCH_INIT if name == "lecture-gpt" else 0.02
        assert abs(loss.item() - math.log(vocabulary)) < tolerance


@each_model
def test_the_weights_determine_the_model(name: str, settings: dict) -> None:
    model = build(name, settings)
    config = model_config({"name": name, **settings}).for_data(None, VOCABULARY)
    torch.manual_seed(99)
    again = build_model(config, VOCABULARY).eval()
    again.load_state_dict(model.state_dict())
    tokens = tokens_of(2, 9)
    assert torch.equal(again(tokens)[0], model(tokens)[0])


@each_model
@torch.inference_mode()
def test_generation_continues_beyond_the_context(name: str, settings: dict) -> None:
    model = build(name, settings)
    state, tokens = None, tokens_of(2, 60)
    for piece in tokens.split(1, dim=1):
        logits, state = model(piece, state)
        assert logits.shape == (2, 1, VOCABULARY)
        assert not logits.isnan().any()


def longer(settings: dict[str, Any], context: int) -> dict[str, Any]:
    """The same settings with room for so many positions."""
    if "network" in settings:
        return settings | {"network": longer(settings["network"], context)}
    return settings | ({"context": context} if "heads" in settings else {})


@pytest.mark.repeated
@each_model
@torch.inference_mode()
def test_greedy_decoding_by_state_is_greedy_decoding(name: str, settings: dict) -> None:
    """Many tokens, each of them (but for rounding) the most likely after all those before it.

    One pass over the whole is decoding without a state, since no position sees the future.
    """
    model = build(name, longer(settings, repetitions(3000) + 1), scrambled=False)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    steps = generate(
        model,
        np.array([3]),
        streams=range(1),
        max_tokens=100 if name == "lecture-gpt" else repetitions(3000),  # no state
        sampling=Sampling(temperature=0),
        seed=0,
    )
    tokens = torch.cat([torch.tensor([3]), *(token for token, _ in steps)])[None]
    logits = model(tokens[:, :-1])[0]
    chosen = logits.gather(2, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(chosen, logits.amax(-1), atol=1e-4, rtol=0)


@each_model
@torch.inference_mode()
def test_a_state_can_be_continued_twice_and_in_part(name: str, settings: dict) -> None:
    model = build(name, settings)
    tokens = tokens_of(5, 40)
    state = None
    for place in range(40):
        one, other = tokens[:, place, None], (tokens[:, place, None] + 1) % VOCABULARY
        logits, after = model(one, state)
        _, elsewhere = model(other, state)
        model(other, elsewhere)
        again, _ = model(one, state)
        torch.testing.assert_close(again, logits, atol=1e-5, rtol=0)
        some = torch.tensor([True, False, True, True, False])
        if state is not None:
            few, _ = model(one[some], select_rows(state, some))
            torch.testing.assert_close(few, logits[some], atol=1e-5, rtol=0)
        state = after


ROTARY = GPT_SMALL | {"positions": "rotary", "qk_norm": True, "kv_heads": 1}


@torch.inference_mode()
def test_rotary_positions_slide() -> None:
    """Each layer sees the last positions of the layer below: as a mask would have it."""
    model, oracle = build("gpt", ROTARY), build("gpt", ROTARY | {"context": 128})
    assert isinstance(model, GPT)
    for block in oracle.blocks:
        block.attention.context = 16
    tokens = tokens_of(2, 120)
    first, state = oracle(tokens[:, :1])
    rest, _ = oracle(tokens[:, 1:], state)
    computed: list[int] = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: computed.append(inputs[0].shape[1]))
    for cuts in ([1] * 120, [9, 16, 3, 16, 16, 1, 16, 16, 16, 11]):
        state, pieces = None, []
        for piece in tokens.split(cuts, dim=1):
            logits, state = model(piece, state)
            pieces.append(logits)
            assert state.cache.end <= 2 * 16  # places, and errors with them, do not grow
        torch.testing.assert_close(
            torch.cat(pieces, 1), torch.cat([first, rest], 1), atol=1e-5, rtol=0
        )
        assert computed == cuts  # nothing is read twice
        computed.clear()


def test_gradients_flow_through_a_state() -> None:
    for settings in (GPT_SMALL, ROTARY):
        model = build("gpt", settings)
        tokens = tokens_of(2, 12)
        model(tokens)[0].square().sum().backward()
        whole = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        state, total = None, torch.tensor(0.0)
        for piece in tokens.split([5, 1, 6], dim=1):
            logits, state = model(piece, state)
            total = total + logits.square().sum()
        total.backward()
        for parameter, expected in zip(model.parameters(), whole, strict=True):
            torch.testing.assert_close(parameter.grad, expected, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_a_gpt_with_full_context_drops_its_older_half() -> None:
    model = build("gpt", {"layers": 2, "heads": 2, "width": 8, "context": 8})
    tokens = tokens_of(2, 9)
    _, state = model(tokens[:, :8])
    late, _ = model(tokens[:, 8:], state)
    fresh, _ = model(tokens[:, -4:])
    torch.testing.assert_close(late[:, -1], fresh[:, -1])
    with pytest.raises(ValueError, match="the context holds 8"):
        model(tokens)


def test_unknown_models_and_settings_name_the_nearest() -> None:
    with pytest.raises(MoreishError, match="did you mean 'gpt'"):
        model_class("gtp")
    with pytest.raises(MoreishError, match=r"unknown setting model.widht: did you mean 'width'"):
        model_config({"name": "gpt", "widht": 3})
    with pytest.raises(MoreishError, match="is not divisible by 3 heads"):
        model_config({"name": "gpt", "heads": 3})


def test_all_heads_batched_equal_one_head_at_a_time() -> None:
    """Scaled dot-product attention written out as in Vaswani et al. 2017, head by head."""
    torch.manual_seed(3)
    attention = Attention(GPTConfig(width=32, heads=4, context=16)).eval()
    x = torch.randn(2, 16, 32)
    together, _ = attention(x, None, None)
    q, k, v = attention.qkv(x).split(32, dim=-1)
    future = torch.ones(16, 16).triu(1).bool()
    heads = []
    for h in range(4):
        part = slice(8 * h, 8 * h + 8)
        affinity = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8)
        heads.append(affinity.masked_fill(future, -torch.inf).softmax(-1) @ v[..., part])
    torch.testing.assert_close(together, attention.out(torch.cat(heads, -1)), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_lectures_model_reads_its_last_tokens_again() -> None:
    """As `generate` in the lecture: beyond the context the oldest tokens are cropped."""
    model = build("lecture-gpt", {"context": 8})
    tokens = tokens_of(2, 13)
    _, state = model(tokens[:, :7])
    late, state = model(tokens[:, 7:10], state)
    torch.testing.assert_close(late, model(tokens[:, 2:10])[0][:, -3:])
    for place in range(10, 13):
        late, state = model(tokens[:, place, None], state)
        torch.testing.assert_close(late[:, -1], model(tokens[:, place - 7 : place + 1])[0][:, -1])
    with pytest.raises(ValueError, match="the context holds 8"):
        model(tokens)


def test_the_lectures_last_model_has_its_parameter_count() -> None:
    scaled_up = {"layers": 6, "heads": 6, "width": 384, "context": 256, "dropout": 0.2}
    with torch.device("meta"):
        model = build_model(model_config({"name": "lecture-gpt", **scaled_up}), 65)
    assert model.num_parameters() == 10_788_929


@torch.inference_mode()
def test_the_lectures_heads_are_scaled_dot_product_attention() -> None:
    model = build("lecture-gpt", {"stage": "heads"})
    tokens = tokens_of(2, 8)
    (maps,) = model.attention_maps(tokens)
    attention = model.blocks[0].attention
    x = model.token_embedding_table(tokens) + model.position_embedding_table.weight
    together = attention(x)
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        q, k, v = (
            layer(x)[..., part] for layer in (attention.query, attention.key, attention.value)
        )
        expected = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        torch.testing.assert_close(maps[:, head] @ v, expected)
        torch.testing.assert_close(together[..., part], expected)


def test_gpt2_shapes_have_gpt2s_parameter_count() -> None:
    config = GPTConfig(layers=12, heads=12, width=768, context=1024, tied=True)
    with torch.device("meta"):
        model = GPT.__new__(GPT)
        GPT.__init__(model, config, 50257)
    assert model.num_parameters() == 124_439_808


@each_model
@torch.inference_mode()
def test_texts_of_different_lengths_are_decoded_together(name: str, settings: dict) -> None:
    """What each gets is what it gets alone, whatever its length; far past the context too."""
    model = build(name, settings)
    read = [1, 3, 16, 2, 7]
    states, alone = [], []
    for seed, length in enumerate(read):
        _, state = model(tokens_of(1, length, seed=seed))
        states.append(state)
        alone.append(model(tokens_of(1, length, seed=seed))[1])
    for position in range(40):
        token = tokens_of(len(read), 1, seed=100 + position)[:, 0]
        together, states = model.decode_step(token, states)
        for row, state in enumerate(alone):
            expected, alone[row] = model(token[row : row + 1, None], state)
            torch.testing.assert_close(together[row], expected[0, 0], atol=1e-5, rtol=0)


@each_model
@torch.inference_mode()
def test_several_texts_continue_from_one_state(name: str, settings: dict) -> None:
    model = build(name, settings)
    _, state = model(tokens_of(1, 9))
    token = torch.arange(3)
    first, _ = model.decode_step(token, [state] * 3)
    again, _ = model.decode_step(token, [state] * 3)
    assert torch.equal(first, again)
    for row in range(3):
        expected, _ = model(token[row : row + 1, None], state)
        torch.testing.assert_close(first[row], expected[0, 0], atol=1e-5, rtol=0)
