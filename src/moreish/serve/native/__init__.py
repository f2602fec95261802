"""The native API of the web page."""

from moreish.serve.native.inspect import read_history
from moreish.serve.native.routes import router as native_router
from moreish.serve.native.schemas import HistoryResponse, LoggedSample
