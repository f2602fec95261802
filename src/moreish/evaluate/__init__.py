"""The one ruler: exact losses of whole splits, and what a model thinks of a text."""

from moreish.evaluate.inspect import (
    attending,
    attention_maps,
    by_count,
    expected_pairs,
    followed,
    pair_counts,
    principal,
    token_embedding,
)
from moreish.evaluate.loss import mean_loss
from moreish.evaluate.metrics import (
    UNIT,
    Score,
    bits_shown,
    evaluation_batches,
    evaluation_spans,
    fitting,
    losses_of,
    score,
)
from moreish.evaluate.novelty import Items, Known, Passages, TextNovelty
from moreish.evaluate.surprisal import TokenSurprisal, surprisal
from moreish.evaluate.tokenization import Token, Tokenization, measured, tokens_of

__all__ = [
    "UNIT",
    "Items",
    "Known",
    "Passages",
    "Score",
    "TextNovelty",
    "Token",
    "TokenSurprisal",
    "Tokenization",
    "attending",
    "attention_maps",
    "bits_shown",
    "by_count",
    "evaluation_batches",
    "evaluation_spans",
    "expected_pairs",
    "fitting",
    "followed",
    "losses_of",
    "mean_loss",
    "measured",
    "pair_counts",
    "principal",
    "score",
    "surprisal",
    "token_embedding",
    "tokens_of",
]
