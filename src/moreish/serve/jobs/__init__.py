"""Training on behalf of clients."""

from moreish.serve.jobs.routes import Trainings
from moreish.serve.jobs.routes import router as training_router

__all__ = [
    "Trainings",
    "training_router",
]
