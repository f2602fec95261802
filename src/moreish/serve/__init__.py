"""Serves run folders over HTTP: an OpenAI-style API, a native API and a web page."""

from moreish.serve.http import Limits
from moreish.serve.server import Service
