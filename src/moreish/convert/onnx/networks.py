"""Exportable networks.

B batch, T time (new positions), S all positions (earlier and new), P earlier positions, H heads,
D head width, C width, G gates, V vocabulary, N auxiliary features.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from moreish.convert.onnx.step import (
    BATCH,
    PAST,
    ExportableModel,
    StateSpec,
    Tensors,
    TokenHistory,
)
from moreish.models import (
    GPT,
    GRU,
    LSTM,
    MLP,
    RNN,
    Attention,
    BagOfWords,
    Bigram,
    Block,
    LectureGPT,
    NgramEmbedding,
    Recurrent,
    RopeTable,
    WaveNet,
    apply_rope,
    rope_table,
)
from moreish.tokenizers import BOUNDARY_ID


@final
class ExportableBigram(ExportableModel):
    """Has no state."""

    def __init__(self, model: Bigram) -> None:
        super().__init__()
        self.model = model

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        return {}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        return self.model(tokens_BT)[0], ()


@final
class ExportableMLP(ExportableModel):
    """The state is the last tokens, which start as the boundary, 0."""

    def __init__(self, model: MLP) -> None:
        super().__init__()
        self.model = model

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        return TokenHistory(self.model.context - 1).state_specs

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        logits_BTV, last_tokens = self.model(tokens_BT, state[0] if state else None)
        return logits_BTV, (last_tokens,) if state else ()


@final
class ExportableBagOfWords(ExportableModel):
    """The state is the last tokens; positions before the start do not count in the mean."""

    def __init__(self, model: BagOfWords) -> None:
        super().__init__()
        self.model = model
        self.history = TokenHistory(model.context - 1)

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        return self.history.state_specs

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        model, past = self.model, self.history.length
        shifted_BS, state = self.history.append(tokens_BT, state)
        x_BSC = model.embedding((shifted_BS - 1).clamp(min=0))
        position_S = torch.arange(shifted_BS.shape[1])
        distance_TS = position_S[past:, None] - position_S
        in_window_TS = (distance_TS >= 0) & (distance_TS <= past)
        weight_BTS = (in_window_TS & (shifted_BS > 0)[:, None]).float()
        mean_BTC = (weight_BTS / weight_BTS.sum(dim=2, keepdim=True)) @ x_BSC
        both_BTC = torch.cat([x_BSC[:, past:], mean_BTC], dim=-1)
        return model.head(F.tanh(model.hidden(both_BTC))), state


@final
class ExportableRecurrent(ExportableModel):
    """The state is that of the model."""

    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        names = ["hidden", "cell"] if isinstance(self.model, LSTM) else ["hidden"]
        return {name: StateSpec((BATCH, self.model.embedding.embedding_dim)) for name in names}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        from torch._higher_order_ops.scan import scan

        model, cell = self.model, CELLS[type(self.model)]

        def update(before: list[Tensor], input_BG: Tensor) -> tuple[list[Tensor], Tensor]:
            after = cell(input_BG, model.recurrent(before[0]), *before)
            # The outputs of a scan must not share memory.
            return [part.clone() for part in after], after[0].clone()

        input_TBG = model.input(model.embedding(tokens_BT)).transpose(0, 1)
        last, hidden_TBC = scan(update, list(state), input_TBG)
        return model.head(hidden_TBC.transpose(0, 1)), tuple(last)


# The cells of the recurrent models, from operations that an exported scan supports. Arguments: the
# contributions of the token and of the hidden state to each gate, then the state.


def _rnn_cell(input_BG: Tensor, recurrent_BG: Tensor, hidden_BC: Tensor) -> Tensors:
    return (F.tanh(input_BG + recurrent_BG),)


def _lstm_cell(
    input_BG: Tensor, recurrent_BG: Tensor, hidden_BC: Tensor, cell_BC: Tensor
) -> Tensors:
    input_gate, forget_gate, new, output_gate = (input_BG + recurrent_BG).chunk(4, dim=-1)
    cell_BC = forget_gate.sigmoid() * cell_BC + input_gate.sigmoid() * new.tanh()
    return output_gate.sigmoid() * cell_BC.tanh(), cell_BC


def _gru_cell(input_BG: Tensor, recurrent_BG: Tensor, hidden_BC: Tensor) -> Tensors:
    input_reset, input_update, input_new = input_BG.chunk(3, dim=-1)
    recurrent_reset, recurrent_update, recurrent_new = recurrent_BG.chunk(3, dim=-1)
    new_BC = (input_new + (input_reset + recurrent_reset).sigmoid() * recurrent_new).tanh()
    return (torch.lerp(new_BC, hidden_BC, (input_update + recurrent_update).sigmoid()),)


CELLS: dict[type[Recurrent], Callable[..., Tensors]] = {
    RNN: _rnn_cell,
    LSTM: _lstm_cell,
    GRU: _gru_cell,
}


@final
class ExportableWaveNet(ExportableModel):
    """The state is that of the model, the past of each layer, minus its value after boundaries
    only, so that it starts as zeros."""

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            x_BSC = model.embedding(torch.full((1, model.context - 1), BOUNDARY_ID))
            for i, layer in enumerate(model.layers):
                self.register_buffer(f"boundaries_{i}", x_BSC[:, -(2**i) :].clone())
                x_BSC = layer(x_BSC)

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        width = self.model.embedding.embedding_dim
        layers = range(len(self.model.layers))
        return {f"layer_{i}": StateSpec((BATCH, 2**i, width)) for i in layers}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
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
        super().__init__()
        self.model = model
        self.history = TokenHistory(model.context - 1)

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        return self.history.state_specs

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        new, context = tokens_BT.shape[1], self.model.context
        shifted_BS, state = self.history.append(tokens_BT, state)
        shifted_BK = shifted_BS[:, new - 1 :]
        # Positions count from the first token, so each row is moved to the left; what then follows
        # the last token is in its future and changes nothing before it.
        seen_B1 = (shifted_BK > 0).sum(dim=1, keepdim=True)
        place_BK = (torch.arange(context) + context - seen_B1).clamp(max=context - 1)
        token_BK = (shifted_BK.gather(1, place_BK) - 1).clamp(min=0)
        logits_BKV, _ = self.model(token_BK)
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

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.history = TokenHistory(len(model.ngram_embeddings), "ngram_tokens")

    @property
    def state_specs(self) -> dict[str, StateSpec]:
        specs = self.history.state_specs
        for i, block in enumerate(self.model.blocks):
            assert isinstance(block, Block)
            shape = BATCH, block.attention.heads[1], PAST, self.model.head_width
            specs |= {f"keys_{i}": StateSpec(shape), f"values_{i}": StateSpec(shape)}
        return specs

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        model, past = self.model, state[-1].shape[2]
        position_S = torch.arange(past + tokens_BT.shape[1])
        x_BTC = model.embedding(tokens_BT)
        if model.feature_projection is not None:
            x_BTC = x_BTC + model.feature_projection(features_BTN)
        new_state: list[Tensor] = []
        if self.history.length:
            shifted_BS, last_tokens = self.history.append(tokens_BT, state[:1])
            new_state += last_tokens
            for embedding in model.ngram_embeddings:
                assert isinstance(embedding, NgramEmbedding)
                x_BTC = x_BTC + _embed_ngrams(embedding, shifted_BS, self.history.length)
        rope = None
        if model.position is not None:
            x_BTC = x_BTC + model.position(position_S[past:])
        if model.rotary_base is not None:
            rope = rope_table(position_S, model.head_width, model.rotary_base)
        distance_TS = position_S[past:, None] - position_S
        visible_TS = (distance_TS >= 0) & (distance_TS < model.context)
        caches = state[-2 * len(model.blocks) :]
        for i, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            y_BTC, *cache = _attend(
                block.attention,
                block.attention_input(x_BTC),
                caches[2 * i],
                caches[2 * i + 1],
                rope,
                visible_TS,
            )
            new_state += cache
            x_BTC = block.after_attention(x_BTC, y_BTC)
        return model.to_logits(x_BTC), tuple(new_state)


def _embed_ngrams(embedding: NgramEmbedding, shifted_BS: Tensor, past: int) -> Tensor:
    """Returns (B, T, C) the n-gram embedding at each new position, zeros where the n-gram would
    start before the text."""
    new = shifted_BS.shape[1] - past
    first = past - embedding.length + 1
    token_BS = (shifted_BS - 1).clamp(min=0)
    row_BT = embedding.row_ids([token_BS[:, i : i + new] for i in range(first, past + 1)])
    return embedding.table(row_BT) * (shifted_BS[:, first : first + new] > 0)[..., None]


def _attend(
    attention: Attention,
    x_BTC: Tensor,
    past_k_BHPD: Tensor,
    past_v_BHPD: Tensor,
    rope: RopeTable | None,
    visible_TS: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output at the new positions, and the keys (not rotated) and values of all."""
    q_BHTD, k_BHTD, v_BHTD = attention.split_heads(x_BTC, None)
    keys_BHSD = torch.cat([past_k_BHPD, k_BHTD], dim=2)
    values_BHSD = torch.cat([past_v_BHPD, v_BHTD], dim=2)
    k_BHSD, v_BHSD = keys_BHSD, values_BHSD
    if rope is not None:
        past = past_k_BHPD.shape[2]
        q_BHTD = apply_rope(q_BHTD, (rope[0][past:], rope[1][past:]))
        k_BHSD = apply_rope(k_BHSD, rope)
    if attention.groups > 1:
        k_BHSD, v_BHSD = (_repeat_heads(x, attention.groups) for x in (k_BHSD, v_BHSD))
    scores_BHTS = q_BHTD @ k_BHSD.mT * attention.scale
    weights_BHTS = scores_BHTS.masked_fill(~visible_TS, -torch.inf).softmax(dim=-1)
    y_BHTD = weights_BHTS @ v_BHSD
    return attention.out(y_BHTD.transpose(1, 2).flatten(2)), keys_BHSD, values_BHSD


def _repeat_heads(x_BHSD: Tensor, times: int) -> Tensor:
    """Repeats each head; `torch.repeat_interleave` cannot be exported."""
    return x_BHSD[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


NETWORKS: dict[type, Callable[[Any], ExportableModel]] = {
    Bigram: ExportableBigram,
    MLP: ExportableMLP,
    BagOfWords: ExportableBagOfWords,
    RNN: ExportableRecurrent,
    LSTM: ExportableRecurrent,
    GRU: ExportableRecurrent,
    WaveNet: ExportableWaveNet,
    LectureGPT: ExportableLectureGPT,
    GPT: ExportableGPT,
}
