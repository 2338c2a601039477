"""The OpenAPI document, made from the bodies of the APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from rerankd.apis.base import Api
from rerankd.apis.status import meaning

FIRST = "/v1/rerank"
"""The first path in the document."""

HEADERS = {
    "x-rerankd-model": "The model that scored.",
    "x-rerankd-warning": "Deviations from the request. Only with warnings.",
    "x-rerankd-cost": "The charge, in millionths of the price list's currency. Only with accounts.",
    "x-rerankd-tokens": "The billed tokens: queries and documents, without the template. Only with accounts.",
}


def describe(app: FastAPI, routes: Mapping[tuple[str, str], Sequence[Api[Any]]]) -> None:
    """Adds the bodies of every API to the document that FastAPI makes from the other routes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            bodies = {one: _bodies(schema, one) for apis in routes.values() for one in apis}
            for (method, path), apis in routes.items():
                if "{" in path:  # another spelling of a path that is described
                    continue
                operation = _operation(method, path, [(one, bodies[one]) for one in apis])
                schema["paths"].setdefault(path, {})[method.lower()] = operation
            schema["paths"] = dict(sorted(schema["paths"].items(), key=lambda item: item[0] != FIRST))
            schema["components"].setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


@dataclass(frozen=True, slots=True)
class _Bodies:
    """The schemas of an API's bodies."""

    request: dict[str, Any]
    reply: dict[str, Any]
    error: dict[str, Any]


def _bodies(schema: dict[str, Any], api: Api[Any]) -> _Bodies:
    # Two APIs may have models of the same name, so each has a name space.
    template = f"#/components/schemas/{api.name}.{{model}}"
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas = []
    for kind in (api.body, api.reply_body, api.error_body):
        own = TypeAdapter(kind).json_schema(ref_template=template)
        for name, definition in own.pop("$defs", {}).items():
            components[f"{api.name}.{name}"] = definition
        schemas.append(own)
    return _Bodies(*schemas)


def _operation(method: str, path: str, apis: Sequence[tuple[Api[Any], _Bodies]]) -> dict[str, Any]:
    apis = apis[::-1]  # first the API that takes a body which no other claims
    statuses = sorted({status for api, _ in apis for status in api.statuses})
    error = _any_of([bodies.error for _, bodies in apis])
    reply = _any_of([bodies.reply for _, bodies in apis])
    return {
        "tags": ["rerank"],
        "summary": ", ".join(dict.fromkeys(api.facts.title for api, _ in apis)),
        "operationId": f"{method.lower()}{path}".replace("/", "_").replace("-", "_"),
        "security": [{"key": []}],
        "requestBody": {"required": True, "content": _request([bodies.request for _, bodies in apis])},
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
    """A request's content. Its example, which the page of the description sends, is a body of the first API."""
    content = _any_of(schemas)
    content["application/json"]["example"] = _example(schemas[0])
    return content


def _example(schema: dict[str, Any]) -> Any:
    """A body of the required fields, with their examples, and of a model's name."""
    if "examples" in schema:
        return schema["examples"][0]
    fields = {name: schema["properties"][name] for name in schema.get("required", [])}
    named = {"model": "qwen3-rerank"} if "model" in schema["properties"] else {}
    return named | {name: field["examples"][0] for name, field in fields.items() if "examples" in field}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
