"""Networks as functions that go step by step.

B batch, T time (new positions), S positions in all (kept and new), K context, H heads, D head
width, C width, V vocabulary, N numbers beside each token.
"""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from moreish.convert.onnx.step import BATCH, PAST, Start, Stepwise, Tensors, marked
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
    NgramEmbedding,
    Recurrent,
    RopeTable,
    WaveNet,
    apply_rope,
    rope_table,
)
from moreish.tokenizers import BOUNDARY_ID


@final
class StepwiseBigram(Stepwise):
    """Without a state."""

    def __init__(self, model: Bigram) -> None:
        super().__init__()
        self.model = model

    @property
    def starts(self) -> dict[str, Start]:
        return {}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        return self.model(tokens_BT)[0], ()


@final
class StepwiseMLP(Stepwise):
    """The state is the last tokens, at the beginning boundaries, which are zeros."""

    def __init__(self, model: MLP) -> None:
        super().__init__()
        self.model = model

    @property
    def starts(self) -> dict[str, Start]:
        past = self.model.context - 1
        return {"last_tokens": Start((BATCH, past), torch.int64)} if past else {}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        logits_BTV, last = self.model(tokens_BT, state[0] if state else None)
        return logits_BTV, (last,) if state else ()


@final
class StepwiseBagOfWords(Stepwise):
    """The state is the last tokens, marked: those that never were do not count in the average."""

    def __init__(self, model: BagOfWords) -> None:
        super().__init__()
        self.model = model

    @property
    def starts(self) -> dict[str, Start]:
        past = self.model.context - 1
        return {"last_tokens": Start((BATCH, past), torch.int64)} if past else {}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        model, past = self.model, self.model.context - 1
        mark_BS = torch.cat([*state, marked(tokens_BT)], dim=1)
        x_BSC = model.embedding((mark_BS - 1).clamp(min=0))
        place_S = torch.arange(mark_BS.shape[1])
        back_TS = place_S[past:, None] - place_S
        counts_BTS = ((back_TS >= 0) & (back_TS <= past) & (mark_BS > 0)[:, None]).float()
        mean_BTC = (counts_BTS / counts_BTS.sum(dim=2, keepdim=True)) @ x_BSC
        both_BTC = torch.cat([x_BSC[:, past:], mean_BTC], dim=-1)
        logits_BTV = model.head(F.tanh(model.hidden(both_BTC)))
        return logits_BTV, (mark_BS[:, mark_BS.shape[1] - past :],) if state else ()


@final
class StepwiseRecurrent(Stepwise):
    """The state is the model's own."""

    def __init__(self, model: Recurrent) -> None:
        super().__init__()
        self.model = model

    @property
    def starts(self) -> dict[str, Start]:
        names = ["hidden", "cell"] if isinstance(self.model, LSTM) else ["hidden"]
        return {name: Start((BATCH, self.model.embedding.embedding_dim)) for name in names}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        from torch._higher_order_ops.scan import scan

        model, change = self.model, CHANGES[type(self.model)]

        def after(before: list[Tensor], input_BG: Tensor) -> tuple[list[Tensor], Tensor]:
            new = change(input_BG, model.recurrent(before[0]), *before)
            # What a scan gives must not share memory.
            return [part.clone() for part in new], new[0].clone()

        input_TBG = model.input(model.embedding(tokens_BT)).transpose(0, 1)
        last, hidden_TBC = scan(after, list(state), input_TBG)
        return model.head(hidden_TBC.transpose(0, 1)), tuple(last)


# The models' own steps, as plain as a scan can be exported with: from what the token and what the
# past say to each gate, and the state before.


def _rnn(input_BG: Tensor, past_BG: Tensor, hidden_BC: Tensor) -> Tensors:
    return (F.tanh(input_BG + past_BG),)


def _lstm(input_BG: Tensor, past_BG: Tensor, hidden_BC: Tensor, cell_BC: Tensor) -> Tensors:
    enter, forget, new, leave = (input_BG + past_BG).chunk(4, dim=-1)
    cell_BC = forget.sigmoid() * cell_BC + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * cell_BC.tanh(), cell_BC


def _gru(input_BG: Tensor, past_BG: Tensor, hidden_BC: Tensor) -> Tensors:
    input_reset, input_keep, input_new = input_BG.chunk(3, dim=-1)
    past_reset, past_keep, past_new = past_BG.chunk(3, dim=-1)
    new_BC = (input_new + (input_reset + past_reset).sigmoid() * past_new).tanh()
    return (torch.lerp(new_BC, hidden_BC, (input_keep + past_keep).sigmoid()),)


CHANGES: dict[type[Recurrent], Callable[..., Tensors]] = {RNN: _rnn, LSTM: _lstm, GRU: _gru}


@final
class StepwiseWaveNet(Stepwise):
    """The state is the model's own, what each layer needs of its past, less what that is after
    nothing but boundaries: so it begins as zeros."""

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            x_BSC = model.embedding(torch.full((1, model.context - 1), BOUNDARY_ID))
            for i, layer in enumerate(model.layers):
                self.register_buffer(f"boundaries_{i}", x_BSC[:, -(2**i) :].clone())
                x_BSC = layer(x_BSC)

    @property
    def starts(self) -> dict[str, Start]:
        width = self.model.embedding.embedding_dim
        layers = range(len(self.model.layers))
        return {f"layer_{i}": Start((BATCH, 2**i, width)) for i in layers}

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        begun = [self.get_buffer(f"boundaries_{i}") for i in range(len(state))]
        pasts = [past + start for past, start in zip(state, begun, strict=True)]
        logits_BTV, pasts = self.model(tokens_BT, pasts)
        return logits_BTV, tuple(past - start for past, start in zip(pasts, begun, strict=True))


