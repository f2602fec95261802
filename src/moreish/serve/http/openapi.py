"""An OpenAPI document that includes the responses of `Guard` and of our error handlers."""

from typing import Any

from fastapi import FastAPI

from moreish.serve.http.guard import is_private


class DocumentedApp(FastAPI):
    """FastAPI whose document describes the token and has our error responses."""

    def __init__(self, *, needs_token: bool, **options: Any) -> None:
        """
        Args:
            needs_token: whether private paths require a bearer token.
            options: those of FastAPI.
        """
        super().__init__(**options)
        self.openapi_version = "3.2.0"  # the first version that can describe event streams
        self._needs_token = needs_token

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        components = document["components"]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                # Invalid requests get 400 and an `ErrorBody` here.
                operation["responses"].pop("422", None)
                if self._needs_token and is_private(path):
                    operation["security"] = [{"token": []}]
                else:
                    operation["responses"].pop("401", None)
        for schema in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(schema, None)
        if self._needs_token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return document
