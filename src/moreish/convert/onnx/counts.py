"""Counts, and networks together with counts, as functions that go step by step.

Other programs have no binary search, so n-grams are found by a table of hashes.

B batch, T time (new positions), S positions in all (kept and new), M orders, V vocabulary, R rows
of all tables, K buckets of all tables.
"""

from copy import deepcopy
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.convert.onnx import networks
from moreish.convert.onnx.step import BATCH, Start, Stepwise, Tensors, marked
from moreish.errors import MoreishError
from moreish.models import TABLE_NAMES, Hybrid, KneserNey, Mixture, Model, NGram
from moreish.tokenizers import BOUNDARY_ID

ABSENT = -1
"""In the place of a token that never was."""


class Found(nn.Module):
    """Several tables of numbers by their keys, looked through all at once."""

    buckets_M: Tensor
    offset_M: Tensor
    begins_K: Tensor
    keys_R: Tensor
    values_R: Tensor

    def __init__(self, tables: list[tuple[Tensor, Tensor]], default: float) -> None:
        """
        Args:
            tables: the keys of each, distinct and not negative, and the number of each key.
            default: what is found for keys that are not there.
        """
        super().__init__()
        buckets = [2 * len(keys_R) + 1 for keys_R, _ in tables]
        sizes = [
            torch.bincount(keys_R % number, minlength=number)
            for (keys_R, _), number in zip(tables, buckets, strict=True)
        ]
        self.fullest, self.default = max(int(size_K.max()) for size_K in sizes), default
        # Every bucket is looked through as far as the fullest, so there is room after the last.
        room = torch.full((self.fullest,), ABSENT)
        keys, values = [], []
        for (keys_R, values_R), number in zip(tables, buckets, strict=True):
            order_R = torch.argsort(keys_R % number, stable=True)
            keys += [keys_R[order_R], room]
            values += [values_R[order_R], room.to(values_R)]
        size_K = torch.cat([F.pad(size_K, (0, 1), value=self.fullest) for size_K in sizes])
        buckets_M = torch.tensor(buckets)
        self.register_buffer("buckets_M", buckets_M)
        self.register_buffer("offset_M", (buckets_M + 1).cumsum(0) - (buckets_M + 1))
        self.register_buffer("begins_K", size_K.cumsum(0) - size_K)
        self.register_buffer("keys_R", torch.cat(keys))
        self.register_buffer("values_R", torch.cat(values))

    def forward(self, key: Tensor) -> Tensor:
        """The number of each key, of which the last dimension says the table (..., M)."""
        first = self.begins_K[key % self.buckets_M + self.offset_M]
        value = torch.full_like(key, self.default, dtype=self.values_R.dtype)
        for place in range(self.fullest):
            same = self.keys_R[first + place] == key
            value = torch.where(same, self.values_R[first + place], value)
        return value