@final
class StepwiseGPT(Stepwise):
    """The state is the keys and values of each layer, and marks of the last tokens where there are
    embeddings of n-grams.

    Keys are kept as they are before they are turned, and turned by their places among those that
    are given. So whoever runs this may leave out the oldest: what counts is how far apart a query
    and a key are. Positions that are learned end with the context; then it is to begin anew.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.kept = len(model.ngram_embeddings)
        """Tokens before the new ones that n-grams reach back to."""

    @property
    def starts(self) -> dict[str, Start]:
        marks = Start((BATCH, self.kept), torch.int64)
        starts = {"gram_tokens": marks} if self.kept else {}
        for i, block in enumerate(self.model.blocks):
            assert isinstance(block, Block)
            shape = BATCH, block.attention.heads[1], PAST, self.model.head_width
            starts |= {f"keys_{i}": Start(shape), f"values_{i}": Start(shape)}
        return starts

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        model, past = self.model, state[-1].shape[2]
        place_S = torch.arange(past + tokens_BT.shape[1])
        x_BTC = model.embedding(tokens_BT)
        if model.feature_projection is not None:
            x_BTC = x_BTC + model.feature_projection(features_BTN)
        new_state = []
        if self.kept:
            mark_BS = torch.cat([state[0], marked(tokens_BT)], dim=1)
            for grams in model.ngram_embeddings:
                assert isinstance(grams, NgramEmbedding)
                x_BTC = x_BTC + _grams(grams, mark_BS, self.kept)
            new_state.append(mark_BS[:, mark_BS.shape[1] - self.kept :])
        rope = None
        if model.position is not None:
            x_BTC = x_BTC + model.position(place_S[past:])
        if model.rotary_base is not None:
            rope = rope_table(place_S, model.head_width, model.rotary_base)
        back_TS = place_S[past:, None] - place_S
        seen_TS = (back_TS >= 0) & (back_TS < model.context)
        caches = state[-2 * len(model.blocks) :]
        for i, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            y_BTC, *cache = _attention(
                block.attention,
                block.attention_input(x_BTC),
                caches[2 * i],
                caches[2 * i + 1],
                rope,
                seen_TS,
            )
            new_state += cache
            x_BTC = block.after_attention(x_BTC, y_BTC)
        return model.to_logits(x_BTC), tuple(new_state)


def _grams(grams: NgramEmbedding, mark_BS: Tensor, kept: int) -> Tensor:
    """What they add at each new position; nothing where an n-gram would reach beyond the first
    token."""
    new = mark_BS.shape[1] - kept
    first = kept - grams.length + 1
    token_BS = (mark_BS - 1).clamp(min=0)
    row_BT = grams.row_ids([token_BS[:, at : at + new] for at in range(first, kept + 1)])
    return grams.table(row_BT) * (mark_BS[:, first : first + new] > 0)[..., None]


def _attention(
    attention: Attention,
    x_BTC: Tensor,
    past_k_BHPD: Tensor,
    past_v_BHPD: Tensor,
    rope: RopeTable | None,
    seen_TS: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the new positions gather, and all keys (not turned) and values."""
    q_BHTD, k_BHTD, v_BHTD = attention.split_heads(x_BTC, None)
    keys_BHSD = torch.cat([past_k_BHPD, k_BHTD], dim=2)
    values_BHSD = torch.cat([past_v_BHPD, v_BHTD], dim=2)
    k_BHSD, v_BHSD = keys_BHSD, values_BHSD
    if rope is not None:
        past = past_k_BHPD.shape[2]
        q_BHTD = apply_rope(q_BHTD, (rope[0][past:], rope[1][past:]))
        k_BHSD = apply_rope(k_BHSD, rope)
    if attention.groups > 1:
        k_BHSD, v_BHSD = (_repeated(x, attention.groups) for x in (k_BHSD, v_BHSD))
    affinity_BHTS = q_BHTD @ k_BHSD.mT * attention.scale
    shares_BHTS = affinity_BHTS.masked_fill(~seen_TS, -torch.inf).softmax(dim=-1)
    y_BHTD = shares_BHTS @ v_BHSD
    return attention.out(y_BHTD.transpose(1, 2).flatten(2)), keys_BHSD, values_BHSD


def _repeated(x_BHSD: Tensor, times: int) -> Tensor:
    """Each head so many times in a row: torch.repeat_interleave cannot be exported."""
    return x_BHSD[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


KINDS = {
    Bigram: StepwiseBigram,
    MLP: StepwiseMLP,
    BagOfWords: StepwiseBagOfWords,
    RNN: StepwiseRecurrent,
    LSTM: StepwiseRecurrent,
    GRU: StepwiseRecurrent,
    WaveNet: StepwiseWaveNet,
    GPT: StepwiseGPT,
}
