"""Figures of runs, ladders and learning-rate range tests (needs matplotlib)."""

from moreish.figures.run_figures import (
    make_figures,
    make_ladder_figure,
    make_lr_range_figure,
    plot_losses,
)
