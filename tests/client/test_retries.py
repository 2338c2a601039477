"""What the clients do with servers that fail, stall, hang up or talk nonsense, over real sockets."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event
from typing import Any

import httpx2
import pytest

from rerankd.client import retry
from rerankd.client.bounded import BYTES_PER_DOCUMENT, MAX_REPLY_BYTES
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
from support.fake_server import BOTH, DOCUMENTS, Answer, Ask, StandIn, ranking_of, score_of
from support.waiting import wait_until

pytestmark = pytest.mark.parametrize("ask", BOTH)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)


def error(status: int, message: str = "too bad", **headers: str) -> Answer:
    return Answer(status, {"error": {"message": message}}, {name.replace("_", "-"): headers[name] for name in headers})


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_asked_again(ask: Ask, status: int) -> None:
    with StandIn([error(status), error(status)]) as server:
        ranking = ask(server.url, "a-key")
    assert [result.index for result in ranking.ranked] == sorted(
        range(3), key=lambda index: -score_of(DOCUMENTS[index])
    )
    first, *others = server.requests
    assert len(others) == 2
    assert first.headers["authorization"] == "Bearer a-key"
    assert all(request.body == first.body and request.headers == first.headers for request in others)


def test_what_the_server_says_will_not_pass_is_not_asked_again(ask: Ask) -> None:
    with StandIn([error(429, "no credit", x_should_retry="false")]) as server, pytest.raises(RemoteRefused):
        ask(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RemoteRefused),
        (401, RemoteUnauthorized),
        (402, RemoteOutOfCredit),
        (403, RemoteUnauthorized),
        (404, RemoteModelNotFound),
        (413, RemoteRefused),
        (422, RemoteRefused),
        (424, RemoteRefused),
        (501, RemoteUnavailable),
        (307, RemoteReplyInvalid),
    ],
)
def test_what_stays_is_not(ask: Ask, status: int, kind: type[RemoteError]) -> None:
    with StandIn([error(status, "it will never do", x_request_id="id-7")]) as server:
        with pytest.raises(RemoteError, match=f"{server.url}/v1/rerank answered {status}: it will never do") as raised:
            ask(server.url)
        assert len(server.requests) == 1
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.request_id) == (status, "id-7")
    assert raised.value.reason == "it will never do"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"code": "Arrearage", "message": "Access denied", "request_id": "r"}, RemoteOutOfCredit),
        (429, {"error": {"message": "m", "type": "insufficient_quota", "code": None}}, RemoteOutOfCredit),
        (403, {"detail": {"message": "m", "code": "AUTHZ_INSUFFICIENT_BALANCE"}}, RemoteOutOfCredit),
        (400, {"code": "ModelNotFound", "message": "Model not exist."}, RemoteModelNotFound),
        (400, {"error": {"message": "m", "code": "model_not_found", "type": 7}}, RemoteModelNotFound),
        (422, {"detail": [{"type": "missing", "loc": ["body"], "msg": "m"}]}, RemoteRefused),
    ],
)
def test_the_code_of_an_error_tells_the_kind_of_a_refusal(
    ask: Ask, status: int, body: Any, kind: type[RemoteError]
) -> None:
    with StandIn([Answer(status, body)]) as server:
        with pytest.raises(RemoteRefused) as raised:
            ask(server.url)
        assert len(server.requests) == 1
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("status", "kind"), [(429, RemoteRateLimited), (503, RemoteUnavailable), (408, RemoteUnavailable)]
)
@pytest.mark.parametrize("max_retries", [0, 1, 4])
def test_it_gives_up_after_max_retries(ask: Ask, status: int, kind: type[RemoteError], max_retries: int) -> None:
    with StandIn([error(status, retry_after="0")] * 9) as server:
        with pytest.raises(RemoteUnavailable, match=f"answered {status}: too bad") as raised:
            ask(server.url, client={"max_retries": max_retries})
        assert len(server.requests) == 1 + max_retries
    assert type(raised.value) is kind
    assert raised.value.retry_after_s == 0


def test_retry_after_in_seconds_is_kept_to(ask: Ask) -> None:
    with StandIn([error(429, retry_after="1")]) as server:
        ask(server.url)
    first, second = server.requests
    assert second.at - first.at >= 1


def test_retry_after_as_a_date_is_kept_to(ask: Ask) -> None:
    date = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    with StandIn([error(503, retry_after=format_datetime(date, usegmt=True))]) as server:
        ask(server.url)
    assert len(server.requests) == 2
    assert datetime.now(UTC) >= date


@pytest.mark.parametrize("text", ["Wed, 21 Oct 2015 07:28:00 GMT", "-5", "0", "soon", "", "nan", "inf", "99 bottles"])
def test_retry_after_that_is_over_or_means_nothing_holds_up_nobody(ask: Ask, text: str) -> None:
    with StandIn([error(503, retry_after=text)]) as server:
        ask(server.url)
    assert len(server.requests) == 2


@pytest.mark.parametrize("days", [0, 1])
def test_a_long_pause_is_left_to_the_caller(ask: Ask, days: int) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(days=days, seconds=300), usegmt=True)
    with StandIn([error(429, retry_after=date if days else "300")]) as server:
        with pytest.raises(RemoteRateLimited) as raised:
            ask(server.url)
        assert len(server.requests) == 1
    assert raised.value.retry_after_s == pytest.approx(days * 86400 + 300, abs=60)


def test_a_broken_connection_is_made_again(ask: Ask) -> None:
    cut = Answer(body=b"{", headers={"content-length": "1000", "connection": "close"})
    with StandIn([Answer(hang_up=True), cut]) as server:
        assert len(ask(server.url).ranked) == 3
        assert len(server.requests) == 3


def test_a_server_that_always_hangs_up_is_reported(ask: Ask) -> None:
    with StandIn([Answer(hang_up=True)] * 9) as server:
        with pytest.raises(RemoteUnreachable, match="cannot be reached: Server disconnected") as raised:
            ask(server.url)
        assert len(server.requests) == 3
    assert raised.value.status is None
    assert isinstance(raised.value.__cause__, httpx2.RemoteProtocolError)


def test_a_server_that_cannot_be_reached_is_reported(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(RemoteUnreachable, match=f"http://127.0.0.1:{port}/v1/rerank cannot be reached"):
        ask(f"http://127.0.0.1:{port}")


@pytest.fixture
def stuck() -> Iterator[StandIn]:
    """A server that answers nothing before the end of the test."""
    end = Event()

    def answer(body: dict[str, Any]) -> Answer:
        end.wait(60)
        return ranking_of(body)

    with StandIn(answer=answer) as server:
        yield server
        end.set()


def test_a_server_that_is_too_slow_is_asked_once(ask: Ask, stuck: StandIn) -> None:
    with pytest.raises(RemoteTimeout, match="did not answer in time"):
        ask(stuck.url, client={"timeout": 0.05})
    wait_until(lambda: bool(stuck.requests))
    assert len(stuck.requests) == 1


@pytest.mark.parametrize("packed", [False, True])
def test_a_reply_without_end_is_not_read_to_its_end(ask: Ask, packed: bool) -> None:
    body = b" " * (MAX_REPLY_BYTES + 4 * BYTES_PER_DOCUMENT)
    reply = Answer(body=gzip.compress(body), headers={"content-encoding": "gzip"}) if packed else Answer(body=body)
    with StandIn([reply]) as server, pytest.raises(RemoteReplyInvalid, match="more than 8000600 bytes"):
        ask(server.url)


def test_a_packed_reply_is_unpacked_once(ask: Ask) -> None:
    def packed(body: dict[str, Any]) -> Answer:
        content = gzip.compress(json.dumps(ranking_of(body).body).encode())
        return Answer(body=content, headers={"content-encoding": "gzip"})

    with StandIn(answer=packed) as server:
        assert len(ask(server.url)) == 3


GOOD = {"index": 0, "relevance_score": 0.5}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>hello</html>", "hello"),
        (b"", ""),
        (b"\xff\xfe\xff", ""),
        (b"[" * 100_000, "nested too deeply"),
        ({"code": "Arrearage", "message": "please pay"}, "please pay"),
        ({"error": {"message": "no such thing"}}, "no such thing"),
        ("hello", "no list of results"),
        ({"results": None}, "no list of results"),
        ({"output": {"results": {"0": GOOD}}}, "no list of results"),
        ({"results": [0.5]}, "not an object"),
        ({"results": [{"relevance_score": 0.5}]}, "index None"),
        ({"results": [{**GOOD, "index": 3}]}, "index 3; there are 3 documents"),
        ({"results": [{**GOOD, "index": -1}]}, "index -1"),
        ({"results": [{**GOOD, "index": "0"}]}, "index '0'"),
        ({"results": [{**GOOD, "index": True}]}, "index True"),
        ({"results": [GOOD, GOOD]}, "two results"),
        ({"results": [{"index": 0}]}, "document 0 has the score None"),
        ({"results": [{**GOOD, "relevance_score": "0.5"}]}, "score '0.5'"),
        ({"results": [{**GOOD, "relevance_score": True}]}, "score True"),
        (b'{"results": [{"index": 0, "relevance_score": NaN}]}', "score nan"),
        (b'{"results": [{"index": 0, "relevance_score": 1e999}]}', "score inf"),
    ],
)
def test_a_reply_that_is_no_ranking_is_reported(ask: Ask, body: Any, problem: str) -> None:
    with StandIn([Answer(body=body)]) as server:
        with pytest.raises(RemoteReplyInvalid, match="did not answer with a ranking") as raised:
            ask(server.url)
        assert len(server.requests) == 1
    assert problem in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_a_reply_that_cannot_be_unpacked_is_reported(ask: Ask) -> None:
    with StandIn([Answer(body=b"no gzip", headers={"content-encoding": "gzip"})]) as server:
        with pytest.raises(RemoteReplyInvalid, match="did not answer with a ranking"):
            ask(server.url)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "m1", "type": "Bad Request", "param": None, "code": 400}}, "m1"),
        ({"error": "Unauthorized"}, "Unauthorized"),
        ({"error": "`texts` cannot be empty", "error_type": "Empty"}, "`texts` cannot be empty"),
        ({"code": "InvalidParameter", "message": "m2", "request_id": "r"}, "m2"),
        ({"id": "i", "message": "m3"}, "m3"),
        ({"detail": "m4"}, "m4"),
        ({"detail": {"message": "m5", "code": "INPUT"}}, "m5"),
        (
            {
                "detail": [
                    {"type": "missing", "loc": ["body", "query"], "msg": "Field required", "input": {}},
                    {"msg": "m6"},
                ]
            },
            "body.query: Field required; m6",
        ),
        ({"object": "error", "message": "m7", "type": "BadRequest", "code": 400}, "m7"),
        ({"unknown": 1}, '{"unknown": 1}'),
        (b"plain text\n", "plain text"),
        (b"", "Bad Request"),
        (b"x" * 10_000, "x" * 500 + " …"),
    ],
)
def test_the_server_s_own_words_are_found(ask: Ask, body: Any, message: str) -> None:
    with StandIn([Answer(400, body)]) as server:
        with pytest.raises(RemoteRefused) as raised:
            ask(server.url)
    assert str(raised.value) == f"{server.url}/v1/rerank answered 400: {message}"


def test_fewer_results_than_asked_for_are_reported_and_more_are_dropped(ask: Ask) -> None:
    results = [{**GOOD, "index": index} for index in range(3)]
    with StandIn([Answer(body={"results": results}), Answer(body={"results": results[:1]})]) as server:
        assert [result.index for result in ask(server.url, top_n=2).ranked] == [0, 1]
        ranking = ask(server.url, top_n=2)
    assert len(ranking.ranked) == 1
    assert ranking.warnings == ("the server sent 1 results where 2 were asked for",)
    assert ranking.model is None
    assert ranking.ranked[0].logit is None  # not every server's score is sigmoid(logit)
    assert ranking.usage.total_tokens is None
    assert ranking.request_ids == ()


def test_a_complete_ranking_has_every_result_that_was_asked_for(ask: Ask) -> None:
    results = [{**GOOD, "index": index} for index in range(3)]
    one, two = Answer(body={"results": results[:1]}), Answer(body={"results": results[:2]})
    with StandIn([two, one]) as server:
        assert len(ask(server.url, client={"complete": True}, top_n=2)) == 2
        with pytest.raises(RemoteReplyInvalid, match="1 results where 3 were asked for") as raised:
            ask(server.url, client={"complete": True})
    assert raised.value.reason == "it has 1 results where 3 were asked for"


@pytest.mark.parametrize(
    ("body", "headers", "tokens", "units"),
    [
        ({"usage": {"prompt_tokens": 3, "total_tokens": 5}}, {}, 5, None),
        ({"usage": {"prompt_tokens": 3}}, {}, 3, None),
        ({"meta": {"tokens": {"input_tokens": 7.0}, "billed_units": {"search_units": 2}}}, {}, 7, 2),
        ({"usage": {"search_units": 1, "total_tokens": 150}}, {}, 150, 1),
        ({}, {"x-compute-tokens": "11"}, 11, None),
        ({"usage": None, "meta": []}, {"x-compute-tokens": "many"}, None, None),
        ({"usage": {"total_tokens": "5"}}, {}, None, None),
    ],
)
def test_usage_is_found_where_each_api_has_it(
    ask: Ask, body: dict[str, Any], headers: dict[str, str], tokens: int | None, units: int | None
) -> None:
    results = [{**GOOD, "index": index} for index in range(3)]
    with StandIn([Answer(body={"results": results, **body}, headers=headers)]) as server:
        usage = ask(server.url).usage
    assert (usage.total_tokens, usage.search_units) == (tokens, units)


def test_text_is_sent_as_utf8_and_its_nulls_are_left_out(ask: Ask) -> None:
    with StandIn() as server:
        ask(server.url, query="你好", documents=["北京 \0 😀"])
    assert server.requests[0].body == {"query": "你好", "documents": ["北京 \0 😀"], "return_documents": False}
    assert server.requests[0].headers["content-type"] == "application/json"
    assert "authorization" not in server.requests[0].headers
    assert int(server.requests[0].headers["content-length"]) == len(
        json.dumps(server.requests[0].body, ensure_ascii=False, separators=(",", ":")).encode()
    )


def test_an_instruct_that_no_documentation_promises_is_warned_of(ask: Ask) -> None:
    with StandIn() as server:
        [warning] = ask(server.url, client={"dialect": "jina"}, instruct="Find lies.").warnings
        assert ask(server.url, instruct="Find lies.").warnings == ()
        assert ask(server.url, client={"dialect": "jina"}).warnings == ()
    assert warning == "instruct may have been ignored: the dialect jina documents none"
    assert [request.body.get("instruct") for request in server.requests] == ["Find lies.", None, None]
