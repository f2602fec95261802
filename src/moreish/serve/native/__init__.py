"""The native API."""

from moreish.serve.native.inspect import training_history
from moreish.serve.native.routes import router as native_router
from moreish.serve.native.schemas import HistoryResponse, LoggedSample

__all__ = [
    "HistoryResponse",
    "LoggedSample",
    "native_router",
    "training_history",
]
