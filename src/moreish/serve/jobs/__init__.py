"""Training on behalf of clients."""

from moreish.serve.jobs.executor import Side
from moreish.serve.jobs.routes import Trainings

__all__ = [
    "Side",
    "Trainings",
]
