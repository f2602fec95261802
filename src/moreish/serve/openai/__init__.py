"""OpenAI's API."""

from moreish.serve.openai.routes import asks_of, ids_of
from moreish.serve.openai.routes import router as openai_router
from moreish.serve.openai.schemas import Asked, Drawing, Tokens, Usage, WriteRequest

__all__ = [
    "Asked",
    "Drawing",
    "Tokens",
    "Usage",
    "WriteRequest",
    "asks_of",
    "ids_of",
    "openai_router",
]
