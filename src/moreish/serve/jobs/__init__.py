"""Training from the page: uploaded texts, their audit and plan, and one training run at a time."""

from moreish.serve.jobs.manager import TrainingManager
from moreish.serve.jobs.routes import router as training_router
