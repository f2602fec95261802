"""What training will cost, and which settings suit a text and a machine."""

from moreish.planning.estimate import DEFAULT_MFU, Estimate, estimate_run
from moreish.planning.families import PLANNED_NETWORK, PLANNED_TRAIN
from moreish.planning.memory import check_counting_memory, check_training_memory, free_memory
from moreish.planning.planner import Plan, plan_run, resolve_auto_model
from moreish.planning.report import format_estimate
