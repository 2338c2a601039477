"""What a caller is told who asked too much, cannot pay, or may not use a model: in the words of each API."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import date
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from rerankd.accounts.store import Store
from rerankd.apis.base import Api, ApiSettings
from rerankd.apis.registry import api_routes
from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.errors import Forbidden, OutOfCredit, OverBudget, RateLimited, RerankdError
from rerankd.prices import MICRO
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import Prompt, RerankRequest
from support.error_shapes import JSON
from support.fakes import NumberedModel, scorer_of
from support.payers import new_payer
from support.ports import free_port
from support.redis_server import running_redis
from support.server import Server, StartServer
from support.serving import serving, serving_model
from support.surfaces import FOLDERS, ONE_EACH, RERANK, Surface
from support.waiting import wait_until

DIALECTS = {one.name: one for dialects in api_routes(ApiSettings()).values() for one in dialects}

BROKE = OutOfCredit(1_500_000, 2_000_000, "USD")
FORBIDDEN = Forbidden("qwen3-rerank", ("small", "smaller"))
TOO_MANY = {kind: RateLimited(f"Too many {kind}.", 7, kind) for kind in ("requests", "tokens", "concurrency")}

Told = tuple[int, dict[str, Any]]


def _nested(message: str, type: str, code: int | str) -> dict[str, Any]:
    return {"message": message, "type": type, "param": None, "code": code}


def _native(status: int, code: str, message: str) -> Told:
    return status, {"code": code, "message": message, "request_id": "id"}


def _compatible(status: int, type: str, code: str, flat: str, message: str) -> Told:
    nested = _nested(message, type, code)
    return status, {"error": nested, "code": flat, "message": message, "request_id": "id"}


def _union(status: int, type: str, flat: str, message: str) -> Told:
    texts = {"message": message, "detail": message, "code": flat, "request_id": "id", "id": "id"}
    return status, {"error": _nested(message, type, status), **texts}


def _jina(status: int, code: str, message: str) -> Told:
    return status, {"detail": {"message": message, "request_id": "id", "code": code}}


def _told_alike(payment: str, forbidden: str, limited: str, body: Callable[[int, str, str], dict[str, Any]]) -> Any:
    """Of an API with a status and a word for each."""
    return {
        BROKE: (402, body(402, payment, str(BROKE))),
        FORBIDDEN: (403, body(403, forbidden, str(FORBIDDEN))),
        **{error: (429, body(429, limited, str(error))) for error in TOO_MANY.values()},
    }


def _nim(status: int, word: str, text: str) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    return {"object": "error", "message": text, "type": word, "title": title, "status": status, "detail": text}


STANDING = f"Access denied, please make sure your account is in good standing. {BROKE}"
QUOTA = f"You exceeded your current quota, please check your plan and billing details. {BROKE}"
DENIED = f"Model access denied. {FORBIDDEN}"

VLLM = _told_alike(
    "Payment Required",
    "Forbidden",
    "Too Many Requests",
    lambda status, word, text: {"error": _nested(text, word, status)},
)
COHERE = _told_alike("", "", "", lambda _, __, text: {"id": "id", "message": text})
DETAIL = _told_alike("", "", "", lambda _, __, text: {"detail": text})
NIM_ERRORS = _told_alike(
    "insufficient_quota", "permission_error", "rate_limit_error", lambda status, word, text: _nim(status, word, text)
)
TEI = _told_alike("Validation", "Validation", "Overloaded", lambda _, word, text: {"error": text, "error_type": word})

EXPECTED: dict[str, dict[RerankdError, Told]] = {
    "dashscope-native": {
        BROKE: _native(400, "Arrearage", STANDING),
        FORBIDDEN: _native(403, "Model.AccessDenied", DENIED),
        TOO_MANY["requests"]: _native(429, "Throttling.RateQuota", "Too many requests."),
        TOO_MANY["tokens"]: _native(429, "Throttling.AllocationQuota", "Too many tokens."),
        TOO_MANY["concurrency"]: _native(429, "Throttling.Concurrency", "Too many concurrency."),
    },
    "dashscope-compatible": {
        BROKE: _compatible(429, "insufficient_quota", "insufficient_quota", "Arrearage", QUOTA),
        FORBIDDEN: _compatible(403, "invalid_request_error", "access_denied", "Model.AccessDenied", DENIED),
        TOO_MANY["requests"]: _compatible(
            429, "requests", "limit_requests", "Throttling.RateQuota", "Too many requests."
        ),
        TOO_MANY["tokens"]: _compatible(
            429, "tokens", "insufficient_quota", "Throttling.AllocationQuota", "Too many tokens."
        ),
        TOO_MANY["concurrency"]: _compatible(
            429, "requests", "limit_requests", "Throttling.Concurrency", "Too many concurrency."
        ),
    },
    "vllm-rerank": {
        BROKE: _union(402, "Payment Required", "Arrearage", str(BROKE)),
        FORBIDDEN: _union(403, "Forbidden", "Model.AccessDenied", str(FORBIDDEN)),
        TOO_MANY["requests"]: _union(429, "Too Many Requests", "Throttling.RateQuota", "Too many requests."),
        TOO_MANY["tokens"]: _union(429, "Too Many Requests", "Throttling.AllocationQuota", "Too many tokens."),
        TOO_MANY["concurrency"]: _union(429, "Too Many Requests", "Throttling.Concurrency", "Too many concurrency."),
    },
    "vllm-score": VLLM,
    "cohere-v1": COHERE,
    "cohere-v2": COHERE,
    "jina": {
        BROKE: _jina(403, "AUTHZ_INSUFFICIENT_BALANCE", str(BROKE)),
        FORBIDDEN: _jina(403, "AUTHZ_MODEL_ACCESS_DENIED", str(FORBIDDEN)),
        TOO_MANY["requests"]: _jina(429, "RATE_REQUEST_LIMIT_EXCEEDED", "Too many requests."),
        TOO_MANY["tokens"]: _jina(429, "RATE_TOKEN_LIMIT_EXCEEDED", "Too many tokens."),
        TOO_MANY["concurrency"]: _jina(429, "RATE_CONCURRENCY_LIMIT_EXCEEDED", "Too many concurrency."),
    },
    "voyage": DETAIL,
    "voyage-shared": DETAIL,
    "xinference": DETAIL,
    "nim": NIM_ERRORS,
    "tei": TEI,
    "tei-predict": TEI,
    "infinity": _told_alike(
        "payment_required",
        "forbidden",
        "too_many_requests",
        lambda status, word, text: {"error": _nested(text, word, status)},
    ),
    "sglang": _told_alike(
        "PaymentRequiredError",
        "ForbiddenError",
        "TooManyRequestsError",
        lambda status, word, text: {"object": "error", **_nested(text, word, status)},
    ),
    "llamacpp": _told_alike(
        "permission_error",
        "permission_error",
        "unavailable_error",
        lambda status, word, text: {"error": {"code": status, "message": text, "type": word}},
    ),
    "mixedbread": _told_alike(
        "payment_required_error",
        "forbidden_error",
        "too_many_requests_error",
        lambda _, word, text: {"type": word, "url": None, "message": text, "details": None},
    ),
}


def test_every_dialect_is_expected_to_say_something() -> None:
    assert set(EXPECTED) == set(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
def test_each_dialect_tells_it_in_its_own_words(name: str) -> None:
    dialect: Api[Any] = DIALECTS[name]
    for error, (status, body) in EXPECTED[name].items():
        assert dialect.error(error, "id") == (status, body)
        assert status in dialect.statuses
        dialect.error_body.model_validate(body, strict=True)


def test_an_error_for_lack_of_credit_says_what_is_lacking() -> None:
    assert "costs 2.00 USD" in str(BROKE) and "1.50 USD are left" in str(BROKE)
    assert "0.000001 EUR" in str(OutOfCredit(-1, 1, "EUR")) and "-0.000001 EUR" in str(OutOfCredit(-1, 1, "EUR"))
    assert "small, smaller" in str(FORBIDDEN)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_spent_budget_is_told_like_an_empty_balance(name: str) -> None:
    over = OverBudget(5_000_000, 4_900_000, 0, 200_000, "USD", date(2031, 1, 1))
    status, body = DIALECTS[name].error(over, "id")
    told = json.loads(json.dumps(EXPECTED[name][BROKE][1]).replace(str(BROKE), str(over)))
    assert (status, body) == (EXPECTED[name][BROKE][0], told)
    assert "may spend 5.00 USD a month. 4.90 USD are spent" in json.dumps(body) and "2031-01-01" in json.dumps(body)


# Over HTTP.


@pytest.fixture(scope="module")
def small_minute(start_server: StartServer) -> Server:
    """Allows 100 tokens a minute."""
    return start_server("--model", "embedded", "--tokens-per-minute", "100", key="test-key")


def use_up(server: Server) -> None:
    """90 of them, also where the minute of the test before is over."""
    words = "one two three four five six seven eight nine"
    response = server.post(RERANK.path, RERANK.body("one", [words] * 9))
    if response.status_code == 200:
        assert response.json()["usage"]["total_tokens"] > 90
        assert 0 <= int(response.headers["x-ratelimit-remaining-tokens"]) <= 10


@pytest.mark.parametrize("surface", [*ONE_EACH, *FOLDERS], ids=str)
def test_a_minute_that_is_used_up(surface: Surface, small_minute: Server) -> None:
    """Refused calls are not counted, or the last one would have to wait longer than a minute's decay."""
    use_up(small_minute)
    response = small_minute.post(surface.path, surface.body(documents=["one two three four five six seven"] * 4))
    assert response.status_code == 429
    assert "100 tokens a minute are allowed for this API key" in response.text
    assert 1 <= int(response.headers["retry-after"]) <= 120
    assert response.headers["x-ratelimit-limit-tokens"] == "100"
    assert 0 <= int(response.headers["x-ratelimit-remaining-tokens"]) <= 100
    assert response.headers["x-ratelimit-reset-tokens"].endswith("s")
    assert "x-ratelimit-limit-requests" not in response.headers


