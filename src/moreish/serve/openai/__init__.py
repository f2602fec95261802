"""OpenAI's API."""

from moreish.serve.openai.routes import build_sequence_requests, encode_prompt
from moreish.serve.openai.routes import router as openai_router
from moreish.serve.openai.schemas import (
    BaseCompletionRequest,
    RequestBody,
    SamplingParams,
    Tokens,
    Usage,
)

__all__ = [
    "BaseCompletionRequest",
    "RequestBody",
    "SamplingParams",
    "Tokens",
    "Usage",
    "build_sequence_requests",
    "encode_prompt",
    "openai_router",
]
