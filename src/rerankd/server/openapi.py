"""The API's description, made from the dialects' bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from rerankd.apis.base import Api
from rerankd.apis.status import meaning

FIRST = "/v1/rerank"
"""What most readers come for."""

HEADERS = {
    "x-rerankd-model": "What scored.",
    "x-rerankd-warning": "What was not done as asked. Only with warnings.",
    "x-rerankd-cost": "What was charged, in millionths of the price list's currency. Only with accounts.",
    "x-rerankd-tokens": "The billed tokens: of queries and documents, not of the template. Only with accounts.",
}


def describe(app: FastAPI, routes: Mapping[tuple[str, str], Sequence[Api[Any]]]) -> None:
    """Adds every dialect's bodies to the description that FastAPI makes of the other routes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            bodies = {one: _bodies(schema, one) for dialects in routes.values() for one in dialects}
            for (method, path), dialects in routes.items():
                if "{" in path:  # another spelling of a path that is described
                    continue
                operation = _operation(method, path, [(one, bodies[one]) for one in dialects])
                schema["paths"].setdefault(path, {})[method.lower()] = operation
            schema["paths"] = dict(sorted(schema["paths"].items(), key=lambda item: item[0] != FIRST))
            schema["components"].setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


@dataclass(frozen=True, slots=True)
class _Bodies:
    """The schemas of what a dialect reads and sends."""

    request: dict[str, Any]
    reply: dict[str, Any]
    error: dict[str, Any]


def _bodies(schema: dict[str, Any], dialect: Api[Any]) -> _Bodies:
    # Two dialects have different models of one name, so each has its own name space.
    template = f"#/components/schemas/{dialect.name}.{{model}}"
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas = []
    for kind in (dialect.body, dialect.reply_body, dialect.error_body):
        own = TypeAdapter(kind).json_schema(ref_template=template)
        for name, definition in own.pop("$defs", {}).items():
            components[f"{dialect.name}.{name}"] = definition
        schemas.append(own)
    return _Bodies(*schemas)


def _operation(method: str, path: str, dialects: Sequence[tuple[Api[Any], _Bodies]]) -> dict[str, Any]:
    dialects = dialects[::-1]  # first what a body is read as that no other dialect claims
    statuses = sorted({status for dialect, _ in dialects for status in dialect.statuses})
    error = _any_of([bodies.error for _, bodies in dialects])
    reply = _any_of([bodies.reply for _, bodies in dialects])
    return {
        "tags": ["rerank"],
        "summary": ", ".join(dict.fromkeys(dialect.facts.title for dialect, _ in dialects)),
        "operationId": f"{method.lower()}{path}".replace("/", "_").replace("-", "_"),
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": _request([bodies.request for _, bodies in dialects])},
        "responses": {
            "200": {
                "description": meaning(200),
                "content": reply,
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()
                },
            },
            **{str(status): {"description": meaning(status), "content": error} for status in statuses},
        },
    }


def _request(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """With the body of the first one as the example that a page of the description sends."""
    content = _any_of(schemas)
    content["application/json"]["example"] = _example(schemas[0])
    return content


def _example(schema: dict[str, Any]) -> Any:
    """The required fields, and a model's name, as their own examples have them."""
    if "examples" in schema:
        return schema["examples"][0]
    fields = {name: schema["properties"][name] for name in schema.get("required", [])}
    named = {"model": "qwen3-rerank"} if "model" in schema["properties"] else {}
    return named | {name: field["examples"][0] for name, field in fields.items() if "examples" in field}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