@pytest.mark.parametrize("surface", [*ONE_EACH, *FOLDERS], ids=str)
def test_a_call_that_no_minute_holds_is_a_mistake_of_the_caller(surface: Surface, small_minute: Server) -> None:
    response = small_minute.post(surface.path, surface.body(documents=["one two three four five"] * 50))
    assert response.status_code in (400, 422)
    assert "can never pass: 100 tokens a minute" in response.text
    assert "retry-after" not in response.headers


def one() -> JSON:
    """A call that the fake model answers."""
    return RERANK.body(documents=["1"])


def test_a_small_call_that_is_refused_is_not_counted() -> None:
    with serving(lambda progress: scorer_of(NumberedModel()), requests_per_minute=3) as client:
        for wrong in ({}, RERANK.body(model="unheard-of"), RERANK.body(documents=[])):
            assert client.post(RERANK.path, json=wrong).status_code in (400, 404)
        left = [client.post(RERANK.path, json=one()).headers["x-ratelimit-remaining-requests"] for _ in range(3)]
        assert left == ["2", "1", "0"]
        for _ in range(3):
            refused = client.post(RERANK.path, json=one())
            assert refused.status_code == 429
            assert refused.headers["x-ratelimit-limit-requests"] == "3"
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            assert refused.headers["x-ratelimit-reset-requests"] == f"{refused.headers['retry-after']}s"
        # Told before the body is read.
        assert client.post(RERANK.path, content=b"{").status_code == 429


