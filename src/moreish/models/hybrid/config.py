"""Settings of the hybrid."""

from typing import Literal

from pydantic import Field

from moreish.errors import MoreishError
from moreish.models.base import ModelConfig
from moreish.models.interpolated import NetworkWithCountsConfig
from moreish.models.memory import MAX_REACH
from moreish.models.ngram import max_order

MEMORY_ORDER = 9
"""Default order of the counts beside a memory of recent text."""

MAX_DENSE_VOCABULARY = 1000
"""Vocabulary size above which only candidates have predictions of their own, and not all tokens."""


class HybridConfig(NetworkWithCountsConfig):
    NETWORK = "gpt"
    name: Literal["hybrid"] = "hybrid"
    folds: int = Field(20, ge=2, le=1000)
    """Number of folds of the training text, each of which is looked up in the counts of all the
    others; a very large text has fewer."""
    memory: int | None = Field(None, ge=0, le=MAX_REACH)
    """Tokens of recent text in which earlier occurrences of the current context are found; 0: none.
    By default 32,768 for running text, and 0 for lists, whose items do not depend on each other."""

    candidates: bool | None = None
    """Whether only tokens that have followed the current one have predictions of their own, and all
    others share one. By default above 1,000 tokens, where one for each takes too long."""

    def for_data(self, longest_item: int | None, vocab_size: int) -> ModelConfig:
        """Raises MoreishError for a memory of items."""
        if self.memory and longest_item is not None:
            raise MoreishError(
                f"model.memory={self.memory} is for running text: leave it out, as the items of a "
                "list do not depend on each other"
            )
        memory = self.memory
        if memory is None:
            memory = MAX_REACH if longest_item is None else 0
        # A memory goes with n-grams that are too long to fill a distribution: the network mixes all
        # orders.
        order = min(MEMORY_ORDER, max_order(vocab_size))
        counts = self.counts.with_defaults(order=order) if memory else self.counts
        candidates = self.candidates
        if candidates is None:
            candidates = vocab_size > MAX_DENSE_VOCABULARY
        update = {
            "memory": memory,
            "candidates": candidates,
            "counts": counts.for_data(longest_item, vocab_size),
        }
        return super().for_data(longest_item, vocab_size).model_copy(update=update)
