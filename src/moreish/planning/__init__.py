"""What a training will take, and which one suits a text and a machine."""

from moreish.planning.estimate import MFU, Estimate, foreseen
from moreish.planning.memory import check_counting, check_memory_of, free_memory
from moreish.planning.planner import NETWORK, TRAIN, Advice, advise, planned
from moreish.planning.report import lines_of

__all__ = [
    "MFU",
    "NETWORK",
    "TRAIN",
    "Advice",
    "Estimate",
    "advise",
    "check_counting",
    "check_memory_of",
    "foreseen",
    "free_memory",
    "lines_of",
    "planned",
]
