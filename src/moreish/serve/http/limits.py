"""Upper bounds on what clients may ask for, so that none can use up the machine."""

from pydantic import Field

from moreish.settings import Settings


class Limits(Settings):
    """Limits of the server; each can be set by `moreish serve --limit NAME=VALUE`."""

    max_tokens: int = Field(4096, ge=1)
    """Maximum number of tokens of one text."""
    n: int = Field(16, ge=1)
    """Maximum number of texts per prompt."""
    prompts: int = Field(16, ge=1)
    """Maximum number of prompts in a request."""
    total_tokens: int = Field(16384, ge=1)
    """Maximum number of tokens that a request may generate: prompts times n times max_tokens; a
    prompt that is echoed with logprobs counts too."""
    prompt_characters: int = Field(100_000, ge=1)
    """Maximum length of all prompts of a request together, and of any other text in a request, in
    characters or token ids."""
    logprobs: int = Field(20, ge=0)
    """Maximum number of most likely tokens to report with each generated token."""
    body_bytes: int = Field(1_000_000, ge=1)
    """Maximum size of a request body."""
    upload_bytes: int = Field(100_000_000, ge=1)
    """Maximum size of an uploaded text."""
    queue: int = Field(256, ge=1)
    """Maximum number of texts that wait for a slot of a model; beyond that, requests get 429."""
    seconds: float = Field(300.0, gt=0)
    """Deadline of a request in seconds."""
    stall: float = Field(20.0, gt=0)
    """Seconds after which a client that sends or reads nothing is disconnected."""
    connections: int = Field(512, ge=1)
    """Maximum number of open connections; fewer where the system allows few open files."""
