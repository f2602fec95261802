"""What a server gives at the most, so that nobody can take it all."""

from pydantic import Field

from moreish.settings import Settings


class Limits(Settings):
    """Each is a setting of `moreish serve --limit NAME=VALUE`."""

    max_tokens: int = Field(4096, ge=1)
    """Of one text."""
    n: int = Field(16, ge=1)
    """Texts for one prompt."""
    prompts: int = Field(16, ge=1)
    """Of one request."""
    total_tokens: int = Field(16384, ge=1)
    """That one request may draw in all: prompts times n times max_tokens; a prompt that is echoed
    with logprobs counts too."""
    prompt_characters: int = Field(100_000, ge=1)
    """Of all prompts of a request together, and of any other text; of token ids the number."""
    logprobs: int = Field(20, ge=0)
    """The likeliest tokens that are told beside each that was drawn."""
    body_bytes: int = Field(1_000_000, ge=1)
    """Of a request, which is not read further."""
    upload_bytes: int = Field(100_000_000, ge=1)
    """Of a text to train on."""
    queue: int = Field(256, ge=1)
    """Texts that wait for a slot of one model; more are refused (429)."""
    seconds: float = Field(300.0, gt=0)
    """After which a request is given up."""
    stall: float = Field(20.0, gt=0)
    """Seconds in which a client takes nothing of its answer, or sends nothing of its request,
    before it is given up."""
    connections: int = Field(512, ge=1)
    """Open at a time; fewer where the system allows few open files."""
