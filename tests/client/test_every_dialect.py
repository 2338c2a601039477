"""The client against a reranker of each dialect that replies as the captures do, and that fails in each way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rerankd.client.dialects import DIALECTS, DialectName
from rerankd.client.errors import (
    RemoteError,
    RemoteModelNotFound,
    RemoteOutOfCredit,
    RemoteRateLimited,
    RemoteRefused,
    RemoteReplyInvalid,
    RemoteTimeout,
    RemoteUnauthorized,
    RemoteUnavailable,
    RemoteUnreachable,
)
from rerankd.types import sigmoid
from support import upstream_server as failing
from support.dialect_replies import AROUND, logit_of, reply_of, scores_of
from support.fake_server import BOTH, Ask, ask_async
from support.upstream_server import Fault, UpstreamServer

QUERY = "Which planet has rings?"
DOCUMENTS = ("Saturn has rings.", "Mars is red.", "Venus is bright.", "Earth is blue.")
CAPTURES = Path(__file__).parents[1] / "captures"
ONCE = {"max_retries": 0, "complete": True, "timeout": 2.0}

on_every_dialect = pytest.mark.parametrize("dialect", sorted(AROUND))


def test_every_dialect_of_the_client_has_a_stand_in() -> None:
    assert set(AROUND) == set(DIALECTS) - {"rerankd"}


@on_every_dialect
@pytest.mark.parametrize("ask", BOTH)
def test_the_scores_are_those_of_the_server(ask: Ask, dialect: DialectName) -> None:
    with UpstreamServer(dialect) as server:
        ranking = ask(server.url, "key", {"dialect": dialect, **ONCE}, query=QUERY, documents=DOCUMENTS)
    [asked] = server.asked
    assert asked.path == DIALECTS[dialect].path
    logits = [logit_of(QUERY, document) for document in DOCUMENTS]
    assert [one.index for one in ranking] == sorted(range(len(DOCUMENTS)), key=lambda index: -logits[index])
    assert [one.score for one in ranking] == [sigmoid(logits[one.index]) for one in ranking]


@pytest.mark.parametrize(
    ("dialect", "file"), [("vllm", "vllm-0.32.json"), ("infinity", "infinity.json"), ("llamacpp", "llama.cpp.json")]
)
def test_a_stand_in_replies_as_the_real_server_did(dialect: str, file: str) -> None:
    cases = json.loads((CAPTURES / file).read_text())["cases"]
    recorded = next(one for one in cases if one["case"] in ("rerank /v1/rerank", "rerank /rerank"))
    body = recorded["request"]
    assert _shape(reply_of(dialect, body, scores_of(dialect, body))) == _shape(recorded["response"])


def _shape(value: Any) -> Any:
    """The keys and types."""
    if isinstance(value, dict):
        return {name: _shape(inner) for name, inner in value.items()}
    return [_shape(value[0])] if isinstance(value, list) else type(value).__name__


FAULTS: tuple[tuple[str, Fault, type[RemoteError]], ...] = (
    ("hangs", failing.HANGS, RemoteTimeout),
    ("resets", failing.RESETS, RemoteUnreachable),
    ("half a body", failing.HALF_A_BODY, RemoteUnreachable),
    ("closes", failing.CLOSES, RemoteUnreachable),
    ("no JSON", failing.NO_JSON, RemoteReplyInvalid),
    ("500", failing.BROKEN, RemoteUnavailable),
    ("502", failing.BAD_GATEWAY, RemoteUnavailable),
    ("429", failing.busy(2), RemoteRateLimited),
    ("503", failing.busy(None, 503), RemoteUnavailable),
    ("401", failing.WRONG_KEY, RemoteUnauthorized),
    ("403", failing.FORBIDDEN, RemoteUnauthorized),
    ("402", failing.NO_CREDIT, RemoteOutOfCredit),
    ("404", failing.NO_MODEL, RemoteModelNotFound),
    ("400", failing.REFUSES, RemoteRefused),
    ("413", failing.TOO_LARGE, RemoteRefused),
    ("missing", failing.MISSING, RemoteReplyInvalid),
    ("double", failing.DOUBLE, RemoteReplyInvalid),
    ("NaN", failing.NAN, RemoteReplyInvalid),
)


@on_every_dialect
def test_each_failure_is_an_error_of_its_kind(dialect: DialectName) -> None:
    with UpstreamServer(dialect) as server:
        for name, fault, kind in FAULTS:
            server.fault = fault
            client = {"dialect": dialect, **ONCE, "timeout": 0.1 if fault is failing.HANGS else 20.0}
            with pytest.raises(RemoteError) as raised:
                ask_async(server.url, "key", client, query=QUERY, documents=DOCUMENTS)
            assert type(raised.value) is kind, name
            if isinstance(raised.value, RemoteRateLimited):
                assert raised.value.retry_after_s == 2
        server.fault = None
        assert len(ask_async(server.url, client={"dialect": dialect}, query=QUERY, documents=DOCUMENTS)) == 4
        assert len(server.asked) == len(FAULTS) + 3, "of four documents that are too many, two are asked for, then one"


@pytest.mark.parametrize(
    ("dialect", "fault"),
    [("dashscope", failing.ARREARAGE), ("dashscope-compatible", failing.ARREARAGE), ("vllm", failing.NO_QUOTA)],
)
def test_an_account_without_credit_is_told_from_a_full_server(dialect: DialectName, fault: Fault) -> None:
    with UpstreamServer(dialect) as server, pytest.raises(RemoteOutOfCredit):
        server.fault = fault
        ask_async(server.url, "key", {"dialect": dialect, **ONCE}, query=QUERY, documents=DOCUMENTS)


def test_a_server_that_was_killed_comes_back_at_its_address() -> None:
    with UpstreamServer() as server:
        server.kill()
        with pytest.raises(RemoteUnreachable):
            ask_async(server.url, client=ONCE)
        server.start()
        assert len(ask_async(server.url, client=ONCE)) == 3
    assert server.open_connections == 0
