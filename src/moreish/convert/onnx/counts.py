"""Exportable n-gram models, and networks combined with them.

ONNX has no binary search, so n-grams are looked up in a hash table.

B batch, T new positions, S all positions (earlier and new), M orders or tables, V
vocabulary, R rows of all tables, K buckets of all tables.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moreish.convert.onnx.networks import NETWORKS
from moreish.convert.onnx.step import ExportableModel, Tensors
from moreish.errors import MoreishError
from moreish.models import TABLE_NAMES, Hybrid, KneserNey, Mixture, Model, NetworkWithCounts, NGram
from moreish.tokenizers import BOUNDARY_ID

EMPTY = -1
"""The key of hash table rows that are not used."""


class HashTable(nn.Module):
    """Several tables from keys to numbers, searched in parallel."""

    buckets_M: Tensor
    offset_M: Tensor
    first_row_K: Tensor
    keys_R: Tensor
    values_R: Tensor

    def __init__(self, tables: list[tuple[Tensor, Tensor]], default: float) -> None:
        """
        Args:
            tables: for each table, its keys (distinct and not negative) and their values.
            default: the value of keys that are not in the table.
        """
        super().__init__()
        buckets = [2 * len(keys_R) + 1 for keys_R, _ in tables]
        sizes = [
            torch.bincount(keys_R % number, minlength=number)
            for (keys_R, _), number in zip(tables, buckets, strict=True)
        ]
        self.max_size, self.default = max(int(size_K.max()) for size_K in sizes), default
        # A lookup reads `max_size` rows from the start of a bucket, also of the last one.
        padding = torch.full((self.max_size,), EMPTY)
        keys, values = [], []
        for (keys_R, values_R), number in zip(tables, buckets, strict=True):
            order_R = torch.argsort(keys_R % number, stable=True)
            keys += [keys_R[order_R], padding]
            values += [values_R[order_R], padding.to(values_R)]
        size_K = torch.cat([F.pad(size_K, (0, 1), value=self.max_size) for size_K in sizes])
        buckets_M = torch.tensor(buckets)
        self.register_buffer("buckets_M", buckets_M)
        self.register_buffer("offset_M", (buckets_M + 1).cumsum(0) - (buckets_M + 1))
        self.register_buffer("first_row_K", size_K.cumsum(0) - size_K)
        self.register_buffer("keys_R", torch.cat(keys))
        self.register_buffer("values_R", torch.cat(values))

    def forward(self, keys: Tensor) -> Tensor:
        """Return (..., M) the value of each key (..., M); the last dimension selects the table."""
        first_row = self.first_row_K[keys % self.buckets_M + self.offset_M]
        values = torch.full_like(keys, self.default, dtype=self.values_R.dtype)
        for i in range(self.max_size):
            found = self.keys_R[first_row + i] == keys
            values = torch.where(found, self.values_R[first_row + i], values)
        return values


def context_ids(
    token_BS: Tensor, past: int, max_length: int, vocab_size: int
) -> tuple[Tensor, Tensor]:
    """Number the contexts of each new position.

    Args:
        token_BS: tokens, -1 before the start.
        past: number of tokens before the new ones.

    Returns:
        (B, T, M) the number of the context of the last 0, 1 … `max_length` tokens, and whether all
        of those tokens exist.
    """
    new = token_BS.shape[1] - past
    id_BT = torch.zeros_like(token_BS[:, past:])
    ids, exist = [id_BT], [id_BT == 0]
    for back in range(max_length):
        token_BT = token_BS[:, past - back : past - back + new]
        ids.append(ids[-1] + token_BT.clamp(min=0) * vocab_size**back)
        exist.append(exist[-1] & (token_BT >= 0))
    return torch.stack(ids, dim=2), torch.stack(exist, dim=2)


def ngram_ids(context_BTM: Tensor, vocab_size: int) -> Tensor:
    """Return (B, T, V, M) the numbers of the n-grams of these contexts and every token."""
    return context_BTM[:, :, None] * vocab_size + torch.arange(vocab_size)[:, None]


@final
class ExportableNGram(ExportableModel):
    """The state is the last tokens, which start as boundaries."""

    def __init__(self, model: NGram) -> None:
        super().__init__(None, model.context - 1)
        self.order, self.add_k, self.vocab_size = model.order, model.add_k, model.vocab_size
        self.counts = HashTable([(model.ngrams_G, model.counts_G.double())], 0.0)

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        token_BS, state = self.append(tokens_BT, state)
        length, size = self.order - 1, self.vocab_size
        context_BTM, _ = context_ids(token_BS.clamp(min=BOUNDARY_ID), self.num_tokens, length, size)
        counts_BTV = self.counts(ngram_ids(context_BTM[:, :, -1:], size))[..., 0] + self.add_k
        total_BT1 = counts_BTV.sum(dim=-1, keepdim=True)
        unseen_BT1 = total_BT1 == 0
        p_BTV = counts_BTV / torch.where(unseen_BT1, 1, total_BT1)
        return torch.where(unseen_BT1, 1 / size, p_BTV).log().float(), state


@final
class ExportableKneserNey(ExportableModel):
    """The state is the last tokens. If the model starts from boundaries, so does a text whose first
    token is one; otherwise the context of the first tokens is shorter."""

    def __init__(self, model: KneserNey) -> None:
        super().__init__(None, model.context - 1)
        self.pads_with_boundary = model.config.start == "boundary"
        self.order, self.vocab_size = model.order, model.vocab_size
        probabilities, backoff = [], []
        for m in range(1, model.order + 1):
            targets_G, p_G, contexts_C, first_C, backoff_C = (
                model.get_buffer(f"{name}_{m}") for name in TABLE_NAMES
            )
            context_G = contexts_C.repeat_interleave(first_C.diff())
            probabilities.append((context_G * model.vocab_size + targets_G, p_G))
            backoff.append((contexts_C, backoff_C))
        self.probabilities = HashTable(probabilities, 0.0)
        self.backoff = HashTable(backoff, 1.0)

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        logp_BTMV, _, state = self.log_probs_by_order(tokens_BT, state)
        return logp_BTMV[:, :, -1], state

    def log_probs_by_order(
        self, tokens_BT: Tensor, state: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Compute what `KneserNey.log_probs_by_order` does.

        Returns:
            (B, T, M, V) the log-probabilities by each order, (B, T, M) the backoff mass of each
            order, and the new state.
        """
        token_BS, state = self.append(tokens_BT, state)
        if self.pads_with_boundary:
            missing_BS = token_BS < 0
            first_B1 = token_BS.gather(1, missing_BS.sum(dim=1, keepdim=True))
            token_BS = torch.where(missing_BS & (first_B1 == BOUNDARY_ID), BOUNDARY_ID, token_BS)
        length, size = self.order - 1, self.vocab_size
        context_BTM, exists_BTM = context_ids(token_BS, self.num_tokens, length, size)
        backoff_BTM = torch.where(exists_BTM, self.backoff(context_BTM), 1.0)
        discounted_BTVM = self.probabilities(ngram_ids(context_BTM, size))
        discounted_BTVM = torch.where(exists_BTM[:, :, None], discounted_BTVM, 0.0)
        p_BTV, logs = torch.tensor(1 / size), []
        for m in range(self.order):
            p_BTV = p_BTV * backoff_BTM[..., m, None] + discounted_BTVM[..., m]
            logs.append(p_BTV.log())
        return torch.stack(logs, dim=2), backoff_BTM, state


