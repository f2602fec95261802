"""Models that count n-grams."""

from moreish.models.ngram.add_k import NGram
from moreish.models.ngram.counts import Folds, check_order, count, longest_order
from moreish.models.ngram.discounts import TABLES
from moreish.models.ngram.kneser_ney import KneserNey, KneserNeyConfig

__all__ = [
    "TABLES",
    "Folds",
    "KneserNey",
    "KneserNeyConfig",
    "NGram",
    "check_order",
    "count",
    "longest_order",
]
