"""Losses that a loss is compared with: those of guessing and of counting pairs of tokens."""

import math

import numpy as np

from moreish.data import TokenDataset
from moreish.tokenizers import Ids

MAX_PAIR_VOCABULARY = 2_048
"""Largest vocabulary whose pairs are counted."""

MAX_PAIR_TOKENS = 10_000_000
"""Tokens at the beginning of the training split that are counted."""


def uniform_loss(vocab_size: int) -> float:
    """Return the loss of a uniform guess, in nats per token."""
    return math.log(max(1, vocab_size))


def pair_loss(train: TokenDataset, evaluated: TokenDataset, vocab_size: int) -> float | None:
    """Return the loss of counted pairs of tokens with add-one smoothing, in nats per token, as in
    the first makemore lecture; None for a large vocabulary.

    Args:
        train: the split whose pairs are counted.
        evaluated: the split whose loss is computed.
        vocab_size: V.
    """
    if vocab_size > MAX_PAIR_VOCABULARY:
        return None
    counts_VV = np.ones((vocab_size, vocab_size))
    counts_VV += _count_pairs(train, vocab_size)
    log_VV = np.log(counts_VV / counts_VV.sum(axis=1, keepdims=True))
    evaluated_VV = _count_pairs(evaluated, vocab_size)
    return float(-(evaluated_VV * log_VV).sum() / evaluated_VV.sum())


def _count_pairs(tokens: TokenDataset, vocab_size: int) -> Ids:
    ids_N = tokens.ids_N[:MAX_PAIR_TOKENS].astype(np.int64)
    pairs_P = ids_N[:-1] * vocab_size + ids_N[1:]
    return np.bincount(pairs_P, minlength=vocab_size**2).reshape(vocab_size, vocab_size)
