"""Several processes."""

from moreish.distributed.process_group import (
    ALONE,
    World,
    first,
    launched_size,
    load_state,
    local,
    local_rank,
    may_restart,
    parted,
    parted_like,
    restarts,
    sharing,
    together,
    whole,
    wholes,
)

__all__ = [
    "ALONE",
    "World",
    "first",
    "launched_size",
    "load_state",
    "local",
    "local_rank",
    "may_restart",
    "parted",
    "parted_like",
    "restarts",
    "sharing",
    "together",
    "whole",
    "wholes",
]
