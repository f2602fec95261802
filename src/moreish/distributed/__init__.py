"""Training by several processes."""

from moreish.distributed.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    full_tensor,
    gather_full,
    is_main_process,
    is_sharded,
    join_process_group,
    launched_world_size,
    load_state,
    local_rank,
    local_tensor,
    local_world_size,
    may_restart,
    restart_count,
    shard_like,
)
