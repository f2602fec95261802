"""Output for terminals."""

from moreish.ui.tables import (
    clock,
    comparison_table,
    diagnosis_lines,
    ladder_table,
    novelty_table,
    plural,
    range_lines,
    score_table,
    stated_lines,
    surprisal_table,
    token_lines,
    tokenization_table,
)
from moreish.ui.terminal import TrainingView, console

__all__ = [
    "TrainingView",
    "clock",
    "comparison_table",
    "console",
    "diagnosis_lines",
    "ladder_table",
    "novelty_table",
    "plural",
    "range_lines",
    "score_table",
    "stated_lines",
    "surprisal_table",
    "token_lines",
    "tokenization_table",
]
