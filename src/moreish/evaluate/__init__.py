"""The one ruler: exact losses of whole splits, and what a model thinks of a text."""

from moreish.evaluate.inspect import principal
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
    "bits_shown",
    "evaluation_batches",
    "evaluation_spans",
    "fitting",
    "losses_of",
    "mean_loss",
    "measured",
    "principal",
    "score",
    "surprisal",
    "tokens_of",
]
