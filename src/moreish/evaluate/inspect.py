"""Statistics of models and data for figures: token pairs, embeddings, attention.

V vocabulary, M a selection of it, C width, T positions, H heads.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moreish.data import CHUNK_TOKENS, AnyIds, ShardedArray, count_tokens
from moreish.models import GPT, Hybrid, LectureGPT, Model, NetworkWithCounts
from moreish.tokenizers import Ids

Floats = NDArray[np.floating]


def context_counts(ids_N: AnyIds | ShardedArray, vocab_size: int) -> Ids:
    """Return (V,) how often each token is followed by another."""
    counts_V = count_tokens(ids_N, vocab_size)
    counts_V[int(ids_N[-1])] -= 1
    return counts_V


def tokens_by_frequency(counts_V: Ids) -> Ids:
    """Return (V,) the tokens, the most frequent first."""
    return np.argsort(-counts_V, kind="stable")


def bigram_counts(ids_N: AnyIds | ShardedArray, chosen_M: Ids, vocab_size: int) -> Ids:
    """Return (M, M) the counts of pairs of the chosen tokens; the row is the first of a pair."""
    size = len(chosen_M)
    place_V = np.full(vocab_size, size)
    place_V[chosen_M] = np.arange(size)
    pairs = np.zeros((size + 1) ** 2, np.int64)
    for first in range(0, len(ids_N) - 1, CHUNK_TOKENS):
        place_N = place_V[ids_N[first : first + CHUNK_TOKENS + 1]]
        pairs += np.bincount(place_N[:-1] * (size + 1) + place_N[1:], minlength=len(pairs))
    return pairs.reshape(size + 1, size + 1)[:size, :size]


@torch.inference_mode()
def bigram_probabilities(model: Model, chosen_M: Ids) -> Floats:
    """Return (M, M) the model's probabilities of the same pairs, at the start of a text."""
    chosen_MT = torch.from_numpy(chosen_M)[:, None]
    shares_MV = model(chosen_MT)[0][:, 0].softmax(dim=-1)
    return shares_MV.numpy()[:, chosen_M]


def token_embedding(model: Model, vocab_size: int) -> Floats | None:
    """Return (V, C) the token embedding, or None if the model has none."""
    for name, module in model.named_modules():
        if name.endswith(("embedding", "embedding_table")) and isinstance(module, nn.Embedding):
            weight = module.weight.detach()[:vocab_size]  # the rest: gates, positions
            return weight.numpy() if weight.shape[1] > 1 else None
    return None


def principal_components(points_MC: Floats) -> tuple[Floats, Floats]:
    """Return (M, 2) the first two principal components of some points (Pearson 1901), and (2,) the
    shares of the variance that they explain."""
    u, s, _ = np.linalg.svd(points_MC - points_MC.mean(axis=0), full_matrices=False)
    shares = s**2 / max(float((s**2).sum()), 1e-12)
    return u[:, :2] * s[:2], shares[:2]


def find_transformer(model: Model) -> GPT | LectureGPT | None:
    """Return the Transformer in a model, if there is one."""
    network = model.network if isinstance(model, NetworkWithCounts) else model
    return network if isinstance(network, GPT | LectureGPT) else None


@torch.inference_mode()
def attention_maps(model: Model, ids_T: Ids) -> list[Tensor]:
    """Return each layer's attention weights, (H, T, T), whose rows sum to 1; an empty list if the
    model has no attention."""
    network, tokens_BT = find_transformer(model), torch.from_numpy(ids_T)[None]
    if network is None:
        return []
    features: tuple[Tensor, ...] = ()
    if isinstance(model, Hybrid):
        features = model.features(tokens_BT)
    return [maps_BHTT[0] for maps_BHTT in network.attention_maps(tokens_BT, *features)]
