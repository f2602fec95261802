"""Prepared datasets: large texts as token files."""

from moreish.data.shards.dataset import PreparedDataset
from moreish.data.shards.pipeline import PrepareConfig, PrepareResult, prepare_dataset
from moreish.data.shards.readers import SourceFormat
