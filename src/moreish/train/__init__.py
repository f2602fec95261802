"""From settings to a run folder."""

from moreish.train.training import resume, train

__all__ = ["resume", "train"]
