"""The API's description: well-formed, true of what the server sends, and readable without any other machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.openapi.models import OpenAPI
from pydantic import TypeAdapter

from rerankd.apis.base import Api, ApiSettings
from rerankd.apis.registry import api_routes
from support.error_shapes import JSON
from support.server import Server
from support.surfaces import INFINITY, LLAMA_CPP, SGLANG, SHARED, TEI, Surface

ROUTES = {
    path: dialects
    for (method, path), dialects in api_routes(ApiSettings()).items()
    if method == "POST" and "{" not in path
}
SPOKEN = tuple((path, dialect) for path, dialects in ROUTES.items() for dialect in dialects)
"""Every path with every dialect that may be spoken there."""


@pytest.fixture(scope="module")
def description(qwen_server: Server) -> JSON:
    response = httpx2.get(f"{qwen_server.url}/openapi.json")
    assert response.status_code == 200
    return dict(response.json())


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            yield from _refs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _refs(item)


def _operation(description: JSON, surface: Surface) -> JSON:
    return dict(description["paths"][surface.path]["post"])


def _name(value: Any) -> str:
    return getattr(value, "name", str(value))


def test_the_description_is_openapi(description: JSON) -> None:
    OpenAPI.model_validate(description)
    assert description["openapi"].startswith("3.1")
    assert set(description["paths"]) >= set(ROUTES) | {"/health", "/version", "/v1/models", "/info", "/infinity/models"}
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers)


def test_every_reference_leads_somewhere(description: JSON) -> None:
    refs = set(_refs(description))
    assert refs
    for ref in refs:
        target: Any = description
        for step in ref.removeprefix("#/").split("/"):
            target = target[step]
        assert target


def test_component_names_are_legal(description: JSON) -> None:
    """Generators of clients refuse others."""
    for names in description["components"].values():
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


@pytest.mark.parametrize("surface", SHARED, ids=str)
def test_each_surface_documents_its_statuses_and_its_key(surface: Surface, description: JSON) -> None:
    operation = _operation(description, surface)
    refused, failed = ("422", "424") if surface is TEI else ("422", "500") if surface is INFINITY else ("400", "500")
    assert set(operation["responses"]) >= {"200", refused, "401", "408", "429", failed, "503"}
    assert ("404" in operation["responses"]) is surface.tells_names
    for response in operation["responses"].values():
        assert response["description"] and response["content"]["application/json"]["schema"]
    assert operation["requestBody"]["required"] is True
    (name,) = operation["security"][0]
    assert description["components"]["securitySchemes"][name] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize(("path", "dialect"), SPOKEN, ids=_name)
def test_the_documented_example_works(path: str, dialect: Api[Any], description: JSON, qwen_server: Server) -> None:
    """On a path of several dialects, each one's example is answered in that dialect."""
    schema = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    example = _example(schema["anyOf"][ROUTES[path][::-1].index(dialect)] if "anyOf" in schema else schema, description)
    if not dialect.claims(dict.fromkeys(example, True)):  # Voyage's is told by an optional field
        example["top_k"] = 2
    response = qwen_server.post(path, example)
    assert response.status_code == 200
    assert "x-rerankd-warning" not in response.headers
    _check(dialect.reply_body, response)


def _example(schema: JSON, description: JSON) -> Any:
    """The examples of a schema's required fields."""
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return schema["examples"][0]
    return {name: _example(schema["properties"][name], description) for name in schema["required"]}


def _check(kind: Any, response: httpx2.Response) -> None:
    """The body has the documented shape, and nothing that is not documented."""
    TypeAdapter(kind).validate_json(response.content, strict=True, extra="forbid")


@pytest.mark.parametrize("surface", SHARED, ids=str)
def test_good_replies_are_as_documented(surface: Surface, qwen_server: Server) -> None:
    dialect = ROUTES[surface.path][-1]
    bodies = [
        surface.body(),
        surface.body(documents=["one"], instruct="Find numbers"),
        surface.body(unheard_of=1),  # with a warning
        surface.body(return_documents=True),
        surface.body(return_documents=False),
        surface.body(explain=True),
    ]
    for body in bodies:
        response = qwen_server.post(surface.path, body)
        assert response.status_code == 200
        _check(dialect.reply_body, response)


@pytest.mark.parametrize("surface", SHARED, ids=str)
def test_errors_are_as_documented(surface: Surface, description: JSON, qwen_server: Server) -> None:
    documented = _operation(description, surface)["responses"]
    responses = [
        qwen_server.post(surface.path, {}),
        qwen_server.post(surface.path, surface.body(documents=[])),
        qwen_server.post(surface.path, surface.body(documents=[3])),
        qwen_server.post(surface.path, content=b"{"),
        qwen_server.post(surface.path, surface.body(), key="wrong"),
        qwen_server.post(surface.path, surface.body(model="unknown")),
    ]
    statuses = {response.status_code for response in responses if response.status_code != 200}
    assert statuses == {
        TEI: {400, 401, 422},
        INFINITY: {401, 422},
        SGLANG: {400, 401},
        LLAMA_CPP: {400, 401},
    }.get(surface, {400, 401, 404})
    for response in responses:
        assert str(response.status_code) in documented
        if response.status_code != 200 and response.content:
            _check(ROUTES[surface.path][-1].error_body, response)


def test_the_range_of_top_n_is_documented(description: JSON) -> None:
    ranges = {
        dialect.name: field["anyOf"][0].get("minimum", field["anyOf"][0].get("exclusiveMinimum"))
        for _, dialect in SPOKEN
        if (field := TypeAdapter(dialect.body).json_schema()["properties"].get("top_n"))
    }
    assert ranges["dashscope-compatible"] == 1
    assert ranges["vllm-rerank"] == ranges["tei"] == ranges["infinity"] == ranges["llamacpp"] == 0
    assert ranges["sglang"] is None  # its description has it
    assert description["components"]["schemas"]["dashscope-native.NativeParameters"]["properties"]["top_n"]["anyOf"][
        0
    ] == {"minimum": 1, "type": "integer"}


def test_the_page_needs_no_other_machine(qwen_server: Server) -> None:
    page = httpx2.get(f"{qwen_server.url}/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", page.text)
    assert any(link.endswith(".js") for link in links) and any(link.endswith(".css") for link in links)
    assert not re.search(r"""["'(]\s*(?:https?:)?//""", page.text)
    for link in links:
        response = httpx2.get(httpx2.URL(f"{qwen_server.url}/docs").join(link))
        assert response.status_code == 200 and len(response.content) > 100, link
    assert "/openapi.json" in page.text
