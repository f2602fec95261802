"""The base class of JSON request bodies."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

MAX_DEPTH = 4
"""Nesting of lists and objects; no parameter needs more."""

SURROGATES = re.compile("[\ud800-\udfff]")
"""A JSON string may contain one half of a surrogate pair, which is not a Unicode character."""


def _normalize(value: Any, depth: int = 0) -> Any:
    match value:
        case list() | dict() if depth == MAX_DEPTH:
            raise ValueError("lists are nested too deeply")
        case list():
            return [_normalize(each, depth + 1) for each in value]
        case dict():
            return {_normalize(key): _normalize(each, depth + 1) for key, each in value.items()}
        case float() if value.is_integer():
            return int(value)
        case str() if SURROGATES.search(value):
            raise ValueError("text must be valid Unicode, without lone surrogates")
    return value


class RequestBody(BaseModel):
    """A JSON request body: unknown parameters and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _normalize_json(cls, value: Any) -> Any:
        """Accept 5.0 as an integer, since JSON has one type of numbers, and reject invalid text."""
        return _normalize(value)
