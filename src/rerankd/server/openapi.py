"""The API's description, made from the dialects' bodies."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from rerankd.server.wire.dialect import Dialect

STATUS_MEANS = {
    200: "The ranking.",
    400: "A field is missing, empty, of the wrong type or over a limit; the message says which.",
    401: "No key, or a wrong one.",
    404: "A model that is not served here.",
    408: "The body stopped in the middle.",
    500: "The model failed on this request.",
    503: "Loading, full or shutting down: try again after `Retry-After` seconds.",
}


def describe(app: FastAPI, dialects: tuple[Dialect[Any], ...]) -> None:
    """Adds every dialect's bodies to the description that FastAPI makes of the other routes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            for dialect in dialects:
                _add(schema, dialect)
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _add(schema: dict[str, Any], dialect: Dialect[Any]) -> None:
    # Two dialects have different models of one name, so each has its own name space.
    template = f"#/components/schemas/{dialect.name}.{{model}}"
    models = (dialect.body, dialect.reply_body, dialect.error_body)
    refs, definitions = models_json_schema([(model, "validation") for model in models], ref_template=template)
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    for name, definition in definitions.get("$defs", {}).items():
        components[f"{dialect.name}.{name}"] = definition
    body, reply, error = ({"application/json": {"schema": refs[(model, "validation")]}} for model in models)
    for path in dialect.paths:
        schema["paths"].setdefault(path, {})["post"] = {
            "tags": ["rerank"],
            "summary": dialect.summary,
            "operationId": path.strip("/").replace("/", "_").replace("-", "_"),
            "security": [{"key": []}],
            "requestBody": {"required": True, "content": body},
            "responses": {
                str(status): {"description": STATUS_MEANS[status], "content": reply if status == 200 else error}
                for status in (200, *dialect.statuses)
            },
        }
    schema["components"].setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
