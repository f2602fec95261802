"""Models that count n-grams."""

from moreish.models.ngram.add_k import NGram
from moreish.models.ngram.counts import Folds, check_order, count_ngrams, max_order
from moreish.models.ngram.discounts import TABLE_NAMES
from moreish.models.ngram.kneser_ney import Candidates, KneserNey, KneserNeyConfig
