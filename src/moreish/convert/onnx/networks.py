"""Exportable networks.

B batch, T new positions, S all positions (earlier and new), P earlier positions, K context, H
heads, D head width, C width, G gates, V vocabulary, N auxiliary features.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.convert.onnx.step import BATCH, PAST, ExportableModel, StateSpec, Tensors
from moreish.errors import MoreishError
from moreish.models import (
    GPT,
    GRU,
    LSTM,
    MLP,
    RNN,
    Attention,
    BagOfWords,
    Bigram,
    LectureGPT,
    Recurrent,
    RopeTable,
    WaveNet,
    apply_rope,
    rope_table,
)
from moreish.tokenizers import BOUNDARY_ID


@final
class ExportableWindow(ExportableModel):
    """A bigram model or an MLP. The state is the last tokens, which start as the boundary, 0."""

    def __init__(self, model: Bigram | MLP) -> None:
        super().__init__(model, model.context - 1)

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        logits_BTV, last_tokens = self.model(tokens_BT, *state)
        return logits_BTV, (last_tokens,) if state else ()


@final
class ExportableBagOfWords(ExportableModel):
    """The state is the last tokens; positions before the start do not count in the mean."""

    def __init__(self, model: BagOfWords) -> None:
        super().__init__(model, model.context - 1)

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        model, past = self.model, self.num_tokens
        token_BS, state = self.append(tokens_BT, state)
        x_BSC = model.embedding(token_BS.clamp(min=0))
        position_S = torch.arange(token_BS.shape[1])
        distance_TS = position_S[past:, None] - position_S
        in_window_TS = (distance_TS >= 0) & (distance_TS <= past)
        weight_BTS = (in_window_TS & (token_BS >= 0)[:, None]).float()
        mean_BTC = (weight_BTS / weight_BTS.sum(dim=2, keepdim=True)) @ x_BSC
        both_BTC = torch.cat([x_BSC[:, past:], mean_BTC], dim=-1)
        return model.head(F.tanh(model.hidden(both_BTC))), state


@final
class ExportableRecurrent(ExportableModel):
    """The state is that of the model."""

    def __init__(self, model: Recurrent) -> None:
        super().__init__(model)
        for name in ("hidden", "cell")[: model.num_states]:
            self.state_specs[name] = StateSpec((BATCH, model.embedding.embedding_dim))

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        from torch._higher_order_ops.scan import scan

        model, cell = self.model, CELLS[type(self.model)]

        def update(before: list[Tensor], input_BG: Tensor) -> tuple[list[Tensor], Tensor]:
            after = cell(input_BG, model.recurrent(before[0]), *before)
            # The outputs of a scan must not share memory.
            return [part.clone() for part in after], after[0].clone()

        input_TBG = model.input(model.embedding(tokens_BT)).transpose(0, 1)
        last, hidden_TBC = scan(update, list(state), input_TBG)
        return model.head(hidden_TBC.transpose(0, 1)), tuple(last)


# The cells of the recurrent models. An exported scan cannot call the methods of the models where
# their shapes are checked, as in the tests. Arguments: the contributions of the token and of the
# hidden state to each gate, then the state.


def _rnn_cell(input_BG: Tensor, past_BG: Tensor, hidden_BC: Tensor) -> Tensors:
    return (F.tanh(input_BG + past_BG),)


def _lstm_cell(input_BG: Tensor, past_BG: Tensor, hidden_BC: Tensor, cell_BC: Tensor) -> Tensors:
    enter, forget, new, leave = (input_BG + past_BG).chunk(4, dim=-1)
    cell_BC = forget.sigmoid() * cell_BC + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell_BC.tanh(), cell_BC


def _gru_cell(input_BG: Tensor, past_BG: Tensor, hidden_BC: Tensor) -> Tensors:
    input_reset, input_keep, input_new = input_BG.chunk(3, dim=-1)
    past_reset, past_keep, past_new = past_BG.chunk(3, dim=-1)
    new_BC = (input_new + (input_reset + past_reset).sigmoid() * past_new).tanh()
    return (torch.lerp(new_BC, hidden_BC, (input_keep + past_keep).sigmoid()),)


CELLS: dict[type[Recurrent], Callable[..., Tensors]]
CELLS = {RNN: _rnn_cell, LSTM: _lstm_cell, GRU: _gru_cell}


@final
class ExportableWaveNet(ExportableModel):
    """The state is that of the model, the past of each layer, minus its value after boundaries
    only, so that it starts as zeros."""

    def __init__(self, model: WaveNet) -> None:
        super().__init__(model)
        _, pasts = model(torch.full((1, 1), BOUNDARY_ID))
        for i, past_1SC in enumerate(pasts):
            self.register_buffer(f"boundaries_{i}", past_1SC.detach().clone())
            self.state_specs[f"layer_{i}"] = StateSpec((BATCH, *past_1SC.shape[1:]))

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        offsets = [self.get_buffer(f"boundaries_{i}") for i in range(len(state))]
        pasts = [past + offset for past, offset in zip(state, offsets, strict=True)]
        logits_BTV, pasts = self.model(tokens_BT, pasts)
        return logits_BTV, tuple(p - offset for p, offset in zip(pasts, offsets, strict=True))


@final
class ExportableLectureGPT(ExportableModel):
    """The state is the last tokens, which are read again with each new one.

    If a call passes more new tokens than the context holds, only the last `context` of them have
    valid logits.
    """

    def __init__(self, model: LectureGPT) -> None:
        super().__init__(model, model.context - 1)

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        new, context = tokens_BT.shape[1], self.model.context
        token_BS, state = self.append(tokens_BT, state)
        token_BK = token_BS[:, new - 1 :]
        # Positions count from the first token, so each row is moved to the left; what then follows
        # the last token is in its future and changes nothing before it.
        seen_B1 = (token_BK >= 0).sum(dim=1, keepdim=True)
        place_BK = (torch.arange(context) + context - seen_B1).clamp(max=context - 1)
        logits_BKV, _ = self.model(token_BK.gather(1, place_BK).clamp(min=0))
        place_BT = (seen_B1 - new + torch.arange(new)).clamp(min=0)
        logits_BTV = logits_BKV.gather(1, place_BT[..., None].expand(-1, -1, logits_BKV.shape[2]))
        return logits_BTV, state


@final
class ExportableGPT(ExportableModel):
    """The state is the keys and values of each layer, and the last tokens if there are n-gram
    embeddings.

    Keys are stored before the rotary embedding, which is applied by position within the cache. A
    program may therefore drop the oldest ones: only the distance of query and key matters. Learned
    positions end with the context; then the program has to start again from an empty state.
    """

    takes_features = True

    def __init__(self, model: GPT) -> None:
        if model.digit_embedding is not None:
            raise MoreishError("model.positions=digits cannot be exported to ONNX yet")
        super().__init__(model, len(model.ngram_embeddings), "ngram_tokens")
        for i, block in enumerate(self.model.blocks):
            shape = BATCH, block.attention.num_kv_heads, PAST, model.head_width
            self.state_specs |= {f"keys_{i}": StateSpec(shape), f"values_{i}": StateSpec(shape)}
            block.attention = ExportableAttention(block.attention)

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        model, past = self.model, state[-1].shape[2]
        x_BTC = model.embedding(tokens_BT)
        if model.feature_projection is not None:
            x_BTC = x_BTC + model.feature_projection(features_BTN)
        first_cache = int(self.num_tokens > 0)
        token_BS, last_tokens = self.append(tokens_BT, state[:first_cache])
        for ngram_embedding in model.ngram_embeddings:
            x_BTC = x_BTC + ngram_embedding(token_BS, tokens_BT.shape[1])
        position_S = torch.arange(past + tokens_BT.shape[1])
        if model.position is not None:
            x_BTC = x_BTC + model.position(position_S[past:])
        rope = None
        if model.rotary_base is not None:
            rope = rope_table(position_S, model.head_width, model.rotary_base)
        caches, new_state = iter(state[first_cache:]), list(last_tokens)
        for block, keys_BHPD, values_BHPD in zip(model.blocks, caches, caches, strict=True):
            x_BTC, new_cache = block(x_BTC, rope, (keys_BHPD, values_BHPD))
            new_state += new_cache
        return model.to_logits(x_BTC), tuple(new_state)


class ExportableAttention(nn.Module):
    """The attention of a GPT, from operations that can be exported."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, x_BTC: Tensor, rope: RopeTable | None, past_BHPD: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Return the output at the new positions, and the keys (not rotated) and values of all."""
        attention, past = self.attention, past_BHPD[0].shape[2]
        q_BHTD, *new_BHTD = attention.split_heads(x_BTC, None)
        cache = tuple(torch.cat(parts, dim=2) for parts in zip(past_BHPD, new_BHTD, strict=True))
        k_BHSD, v_BHSD = cache
        if rope is not None:
            q_BHTD = apply_rope(q_BHTD, (rope[0][past:], rope[1][past:]))
            k_BHSD = apply_rope(k_BHSD, rope)
        if attention.heads_per_kv_head > 1:
            k_BHSD, v_BHSD = (
                _repeat_heads(x, attention.heads_per_kv_head) for x in (k_BHSD, v_BHSD)
            )
        position_S = torch.arange(k_BHSD.shape[2])
        distance_TS = position_S[past:, None] - position_S
        visible_TS = (distance_TS >= 0) & (distance_TS < attention.context)
        scores_BHTS = q_BHTD @ k_BHSD.mT * attention.scale
        y_BHTD = scores_BHTS.masked_fill(~visible_TS, -torch.inf).softmax(dim=-1) @ v_BHSD
        return attention.out(y_BHTD.transpose(1, 2).flatten(2)), cache


def _repeat_heads(x_BHSD: Tensor, times: int) -> Tensor:
    """Repeat each head; `torch.repeat_interleave` cannot be exported."""
    return x_BHSD[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


NETWORKS: dict[type, Callable[[Any], ExportableModel]] = {
    Bigram: ExportableWindow,
    MLP: ExportableWindow,
    BagOfWords: ExportableBagOfWords,
    RNN: ExportableRecurrent,
    LSTM: ExportableRecurrent,
    GRU: ExportableRecurrent,
    WaveNet: ExportableWaveNet,
    LectureGPT: ExportableLectureGPT,
    GPT: ExportableGPT,
}
