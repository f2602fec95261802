"""Token files of large texts."""

from moreish.data.shards.dataset import PreparedDataset
from moreish.data.shards.pipeline import PrepareConfig, PrepareResult, prepare_dataset
from moreish.data.shards.sources import SourceFormat

__all__ = [
    "PrepareConfig",
    "PrepareResult",
    "PreparedDataset",
    "SourceFormat",
    "prepare_dataset",
]