def test_servers_with_one_redis_count_together() -> None:
    port = free_port()

    def server() -> AbstractContextManager[httpx2.Client]:
        url = f"redis://127.0.0.1:{port}/0"
        return serving(lambda progress: scorer_of(NumberedModel()), requests_per_minute=2, redis=url)

    with server() as first, server() as second:
        with running_redis(port):
            for client in (first, second):
                assert client.post(RERANK.path, json=one()).status_code == 200
            for client in (first, second):
                assert client.post(RERANK.path, json=one()).status_code == 429
        response = first.post(RERANK.path, json=one())
        assert "cannot be checked" in RERANK.error(response, 503)


# What costs work counts, whatever comes of it.

GOOD = {"query": "q", "documents": ["1"]}
WRONG: tuple[tuple[bytes, int], ...] = (
    (b"{", 400),
    (b'{"query": "q"', 400),
    (b'{"query": "q"}', 400),
    (b'{"query": "q", "documents": ["1"], "model": "unheard-of"}', 404),
    (b'{"query": "q", "documents": ["1"], "top_n": -1}', 400),
    (b'{"query": "q", "documents": []}', 400),
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda one: str(one[0]))
def test_a_large_call_that_is_refused_is_one_of_the_minute(wrong: tuple[bytes, int]) -> None:
    body, status = wrong[0] + b" " * 20_000, wrong[1]
    with serving(lambda _: scorer_of(NumberedModel()), requests_per_minute=3) as client:
        client.headers["content-type"] = "application/json"
        statuses = [client.post("/v1/rerank", content=body).status_code for _ in range(5)]
        assert statuses == [status] * 3 + [429] * 2
        assert client.post("/v1/rerank", json=GOOD).status_code == 429


