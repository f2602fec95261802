"""The OpenAPI document tells of all that answers, not of the routes alone."""

from typing import Any

from fastapi import FastAPI

from moreish.serve.http.guard import is_private


class DocumentedApp(FastAPI):
    """An application whose document knows the guard and our errors."""

    def __init__(self, *, token: bool, **options: Any) -> None:
        """`token`: whoever asks has to know one."""
        super().__init__(**options)
        self.openapi_version = "3.2.0"  # the first with words for a stream of events
        self._token = token

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        components = document["components"]
        for path, operations in document["paths"].items():
            wanted = self._token and is_private(path)
            for operation in operations.values():
                # What is not understood is answered with 400 here, in a shape of ours.
                operation["responses"].pop("422", None)
                if wanted:
                    operation["security"] = [{"token": []}]
                else:
                    operation["responses"].pop("401", None)
        for shape in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(shape, None)
        if self._token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document