class Grams:
    """The last tokens, kept from step to step, and the contexts that they make."""

    def __init__(self, context: int, vocab_size: int) -> None:
        self.past, self.vocab_size = context - 1, vocab_size

    @property
    def starts(self) -> dict[str, Start]:
        return {"last_tokens": Start((BATCH, self.past), torch.int64)} if self.past else {}

    def seen(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        """Marks of all, and the state after them."""
        mark_BS = torch.cat([*state, marked(tokens_BT)], dim=1)
        return mark_BS, (mark_BS[:, mark_BS.shape[1] - self.past :],) if state else ()

    def contexts(self, token_BS: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """(B, T, M) the numbers of the last 0, 1 … `longest` tokens at each new position, and
        whether all of them are known."""
        new = token_BS.shape[1] - self.past
        number_BT = torch.zeros_like(token_BS[:, self.past :])
        numbers, known = [number_BT], [number_BT == 0]
        for back in range(longest):
            token_BT = token_BS[:, self.past - back : self.past - back + new]
            numbers.append(numbers[-1] + token_BT.clamp(min=0) * self.vocab_size**back)
            known.append(known[-1] & (token_BT != ABSENT))
        return torch.stack(numbers, dim=2), torch.stack(known, dim=2)

    def every(self, context_BTM: Tensor) -> Tensor:
        """(B, T, V, M) the n-grams of these contexts with every token."""
        token_V1 = torch.arange(self.vocab_size)[:, None]
        return context_BTM[:, :, None] * self.vocab_size + token_V1


@final
class StepwiseNGram(Stepwise):
    """The state is the last tokens, at the beginning boundaries."""

    def __init__(self, model: NGram) -> None:
        super().__init__()
        self.order, self.add_k = model.order, model.add_k
        self.grams = Grams(model.context, model.vocab_size)
        self.counts = Found([(model.grams_G, model.counts_G.double())], 0.0)

    @property
    def starts(self) -> dict[str, Start]:
        return self.grams.starts

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        mark_BS, state = self.grams.seen(tokens_BT, state)
        token_BS = (mark_BS - 1).clamp(min=BOUNDARY_ID)
        context_BTM, _ = self.grams.contexts(token_BS, self.order - 1)
        counts_BTV = self.counts(self.grams.every(context_BTM[:, :, -1:]))[..., 0] + self.add_k
        total_BT1 = counts_BTV.sum(dim=-1, keepdim=True)
        never_BT1 = total_BT1 == 0
        shares_BTV = torch.where(
            never_BT1, 1 / self.grams.vocab_size, counts_BTV / torch.where(never_BT1, 1, total_BT1)
        )
        return shares_BTV.log().float(), state


@final
class StepwiseKneserNey(Stepwise):
    """The state is the last tokens; what stands before the first, the first itself tells."""

    def __init__(self, model: KneserNey) -> None:
        super().__init__()
        self.begins = model.config.start == "boundary"
        self.order = model.order
        self.grams = Grams(model.context, model.vocab_size)
        shares, gammas = [], []
        for m in range(1, model.order + 1):
            targets_G, shares_G, contexts_C, first_C, gammas_C = (
                model.get_buffer(f"{name}_{m}") for name in TABLE_NAMES
            )
            context_G = contexts_C.repeat_interleave(first_C.diff())
            shares.append((context_G * model.vocab_size + targets_G, shares_G))
            gammas.append((contexts_C, gammas_C))
        self.shares, self.gammas = Found(shares, 0.0), Found(gammas, 1.0)

    @property
    def starts(self) -> dict[str, Start]:
        return self.grams.starts

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        logp_BTMV, _, state = self.log_probs_by_order(tokens_BT, state)
        return logp_BTMV[:, :, -1], state

    def log_probs_by_order(
        self, tokens_BT: Tensor, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """As `KneserNey.log_probs_by_order`, for all orders."""
        mark_BS, state = self.grams.seen(tokens_BT, state)
        token_BS = mark_BS - 1
        if self.begins:
            never_BS = mark_BS == 0
            first_B1 = token_BS.gather(1, never_BS.sum(dim=1, keepdim=True))
            token_BS = torch.where(never_BS & (first_B1 == BOUNDARY_ID), BOUNDARY_ID, token_BS)
        context_BTM, known_BTM = self.grams.contexts(token_BS, self.order - 1)
        backoff_BTM = torch.where(known_BTM, self.gammas(context_BTM), 1.0)
        found_BTVM = self.shares(self.grams.every(context_BTM))
        found_BTVM = torch.where(known_BTM[:, :, None], found_BTVM, 0.0)
        shares_BTV, logs = torch.tensor(1 / self.grams.vocab_size), []
        for backoff_BT, found_BTV in zip(
            backoff_BTM.unbind(-1), found_BTVM.unbind(-1), strict=True
        ):
            shares_BTV = shares_BTV * backoff_BT[..., None] + found_BTV
            logs.append(shares_BTV.log())
        return torch.stack(logs, dim=2), backoff_BTM, state


class StepwiseWithCounts(Stepwise):
    """The states of both, one after the other."""

    def __init__(self, model: Mixture | Hybrid) -> None:
        super().__init__()
        self.network = stepwise(model.network)
        self.counts = StepwiseKneserNey(model.counts)

    @property
    def starts(self) -> dict[str, Start]:
        network = {f"network_{name}": start for name, start in self.network.starts.items()}
        return network | {f"counts_{name}": start for name, start in self.counts.starts.items()}

    def parts(self, state: Tensors) -> tuple[Tensors, Tensors]:
        """The states of the network and of the counts."""
        of_network = len(self.network.starts)
        return state[:of_network], state[of_network:]


@final
class StepwiseMixture(StepwiseWithCounts):
    def __init__(self, model: Mixture) -> None:
        super().__init__(model)
        self.interpolate = model.interpolate
        self.register_buffer("weight", model.weight)

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        of_network, of_counts = self.parts(state)
        logits_BTV, of_network = self.network.step(tokens_BT, of_network)
        counts_BTV, of_counts = self.counts.step(tokens_BT, of_counts)
        return self.interpolate(logits_BTV, counts_BTV), (*of_network, *of_counts)


@final
class StepwiseHybrid(StepwiseWithCounts):
    def __init__(self, model: Hybrid) -> None:
        super().__init__(model)
        self.features, self.combine_logits = model.features, model.combine_logits

    def step(
        self, tokens_BT: Tensor, state: Tensors, features_BTN: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        of_network, of_counts = self.parts(state)
        logp_BTMV, backoff_BTM, of_counts = self.counts.log_probs_by_order(tokens_BT, of_counts)
        features = self.features(logp_BTMV, backoff_BTM)
        outputs_BTU, of_network = self.network.step(tokens_BT, of_network, *features)
        return self.combine_logits(outputs_BTU, logp_BTMV), (*of_network, *of_counts)


KINDS = {
    NGram: StepwiseNGram,
    KneserNey: StepwiseKneserNey,
    Mixture: StepwiseMixture,
    Hybrid: StepwiseHybrid,
}


def stepwise(model: Model) -> Stepwise:
    """Returns a copy of `model` as a function that decodes step by step.

    Raises:
        MoreishError: models of this class cannot be exported.
    """
    kinds: dict[Any, Any] = {**networks.KINDS, **KINDS}
    if type(model) not in kinds:
        raise MoreishError(f"nobody has said how {type(model).__name__} goes step by step")
    made: Stepwise = kinds[type(model)](deepcopy(model).eval())
    return made
