"""U10 to U13: secrets stay where they belong, the router costs little, it drains, and it sees a loop."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import signal
import traceback
from pathlib import Path

import pytest

from rerankd.cli.served import make_models
from rerankd.config import ServerSettings
from rerankd.errors import SettingsError
from support.routing import Router, routing, upstream
from support.server import StartServer
from support.upstream_server import (
    BROKEN,
    CLOSES,
    HALF_A_BODY,
    NO_JSON,
    REFUSES,
    RESETS,
    WRONG_KEY,
    UpstreamServer,
    slow,
)
from support.waiting import wait_until

CALLERS_KEY = "sk-callers-secret-1234567890"
UPSTREAM_KEY = "up-secret-of-the-router-0987654321"


def everything_said(router: Router, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Replies of every kind, metrics, pages, the log with tracebacks, and `repr`."""
    said = []
    for path in ("/metrics", "/health", "/v1/models", "/", "/openapi.json"):
        said.append(router.client.get(path).text)
    for record in caplog.records:
        if not record.name.startswith(("rerankd", "uvicorn", "asyncio")):
            continue  # also the client of this test logs
        said.append(record.getMessage())
        if record.exc_info:
            said.append("".join(traceback.format_exception(*record.exc_info)))
    members = router.pool.members
    said += [repr(router), repr(router.settings), repr(members), repr([vars(one) for one in members])]
    return said


def test_u10_secrets_stay_where_they_belong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = tmp_path / "key"
    secret.write_text(f"{UPSTREAM_KEY}\n")
    with UpstreamServer(key=UPSTREAM_KEY) as server:
        one = upstream("a", server, api_key=f"file:{secret}")
        with routing(one, settings={"api_key": CALLERS_KEY}) as router:
            headers = {
                "authorization": f"Bearer {CALLERS_KEY}",
                "cookie": "session=callers-cookie",
                "x-callers-own": "callers-header",
                "x-request-id": "callers-request-id",
                "user-agent": "callers-agent",
                "x-forwarded-for": "203.0.113.7",
            }
            router.client.headers.update(headers)
            said = []
            for fault in (None, BROKEN, RESETS, HALF_A_BODY, NO_JSON, CLOSES, REFUSES, WRONG_KEY):
                for member in router.pool.members:
                    member.breaker.probe_passed(router.pool.clock())
                server.fault = fault
                response = router.rerank("query", ["document"])
                said += [response.text, str(response.headers)]
            secret.write_text("up-another-key-1111111111")  # the upstream refuses it, and echoes it
            router.member("a").breaker.probe_passed(router.pool.clock())
            server.fault = None
            assert router.rerank("query", ["document"]).status_code == 502
            said += everything_said(router, caplog)
        text = "\n".join(said)
        for word in (UPSTREAM_KEY, "up-another-key", CALLERS_KEY):
            assert word not in text
        assert server.url.removeprefix("http://") not in "\n".join(said[:20])  # the replies
        sent = str([(request.headers, request.path) for request in (*server.asked, *server.looked_at)])
        for word in (CALLERS_KEY, "callers-", "203.0.113.7"):
            assert word not in sent
        assert UPSTREAM_KEY in sent


def test_u10_a_key_on_the_command_line_is_refused() -> None:
    from support.server import refusal

    said = refusal("--upstream", "http://127.0.0.1:9", "--upstream-key", "sk-bare-key-123456")
    assert "env:NAME or file:PATH" in said and "sk-bare-key" not in said


def test_a_model_beside_upstreams_of_the_short_form_is_refused() -> None:
    both = ServerSettings(upstream=("http://127.0.0.1:9",), model=("embedded",))
    with pytest.raises(SettingsError, match="--model embedded runs in this process, and with --upstream no model does"):
        make_models(both)


def test_u11_a_call_is_one_request_on_a_connection_that_stays() -> None:
    """What it costs in milliseconds: `python -m support.router_cost`."""
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        before, connections = len(server.asked), server.num_connections
        for number in range(50):
            assert router.rerank(f"query {number}", [f"document {place}" for place in range(20)]).status_code == 200
        assert len(server.asked) - before == 50
        assert server.num_connections - connections <= 25  # one that was idle for 2 s is not used again


def test_u12_a_router_drains(start_server: StartServer) -> None:
    with UpstreamServer() as behind:
        server = start_server("--upstream", behind.url, key="test-key")
        wait_until(lambda: bool(behind.asked))  # the probe
        wait_until(lambda: server.post("/v1/rerank", {"query": "q", "documents": ["d"]}).status_code == 200)
        behind.fault = slow(3)
        before = len(behind.asked)
        with concurrent.futures.ThreadPoolExecutor(20) as threads:
            calls = [
                threads.submit(server.post, "/v1/rerank", {"query": f"q{number}", "documents": ["d"]})
                for number in range(20)
            ]
            wait_until(lambda: len(behind.asked) >= before + 20)
            server.process.send_signal(signal.SIGTERM)
            assert [call.result().status_code for call in calls] == [200] * 20
        assert server.process.wait(60) == 0


def test_u13_two_routers_that_point_at_each_other_are_a_loop() -> None:
    with contextlib.ExitStack() as stack:
        behind = stack.enter_context(UpstreamServer())
        first = stack.enter_context(routing(upstream("x", behind)))
        second = stack.enter_context(routing(upstream("x", str(first.client.base_url), skip_self_test=True)))
        started = len(behind.asked)
        first.change(upstream("y", str(second.client.base_url), skip_self_test=True))
        for router, name in ((first, "y"), (second, "x")):
            router.member(name).breaker.probe_passed(router.pool.clock())
        response = first.rerank("query", ["document"])
        assert response.status_code == 508 and "circle" in response.text
        attempts = sum(sum(one.member(name).stats.outcomes.values()) for one, name in ((first, "y"), (second, "x")))
        # A round is four attempts. Only the router that the caller asked tries again, three times at most.
        assert attempts <= 3 * 4
        assert len(behind.asked) == started
