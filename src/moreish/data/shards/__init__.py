"""Token files of large texts."""

from moreish.data.shards.dataset import Prepared
from moreish.data.shards.pipeline import Order, Outcome, prepare_text
from moreish.data.shards.sources import Reading

__all__ = [
    "Order",
    "Outcome",
    "Prepared",
    "Reading",
    "prepare_text",
]
