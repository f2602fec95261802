"""An API in the shape of OpenAI's completions API."""

from moreish.serve.openai.requests import (
    build_sequence_requests,
    encode_prompt,
    encode_remembered,
)
from moreish.serve.openai.routes import router as openai_router
from moreish.serve.openai.schemas import (
    BaseCompletionRequest,
    RememberParams,
    SamplingParams,
    TokenIds,
    Usage,
)
