"""The log of a server: one line a call, with what an operator asks, and nothing that a caller wrote."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import httpx2
import pytest

from support.server import Server, StartServer

BODY = {
    "query": "capital of China?",
    "documents": ["Paris", "Beijing", "Beijing is the capital " * 40],
    "truncate_prompt_tokens": 64,
}


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    server = start_server("--model", "embedded", key="test-key")
    server.wait_until(lambda: any("Ready:" in line for line in server.log))  # the last line before a call
    return server


def line_of(server: Server, request_id: str) -> dict[str, str]:
    """The fields of the one line with this id."""
    server.wait_until(lambda: any(f"id={request_id} " in line for line in server.log))
    [line] = [line for line in server.log if f"id={request_id} " in line]
    stamp, level, *fields = shlex.split(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", stamp) and level == "INFO"
    return dict(field.split("=", 1) for field in fields)


def test_a_call_is_one_line(server: Server) -> None:
    reply = server.post("/v1/rerank", BODY, headers={"x-request-id": "req-1"})
    line = line_of(server, "req-1")
    assert float(line.pop("seconds")) > 0
    assert int(line.pop("tokens")) > 0
    assert line.pop("model") == reply.headers["x-rerankd-model"]
    assert line == {
        "id": "req-1",
        "method": "POST",
        "path": "/v1/rerank",
        "dialect": "vllm-rerank",
        "key": "static",
        "documents": "3",
        "warnings": "1",
        "status": "200",
        "client": "127.0.0.1",
    }


def test_a_refused_call_says_why(server: Server) -> None:
    server.post("/v1/rerank", {"query": 3, "documents": ["a"]}, headers={"x-request-id": "req-2"})
    line = line_of(server, "req-2")
    assert (line["status"], line["error"], line["dialect"]) == ("400", "InvalidRequest", "vllm-rerank")
    server.post("/v1/rerank", BODY, key="wrong", headers={"x-request-id": "req-3"})
    line = line_of(server, "req-3")
    assert (line["status"], line["error"]) == ("401", "WrongKey") and "key" not in line


def test_nothing_that_a_caller_writes_is_in_the_log(server: Server) -> None:
    secret = "passport 123-45-6789"
    bodies = [
        {"query": f"Instruct: {secret}\nQuery: {secret}", "documents": [secret, f"{secret} " * 2000]},
        {"query": secret, "documents": [secret], secret: secret, "model": secret},
        {"query": "q", "documents": ["d"], "chat_template_kwargs": {secret: 1}, "instruct": secret},
        {"query": [secret], "documents": {secret: secret}},
    ]
    for number, body in enumerate(bodies):
        server.post("/v1/rerank", body, headers={"x-request-id": f"told-{number}"})
        line_of(server, f"told-{number}")
    httpx2.get(f"{server.url}/version?{secret}")
    httpx2.get(f"{server.url}/version?last")
    server.wait_until(lambda: sum("path=/version" in line for line in server.log) >= 2)
    assert "123-45" not in "".join(server.log)


def test_many_warnings_are_still_one_short_line(server: Server) -> None:
    before = len(server.log)
    documents = ["a word " * 300 + str(number) for number in range(300)]
    server.post("/v1/rerank", {**BODY, "documents": documents}, headers={"x-request-id": "many"})
    assert int(line_of(server, "many")["warnings"]) >= 1
    added = server.log[before:]
    assert len(added) == 1 and len(added[0]) < 500


def test_a_long_path_is_cut_and_the_query_string_left_out(server: Server) -> None:
    before = len(server.log)
    httpx2.get(f"{server.url}/nowhere/{'x' * 3_000}?{'y' * 3_000}")
    server.wait_until(lambda: len(server.log) > before)
    [line] = server.log[before:]
    assert len(line) < 500 and "yyy" not in line and "status=404" in line


def test_health_checks_are_not_logged(server: Server) -> None:
    before = len(server.log)
    httpx2.get(f"{server.url}/health")
    httpx2.get(f"{server.url}/metrics")
    httpx2.get(f"{server.url}/version")
    server.wait_until(lambda: any("path=/version" in line for line in server.log[before:]))
    assert len(server.log) == before + 1


def test_debug_has_health_checks_too(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", "--log-level", "debug")
    server.wait_until(lambda: any("path=/health" in line and " DEBUG " in line for line in server.log))


def test_a_level_leaves_out_what_is_below() -> None:
    code = (
        "import logging; from rerankd.cli.log import log_to_stderr; log_to_stderr('warning'); "
        "logging.getLogger('rerankd.x').info('quiet'); logging.getLogger('rerankd.x').warning('loud')"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert "loud" in told and "quiet" not in told
