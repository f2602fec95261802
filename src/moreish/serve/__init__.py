"""Run folders as an HTTP service and a page."""

from moreish.serve.http import Limits
from moreish.serve.server import Service

__all__ = [
    "Limits",
    "Service",
]
