"""The API's description: well-formed, true of what the server sends, and readable without any other machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.openapi.models import OpenAPI
from pydantic import BaseModel
from surfaces import ALL, JSON, Surface

from conftest import Server
from rerankd.config import ServerSettings
from rerankd.server.wire import all_dialects

DIALECTS = {path: dialect for dialect in all_dialects(ServerSettings()) for path in dialect.paths}


@pytest.fixture(scope="module")
def description(qwen_server: Server) -> JSON:
    response = httpx.get(f"{qwen_server.url}/openapi.json")
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


def test_the_description_is_openapi(description: JSON) -> None:
    OpenAPI.model_validate(description)
    assert description["openapi"].startswith("3.1")
    assert set(description["paths"]) >= {surface.path for surface in ALL} | {"/health", "/version", "/v1/models"}
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


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_each_surface_documents_its_statuses_and_its_key(surface: Surface, description: JSON) -> None:
    operation = _operation(description, surface)
    assert set(operation["responses"]) >= {"200", "400", "401", "404", "408", "500", "503"}
    for response in operation["responses"].values():
        assert response["description"] and response["content"]["application/json"]["schema"]
    assert operation["requestBody"]["required"] is True
    (name,) = operation["security"][0]
    assert description["components"]["securitySchemes"][name] == {"type": "http", "scheme": "bearer"}


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_the_documented_example_works(surface: Surface, description: JSON, qwen_server: Server) -> None:
    schema = _operation(description, surface)["requestBody"]["content"]["application/json"]["schema"]
    response = qwen_server.post(surface.path, _example(schema, description))
    assert len(surface.scores(response)) == 2
    assert surface.warnings(response) == ""


def _example(schema: JSON, description: JSON) -> Any:
    """The examples of a schema's required fields."""
    if "$ref" in schema:
        schema = description["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return schema["examples"][0]
    return {name: _example(schema["properties"][name], description) for name in schema["required"]}


def _check(model: type[BaseModel], response: httpx.Response) -> None:
    """The body has the documented shape, and nothing that is not documented."""
    model.model_validate(response.json(), strict=True, extra="forbid")


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_good_replies_are_as_documented(surface: Surface, qwen_server: Server) -> None:
    dialect = DIALECTS[surface.path]
    bodies = [
        surface.body(),
        surface.body(documents=["one"], instruct="Find numbers"),
        surface.body(unheard_of=1),  # with a warning
        surface.body(return_documents=True),
        surface.body(return_documents=False),
    ]
    for body in bodies:
        response = qwen_server.post(surface.path, body)
        assert response.status_code == 200
        _check(dialect.reply_body, response)


@pytest.mark.parametrize("surface", ALL, ids=str)
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
    assert {response.status_code for response in responses} == {400, 401, 404}
    for response in responses:
        assert str(response.status_code) in documented
        _check(DIALECTS[surface.path].error_body, response)


def test_the_range_of_top_n_is_documented(description: JSON) -> None:
    fields = {
        name: model["properties"]["top_n"]["anyOf"][0]["minimum"]
        for name, model in description["components"]["schemas"].items()
        if "top_n" in model.get("properties", {})
    }
    assert fields == {
        "dashscope-native.NativeParameters": 1,
        "dashscope-compatible.CompatibleRequest": 1,
        "vllm-rerank.RerankBody": 0,
    }


def test_the_page_needs_no_other_machine(qwen_server: Server) -> None:
    page = httpx.get(f"{qwen_server.url}/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)["']""", page.text)
    assert any(link.endswith(".js") for link in links) and any(link.endswith(".css") for link in links)
    assert not re.search(r"""["'(]\s*(?:https?:)?//""", page.text)
    for link in links:
        response = httpx.get(httpx.URL(f"{qwen_server.url}/docs").join(link))
        assert response.status_code == 200 and len(response.content) > 100, link
    assert "/openapi.json" in page.text
