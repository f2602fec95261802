"""Training on behalf of clients."""

from moreish.serve.jobs.routes import TrainingManager
from moreish.serve.jobs.routes import router as training_router

__all__ = [
    "TrainingManager",
    "training_router",
]
