"""Output for terminals."""

from moreish.ui.result import describe_ending, print_ending, print_result
from moreish.ui.tables import (
    SPLIT_TITLES,
    audit_lines,
    comparison_table,
    format_loss,
    format_right,
    guess_line,
    ladder_loss,
    ladder_table,
    novelty_table,
    overlap_table,
    prediction_rows,
    prediction_table,
    range_lines,
    runs_table,
    score_table,
    stated_lines,
    surprisal_table,
    token_lines,
    tokenization_table,
)
from moreish.ui.terminal import TrainingView, console, print_indented, print_message
