"""Optimization: setup, gradient steps, checkpoints."""

from moreish.training.budget import budget_steps, measure_step_seconds, plan_training
from moreish.training.checkpoint import LOGS, Checkpoints, checkpoint_bytes, peak_disk_bytes
from moreish.training.divergence import DivergenceError
from moreish.training.events import (
    Audited,
    Evaluated,
    Event,
    Hooks,
    Note,
    Progress,
    Report,
    Rollback,
    Sampled,
    Skipped,
    Started,
    Step,
    ignore,
)
from moreish.training.flops import FlopCounter, device_peak_flops, parse_peak_flops
from moreish.training.lr_range import LR_RANGE_FILE, LRRange, run_lr_range_test
from moreish.training.metrics_log import MetricsLog
from moreish.training.objectives import next_token_loss, training_objective
from moreish.training.optim import (
    build_optimizer,
    check_optimizer,
    default_lr,
    optimizer_memory,
    set_lr,
)
from moreish.training.parallel import shard_model, should_shard
from moreish.training.precision import (
    checkpointable_models,
    resolve_precision,
    unsupported_settings,
)
from moreish.training.setup import (
    DEFAULT_WINDOW,
    TrainingSetup,
    audit_beginning,
    build_meta_model,
    build_sampler,
    build_tokenizer,
    fit_model_config,
    is_examples,
    load_examples,
    resolve_device,
    set_up,
)
from moreish.training.state import StepPlan, TrainState
from moreish.training.trackers import parse_trackers
from moreish.training.trainer import Trainer
from moreish.training.warm_start import (
    FINE_TUNING_LR_SCALE,
    check_warm_start,
    load_warm_start,
    warm_start_settings,
)
