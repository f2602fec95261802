"""Output for terminals."""

from moreish.ui.terminal import (
    TrainingView,
    clock,
    comparison_table,
    console,
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
