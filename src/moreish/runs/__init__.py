"""Run folders: what a training leaves behind."""

from moreish.runs.compare import Group, compare
from moreish.runs.folder import SEARCHED, check_free, discard, replaced_by, training_lock
from moreish.runs.record import ENDED, DataFacts, SavedScore, machine, surroundings, versions
from moreish.runs.run import Run

__all__ = [
    "ENDED",
    "SEARCHED",
    "DataFacts",
    "Group",
    "Run",
    "SavedScore",
    "check_free",
    "compare",
    "discard",
    "machine",
    "replaced_by",
    "surroundings",
    "training_lock",
    "versions",
]
