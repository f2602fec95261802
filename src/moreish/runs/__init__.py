"""Run folders: what a training run writes."""

from moreish.runs.compare import (
    Comparison,
    PredictionComparison,
    RunGroup,
    compare_predictions,
    compare_runs,
)
from moreish.runs.folder import MAX_SEARCHABLE_TOKENS
from moreish.runs.paths import (
    backup_path,
    check_run_path,
    remove_run,
    replacement_lock,
    restore_run,
    training_lock,
)
from moreish.runs.predicting import Predicted
from moreish.runs.record import (
    ENDED_STATUSES,
    DatasetInfo,
    environment,
    library_versions,
    machine_info,
)
from moreish.runs.run import Run
from moreish.runs.verdict import describe_losses, short_text_note
