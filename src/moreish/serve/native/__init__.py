"""The native API."""

from moreish.serve.native.inspect import history_of
from moreish.serve.native.routes import router as native_router
from moreish.serve.native.schemas import History, Sample

__all__ = [
    "History",
    "Sample",
    "history_of",
    "native_router",
]
