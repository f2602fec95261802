"""Whole tasks from start to end: training a model, resuming a run, training a ladder of models."""

from moreish.workflows.ladder import QUICK, train_ladder
from moreish.workflows.new_run import RUNS, free_path
from moreish.workflows.train import resume, train