class ExportableNetworkWithCounts(ExportableModel):
    """The state is that of the network, followed by that of the counts."""

    def __init__(self, model: NetworkWithCounts) -> None:
        super().__init__(model)
        for name in ("network", "counts"):
            part = make_exportable(getattr(model, name))
            setattr(model, name, part)
            self.state_specs |= {f"{name}_{n}": spec for n, spec in part.state_specs.items()}

    def split_state(self, state: Tensors) -> tuple[Tensors, Tensors]:
        """Return the state of the network and that of the counts."""
        size = len(self.model.network.state_specs)
        return state[:size], state[size:]


@final
class ExportableMixture(ExportableNetworkWithCounts):
    """Interpolates the predictions of a network and of counts."""

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        network_state, counts_state = self.split_state(state)
        logits_BTV, network_state = self.model.network.step(tokens_BT, network_state)
        counts_BTV, counts_state = self.model.counts.step(tokens_BT, counts_state)
        return self.model.interpolate(logits_BTV, counts_BTV), (*network_state, *counts_state)


@final
class ExportableHybrid(ExportableNetworkWithCounts):
    """Corrects counts by a network that reads their predictions as auxiliary features."""

    def step(self, tokens_BT: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        network_state, counts_state = self.split_state(state)
        logp_BTMV, backoff_BTM, counts_state = self.model.counts.log_probs_by_order(
            tokens_BT, counts_state
        )
        experts_BTEV, features = self.model.read_counts(logp_BTMV, backoff_BTM, None)
        outputs_BTU, network_state = self.model.network.step(tokens_BT, network_state, *features)
        logits_BTV = self.model.combine_logits(outputs_BTU, experts_BTEV)
        return logits_BTV, (*network_state, *counts_state)


EXPORTABLE: dict[type, Callable[[Any], ExportableModel]] = {
    **NETWORKS,
    NGram: ExportableNGram,
    KneserNey: ExportableKneserNey,
    Mixture: ExportableMixture,
    Hybrid: ExportableHybrid,
}


def make_exportable(model: Model) -> ExportableModel:
    """Return a copy of `model` that can be exported.

    Raises:
        MoreishError: no export is written for models of this class, or with a memory or candidates.
    """
    if isinstance(model, Hybrid) and model.memory is not None:
        raise MoreishError(
            "export to ONNX cannot express the memory of recent text: train without it, "
            "--set model.memory=0"
        )
    if isinstance(model, Hybrid) and model.candidate_embedding is not None:
        raise MoreishError(
            "export to ONNX cannot express a hybrid of candidates: train it with "
            "--set model.candidates=false"
        )
    if type(model) not in EXPORTABLE:
        raise MoreishError(f"export to ONNX is not implemented for {type(model).__name__}")
    return EXPORTABLE[type(model)](deepcopy(model).eval())