def test_what_is_refused_before_its_body_was_read_is_not_counted() -> None:
    with serving(lambda _: scorer_of(NumberedModel()), requests_per_minute=1, max_body_mb=1) as client:
        for _ in range(3):
            with contextlib.suppress(httpx2.WriteError):
                large = client.post(
                    "/v1/rerank", content=b"x" * 2_000_000, headers={"content-type": "application/json"}
                )
                assert "MB" in large.text and large.status_code in (400, 413)
            assert client.get("/v1/rerank").status_code == 405
        assert client.post("/v1/rerank", json=GOOD).status_code == 200
        assert client.post("/v1/rerank", json=GOOD).status_code == 429


class SlowToEncode(NumberedModel):
    """Tokenises until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding, self.go_on = threading.Event(), threading.Event()

    def encode(self, request: RerankRequest) -> list[Prompt]:
        self.encoding.set()
        assert self.go_on.wait(60)
        return super().encode(request)


def test_calls_that_are_being_prepared_run_at_a_time_too() -> None:
    model = SlowToEncode()
    with serving(lambda _: scorer_of(model), concurrency=1) as client, ThreadPoolExecutor(1) as pool:
        # A small call is prepared in the event loop, which this model would stop.
        first = pool.submit(client.post, "/v1/rerank", json={**GOOD, "query": "a" * 5000})
        assert model.encoding.wait(60)
        second = client.post("/v1/rerank", json=GOOD)
        model.go_on.set()
        assert second.status_code == 429 and "at the same time" in second.text
        assert first.result().status_code == 200
        assert client.post("/v1/rerank", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    ("addresses", "statuses"),
    [
        ([f"2001:db8:0:1::{number}" for number in range(1, 4)], [200, 200, 429]),
        ([f"2001:db8:0:{number}::1" for number in range(1, 4)], [200, 200, 200]),
        ([f"192.0.2.{number}" for number in range(1, 4)], [200, 200, 200]),
    ],
)
def test_who_has_an_ipv6_address_has_its_network(addresses: list[str], statuses: list[int]) -> None:
    served = Models(ServedModel(lambda _: scorer_of(NumberedModel())))
    app = create_app(ServerSettings(requests_per_minute=2), served)
    found = []
    with TestClient(app) as started:
        while started.get("/health").status_code != 200:
            time.sleep(0.01)
        for address in addresses:
            found.append(TestClient(app, client=(address, 1)).post("/v1/rerank", json=GOOD).status_code)
    assert found == statuses


def test_a_key_whose_budget_is_spent_is_refused_before_its_body_is_read(store: Store, tmp_path: Path) -> None:
    prices = tmp_path / "rerankd.toml"
    prices.write_text(f'[rates."{NumberedModel().info.name}"]\ninput_price = 1\n')
    payer = new_payer(store)
    key, secret = store.keys.create(payer.account_id, "job", budget=7)  # each call costs 4
    served = Models(ServedModel(lambda _: scorer_of(NumberedModel())))
    with serving_model(served, store=store, accounts=True, config=prices) as client:
        client.headers["authorization"] = f"Bearer {secret}"

        def call(path: str, **changes: object) -> tuple[int, str]:
            response = client.post(path, json={"model": "m", "query": "q", "documents": ["1", "2"], **changes})
            assert response.headers.get("x-should-retry", "false") == "false"
            return response.status_code, response.text

        name = NumberedModel().info.name
        assert call("/v1/rerank", model=name)[0] == 200
        status, told = call("/v1/rerank", model=name)
        assert status == 402 and "0.000004 USD are spent, and this call costs 0.000004 USD" in told
        store.keys.set_budget(key.id, 4)
        # Nothing is left, so the body, which has mistakes, is not read. (A key is looked up again after a second.)
        wait_until(lambda: call("/v1/rerank", documents=7)[0] == 402)
        assert "0.000004 USD are spent. Nothing was charged" in call("/v1/rerank", documents=7)[1]
        store.keys.set_budget(key.id, 100)
        assert call("/v1/rerank", model=name)[0] == 200
    assert payer.account.balance == MICRO - 8 and store.ledger.check() == []
