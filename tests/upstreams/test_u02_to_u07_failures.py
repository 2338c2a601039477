"""U2 to U7: upstreams that die, hang, are slow, fail, are full, or score wrongly. Calls are answered all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from rerankd.apis.facts import ALL, ApiFacts
from rerankd.selftest import QUERY as KNOWN_QUERY
from rerankd.types import sigmoid
from rerankd.upstreams.breaker import FAILURES_IN_A_ROW
from rerankd.upstreams.budget import BACK_PER_S
from rerankd.upstreams.outcomes import FAILURES
from rerankd.upstreams.pool import MAX_ATTEMPTS
from support.dialect_replies import logit_of
from support.routing import Router, routing, upstream
from support.upstream_server import (
    BROKEN,
    CONSTANT,
    DOUBLE,
    FIREWALL,
    HALF_A_BODY,
    HANGS,
    INVERTED,
    MISSING,
    MODEL_FAILS,
    NAN,
    NO_CREDIT,
    NO_JSON,
    NO_TEMPLATE,
    REFUSES,
    RESETS,
    WRONG_KEY,
    Fault,
    UpstreamServer,
    busy,
    slow,
)
from support.waiting import wait_until

CLIENTS = 4

NAMES = ("a", "b", "c")


@pytest.fixture
def servers() -> Iterator[dict[str, UpstreamServer]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(UpstreamServer()) for name in NAMES}


def failures(router: Router, name: str) -> int:
    return sum(router.member(name).stats.outcomes[kind] for kind in FAILURES)


def calls(server: UpstreamServer) -> int:
    """Without probes."""
    return sum(one.body["query"] != KNOWN_QUERY for one in server.asked)


def three(servers: dict[str, UpstreamServer], **settings: object) -> list[dict[str, object]]:
    return [upstream(name, server, **settings) for name, server in servers.items()]


@pytest.mark.parametrize(("way", "number"), [("killed", 2000), ("resets", 500)])
def test_u2_one_of_three_dies_and_no_call_fails(servers: dict[str, UpstreamServer], way: str, number: int) -> None:
    with routing(*three(servers)) as router:
        assert {one.status_code for one in router.rerank_often(200, CLIENTS)} == {200}
        if way == "killed":
            servers["b"].kill()
        else:
            servers["b"].fault = RESETS
        before = calls(servers["b"])
        assert [one.status_code for one in router.rerank_often(number, CLIENTS)] == [200] * number
        router.wait_for(b="open")
        assert failures(router, "b") <= FAILURES_IN_A_ROW + CLIENTS
        assert calls(servers["b"]) - before <= FAILURES_IN_A_ROW + CLIENTS
        servers["b"].fault = None
        if way == "killed":
            servers["b"].start()
        router.wait_for(b="closed")
        router.rerank_often(100, CLIENTS)
        assert calls(servers["b"]) > before + FAILURES_IN_A_ROW + CLIENTS


def test_u3_one_of_three_hangs_and_no_call_fails(servers: dict[str, UpstreamServer]) -> None:
    """Only what hangs has a short timeout: on a busy machine, an answer of the others may take as long."""
    upstreams = [upstream(name, server, timeout_s=0.5 if name == "c" else 60) for name, server in servers.items()]
    with routing(*upstreams) as router:
        servers["c"].fault = HANGS
        responses = router.rerank_often(300, CLIENTS)
        assert [one.status_code for one in responses] == [200] * 300  # within the deadline: else 504
        for _ in range(500):  # what hangs is asked little: on a quick machine, the calls end before its fifth timeout
            if router.state("c") == "open":
                break
            assert {one.status_code for one in router.rerank_often(20, CLIENTS)} == {200}
        assert router.state("c") == "open"
        assert router.member("c").stats.outcomes["timeout"] <= FAILURES_IN_A_ROW + CLIENTS


def test_u3_all_hang_and_a_call_ends_with_504_at_its_deadline(servers: dict[str, UpstreamServer]) -> None:
    with routing(*three(servers)) as router:
        for server in servers.values():
            server.fault = HANGS
        body, headers = {"query": "q", "documents": ["d"]}, {"x-rerankd-deadline-ms": "100"}
        for _ in range(FAILURES_IN_A_ROW + 1):
            response = router.client.post("/v1/rerank", json=body, headers=headers)
            assert response.status_code == 504 and "did not answer in time" in response.text
        assert all(router.state(name) == "closed" for name in NAMES)  # the caller's deadline is not their fault


def test_u3_what_hangs_for_the_whole_deadline_is_asked_no_more() -> None:
    """Its `timeout_s` is longer than the deadline of a call, so no attempt ever reaches it."""
    with UpstreamServer() as server, routing(upstream("a", server, timeout_s=60), deadline_s=0.3) as router:
        server.fault = HANGS
        for _ in range(FAILURES_IN_A_ROW):
            assert router.rerank("q", ["d"]).status_code == 504
        assert router.state("a") == "open"
        assert router.rerank("q", ["d"]).status_code == 503


@pytest.mark.parametrize("fault", [MODEL_FAILS, FIREWALL], ids=["model", "firewall"])
def test_a_text_that_a_server_cannot_take_does_not_close_it(fault: Fault) -> None:
    """TEI answers 424, and a firewall before an API a page with status 403."""
    with UpstreamServer("tei") as server, routing(upstream("a", server)) as router:
        server.fault = fault
        assert router.rerank("q", ["poison"]).status_code == 502
        assert (router.state("a"), failures(router, "a")) == ("closed", MAX_ATTEMPTS)
        server.fault = None
        assert router.rerank("q", ["d"]).status_code == 200


def test_u4_a_slow_one_of_three_gets_little_work(servers: dict[str, UpstreamServer]) -> None:
    with routing(*three(servers)) as router:
        for name, server in servers.items():
            server.fault = slow(2.0 if name == "b" else 0.1)
        responses = router.rerank_often(400, 12)
        assert {one.status_code for one in responses} == {200}
        tokens = {name: router.member(name).stats.tokens for name in NAMES}
        assert tokens["b"] / sum(tokens.values()) <= 0.15


def test_u5_where_all_fail_retries_are_a_fifth(servers: dict[str, UpstreamServer]) -> None:
    with routing(*three(servers)) as router:
        began = time.monotonic()
        for server in servers.values():
            server.fault = BROKEN
        for number in range(100):
            assert router.rerank(f"q{number}", ["d"]).status_code == 502
            for member in router.pool.members:  # as if each had recovered: the budget alone bounds the attempts
                member.breaker.probe_passed(0)
        back = BACK_PER_S * (time.monotonic() - began)  # on a slow machine
        assert 100 < sum(map(calls, servers.values())) <= 1.2 * 100 + 3 + back
        assert router.pool.budget_empty > 0


@pytest.mark.parametrize("facts", [one for one in ALL if one.name != "tei-predict"], ids=lambda one: one.name)
def test_u5_each_api_answers_502_in_its_words(facts: ApiFacts, broken_router: Router) -> None:
    path = next(path for path in (*facts.paths, facts.path) if "{" not in path)
    texts: dict[str, Any] = {facts.query: "q", facts.documents: ["d"]}
    if facts.wrapped:
        texts = {facts.query: {"text": "q"}, facts.documents: [{"text": "d"}]}
    body = {"model": "qwen3-rerank", **({"input": texts} if facts.nested else texts)}
    for member in broken_router.pool.members:
        member.breaker.probe_passed(0)
    response = broken_router.client.post(path, json=body)
    assert response.status_code == 502, response.text
    assert "answered with an error of its own" in response.text
    assert "CUDA" not in response.text and "10.0.0.7" not in response.text and "127.0.0.1" not in response.text


@pytest.fixture(scope="module")
def broken_router() -> Iterator[Router]:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        server.fault = BROKEN
        yield router


def test_u6_nobody_is_asked_before_retry_after(servers: dict[str, UpstreamServer]) -> None:
    with routing(*three(servers)) as router:
        for server in servers.values():
            server.fault = busy(2)
        started = time.monotonic()
        responses = [router.rerank(f"q{number}", ["d"]) for number in range(10)]
        assert {one.status_code for one in responses} == {503}
        assert {one.headers["retry-after"] for one in responses} <= {"1", "2"}
        asked = [one.at for server in servers.values() for one in server.asked if one.at >= started]
        assert len(asked) >= 3
        for server in servers.values():
            times = [one.at for one in server.asked if one.at >= started]
            assert all(later - earlier >= 2 for earlier, later in pairwise(times))
        for server in servers.values():
            server.fault = None
        wait_until(lambda: router.rerank("q", ["d"]).status_code == 200)
        first = min(one.at for server in servers.values() for one in server.asked if one.at > max(asked))
        assert first - min(asked) >= 2


@pytest.mark.parametrize("fault", [INVERTED, CONSTANT, NO_TEMPLATE], ids=["inverted", "constant", "no template"])
def test_u7_wrong_scores_are_never_used(fault: Fault) -> None:
    with UpstreamServer() as good, UpstreamServer() as bad:
        bad.fault = fault
        with routing(upstream("good", good), upstream("bad", bad), wait=False) as router:
            router.wait_for(good="closed", bad="wrong")
            assert {one.headers["x-rerankd-upstream"] for one in router.rerank_often(40, 4)} == {"good"}
            assert calls(bad) == 0
            bad.fault = None
            router.wait_for(bad="closed")
            good.kill()
            response = router.rerank("q", ["one", "two"])
            assert response.headers["x-rerankd-upstream"] == "bad"


def test_u7_scores_that_become_wrong_are_found_by_a_check() -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        server.fault = INVERTED
        assert router.probe("a").status == "wrong"
        assert router.state("a") == "wrong"
        assert router.rerank("q", ["d"]).status_code == 503
        server.fault = None
        router.wait_for(a="closed")
        assert router.probe("a").status == "published"


def test_u7_a_reranker_that_does_not_know_the_planets_can_be_let_in() -> None:
    with UpstreamServer(model="other") as server:
        server.fault = CONSTANT
        with routing(upstream("a", server, skip_self_test=True)) as router:
            assert router.rerank("q", ["d"]).status_code == 200


@pytest.mark.parametrize(
    "fault", [HALF_A_BODY, NO_JSON, MISSING, DOUBLE, NAN], ids=["half a body", "no JSON", "missing", "double", "NaN"]
)
def test_a_reply_that_is_no_ranking_is_asked_for_elsewhere(fault: Fault) -> None:
    with UpstreamServer() as broken, UpstreamServer() as good:
        with routing(upstream("broken", broken), upstream("good", good, tier=1)) as router:
            broken.fault = fault
            response = router.rerank("q", ["one", "two", "three"])
            assert response.status_code == 200 and len(response.json()["results"]) == 3
            assert response.headers["x-rerankd-upstream"] == "good"
            assert response.headers["x-rerankd-attempts"] == "2"


@pytest.mark.parametrize("fault", [WRONG_KEY, NO_CREDIT], ids=["key", "credit"])
def test_a_refusal_of_our_key_is_never_the_callers(fault: Fault) -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        server.fault = fault
        response = router.rerank("q", ["d"])
        assert response.status_code == 502 and "refused this server's key" in response.text
        assert router.state("a") == "refused"


def test_the_callers_mistake_is_told_without_the_upstreams_address() -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        server.fault = REFUSES
        response = router.rerank("q", ["d"])
        assert response.status_code == 400 and "too long: 9000 tokens" in response.text
        assert "10.0.0.7" not in response.text
        assert router.state("a") == "closed" and calls(server) == 1


def test_scores_are_those_of_the_upstream_whatever_fails() -> None:
    with UpstreamServer() as a, UpstreamServer() as b, routing(upstream("a", a), upstream("b", b)) as router:
        for fault in (RESETS, HALF_A_BODY, BROKEN, None):
            a.fault = fault
            for number in range(10):
                texts = [f"text {number} {place}" for place in range(5)]
                reply = router.rerank(f"q{number}", texts).json()
                got = {one["index"]: one["relevance_score"] for one in reply["results"]}
                expected = {place: sigmoid(logit_of(f"q{number}", text)) for place, text in enumerate(texts)}
                assert got == pytest.approx(expected, abs=1e-12)
