"""A new API takes one file and one entry in the table of facts; everything else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rerankd

ROOT = Path(__file__).parents[2]
FACTS = "apis/facts.py"

API = '''
"""An API that is made up."""

from pydantic import BaseModel

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, InstructBody, ListOf
from rerankd.errors import InvalidRequest, RerankdError


class Body(InstructBody):
    query: str
    candidates: ListOf[str]


class Reply(BaseModel):
    hits: list[JSON]


class Error(BaseModel):
    problem: str


class Example(Api[Body]):
    facts = FACTS["example"]
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ErrorTable({InvalidRequest: 418})

    def parse(self, body: Body) -> Call:
        return self.call(body, body.query, body.candidates)

    def reply(self, answer: Answer) -> JSON:
        return {"hits": [answer.result(one, index=one.index, score=one.score) for one in answer.ranked]}

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        return self.errors.status(error), {"problem": str(error)}
'''

ENTRY = """
    ApiFacts(
        "example", "Rerank (Example)", "example:Example", ("/example/rerank",), client="example", documents="candidates"
    ),
"""

REPORT = """
import json, sys, time
from starlette.testclient import TestClient
from rerankd.app import create_app
from rerankd.client.dialects import DIALECTS, endpoint
from rerankd.config import ServerSettings
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.testing import FakeModel

model = FakeModel()
app = create_app(ServerSettings(), Models(ServedModel(lambda _: EngineScorer(Engine(model), model))))
with TestClient(app) as client:
    while client.get("/health").status_code != 200:
        time.sleep(0.01)
    ranked = client.post("/example/rerank", json={"query": "a", "candidates": ["b", "c"]})
    refused = client.post("/example/rerank", json={"query": "a"})
    missing = client.get("/nowhere").json()["detail"]
operation = app.openapi()["paths"]["/example/rerank"]["post"]
name, url = endpoint("http://host/example", "auto")
print(json.dumps({
    "ranked": ranked.json(), "refused": [refused.status_code, list(refused.json())], "missing": missing,
    "summary": operation["summary"], "statuses": list(operation["responses"]),
    "client": [name, str(url), DIALECTS["example"].body("a", ["b"], top_n=None, instruct=None, model=None)],
}))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the API `example`: one new file, one new entry."""
    folder = tmp_path_factory.mktemp("example")
    source = folder / "rerankd"
    shutil.copytree(Path(rerankd.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "apis" / "example.py").write_text(API)
    facts = (source / FACTS).read_text()
    before, opening, after = facts.partition("ALL: tuple[ApiFacts, ...] = (")
    (source / FACTS).write_text(before + opening + ENTRY + after)
    return folder


def run(package: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_two_files_differ(package: Path) -> None:
    original = Path(rerankd.__file__).parent
    copied = {path.relative_to(package / "rerankd"): path for path in (package / "rerankd").rglob("*.py")}
    changed = [
        str(name)
        for name, path in copied.items()
        if not (original / name).exists() or (original / name).read_bytes() != path.read_bytes()
    ]
    assert sorted(changed) == ["apis/example.py", FACTS]


def test_it_appears_in_the_paths_the_description_and_the_client(package: Path) -> None:
    report: dict[str, Any] = json.loads(run(package, "-c", REPORT).splitlines()[-1])
    assert {hit["index"] for hit in report["ranked"]["hits"]} == {0, 1}
    assert report["refused"] == [418, ["problem"]]
    assert "/example/rerank" in report["missing"]
    assert report["summary"] == "Rerank (Example)"
    assert report["statuses"] == [
        str(one) for one in (200, 401, 402, 403, 404, 408, 415, 418, 429, 500, 502, 503, 504, 508)
    ]
    assert report["client"] == [
        "example",
        "http://host/example/v1/rerank",
        {"query": "a", "candidates": ["b"]},
    ]


def test_it_appears_in_the_documentation(package: Path) -> None:
    folder = package / "reference"
    shutil.copytree(ROOT / "docs" / "reference", folder)
    run(package, str(folder / "generate.py"))
    [row] = [line for line in (folder / "apis.md").read_text().splitlines() if line.startswith("| Rerank (Example)")]
    assert "`/example/rerank`" in row and "`example`" in row
