"""The way of a query and its documents, from the bytes of a call to those of its reply: files and containers.

The two tables are what a running server does, as support/walk.py sees it. A change that adds a row to one of them makes
the way longer: think of a shorter one first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import walk

FILES = """
    server/protocol server/access_log server/body server/json_bounds server/beside server/call server/validation
    apis/vllm_rerank apis/vllm apis/fields apis/base types
    ranking engine/scorer engine/truncation engine/word_tokens engine/formats engine/qwen3/prompt
    engine/engine engine/job engine/qwen3/shared_prefix engine/qwen3/kv_cache
    server/written
""".split()

HOLDERS = {
    "dict with 'documents'": "the parsed JSON",
    "apis.vllm_rerank.Body": "its shape is checked",
    "apis.base.Show": "what the reply echoes",
    "apis.base.Call": "the request",
    "engine.truncation.CountedText": "truncated",
    "types.Prompt": "token ids",
    "engine.qwen3.shared_prefix._Segment": "the token ids after the prefix",
    "types.Score": "",
    "dict with 'results'": "the reply",
    "server.written.WrittenJSON": "its bytes",
}

LEAD_TO_THEM = {
    "ranking.Prepared",
    "engine.job.Job",
    "engine.protocols.LastChunk",
    "types.Ranking",
    "apis.base.Answer",
}


@pytest.fixture(scope="module")
def seen(tiny_checkpoint: Path) -> dict[str, set[str]]:
    command = [sys.executable, walk.__file__, str(tiny_checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    return {name: set(found) for name, found in json.loads(done.stdout).items()}


def test_the_files_that_receive_a_text_are_these(seen: dict[str, set[str]]) -> None:
    assert seen["files"] == {f"{name}.py" for name in FILES}


def test_ten_kinds_of_objects_have_a_document_in_a_field_of_their_own(seen: dict[str, set[str]]) -> None:
    assert seen["holders"] == HOLDERS.keys()
    assert len(HOLDERS) <= 10


def test_the_objects_that_lead_to_a_document_are_these(seen: dict[str, set[str]]) -> None:
    assert seen["containers"] == HOLDERS.keys() | LEAD_TO_THEM
