"""From settings to a run folder."""

from moreish.training.session import resume, train

__all__ = ["resume", "train"]
