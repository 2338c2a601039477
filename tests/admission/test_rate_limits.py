"""Calls and tokens a minute: in this process, and in a Redis that several servers share."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerankd.admission import rate_limits, windows
from rerankd.admission.rate_limits import RateLimiter, Window
from rerankd.errors import InvalidRequest, RateLimited, SettingsError, Unavailable
from rerankd.types import CallLimits
from support.ports import free_port
from support.redis_server import running_redis

T = TypeVar("T")


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with running_redis(free_port()) as url:
        yield url


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a second to answer."""
    monkeypatch.setattr(rate_limits, "REDIS_TIMEOUT_S", 60)


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("redis_url") if request.param == "redis" else None


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> str:
    """A caller for each test."""
    return f"key:{request.node.name}"


@asynccontextmanager
async def counting(url: str | None) -> AsyncIterator[RateLimiter]:
    limiter = RateLimiter(url)
    try:
        yield limiter
    finally:
        await limiter.close()


def run(url: str | None, test: Callable[[RateLimiter], Awaitable[T]]) -> T:
    async def whole() -> T:
        async with counting(url) as limiter:
            return await test(limiter)

    return asyncio.run(whole())


async def refused(call: Awaitable[None]) -> RateLimited:
    with pytest.raises(RateLimited) as raised:
        await call
    return raised.value


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0  # a whole minute

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)  # Redis's
    monkeypatch.setattr(windows, "monotonic", clock)
    return clock


# What fits and what does not, counted here and in Redis alike.


def test_as_many_calls_as_allowed_and_no_more(url: str | None, subject: str) -> None:
    windows = [Window(subject, CallLimits(requests_per_minute=3))]

    async def test(limiter: RateLimiter) -> None:
        for _ in range(3):
            await limiter.check(windows)
            await limiter.take(windows, 10**9)  # tokens have no limit
        for call in (limiter.check(windows), limiter.take(windows, 1)):
            error = await refused(call)
            assert error.kind == "requests" and 1 <= error.retry_after_s <= 60
            assert str(error) == (
                "Rate limit exceeded: 3 requests a minute are allowed for this API key. "
                f"Try again in {error.retry_after_s} s."
            )

    run(url, test)


def test_as_many_tokens_as_allowed_and_no_more(url: str | None, subject: str) -> None:
    windows = [Window(subject, CallLimits(tokens_per_minute=1000))]

    async def test(limiter: RateLimiter) -> None:
        await limiter.take(windows, 900)
        error = await refused(limiter.take(windows, 101))
        assert error.kind == "tokens" and 1 <= error.retry_after_s <= 120
        assert "1000 tokens a minute" in str(error)
        await limiter.check(windows)  # a smaller call could pass
        await limiter.take(windows, 100)
        assert (await refused(limiter.check(windows))).kind == "tokens"

    run(url, test)


def test_checking_counts_nothing_and_a_refused_call_nowhere(url: str | None, subject: str) -> None:
    key = Window(subject, CallLimits(2, 100))
    account = Window(f"account:{subject}", CallLimits(1, 100))

    async def test(limiter: RateLimiter) -> None:
        for _ in range(5):
            await limiter.check([key, account])
        await limiter.take([account], 0)
        for _ in range(5):
            error = await refused(limiter.take([key, account], 60))
            assert "for this account" in str(error)
        await limiter.take([key], 60)
        await limiter.take([key], 40)

    run(url, test)


def test_a_call_over_the_whole_limit_is_refused_for_good(url: str | None, subject: str) -> None:
    windows = [Window(subject, CallLimits(1, 1000))]

    async def test(limiter: RateLimiter) -> None:
        with pytest.raises(InvalidRequest, match=r"1001 tokens and can never pass: 1000 tokens a minute"):
            await limiter.take(windows, 1001)
        await limiter.take(windows, 1000)  # the refused one was not counted

    run(url, test)


def test_the_status_of_the_limits(url: str | None, subject: str) -> None:
    key, account = Window(subject, CallLimits(10, 1000)), Window(f"account:{subject}", CallLimits(4, 9000))

    async def test(limiter: RateLimiter) -> None:
        assert await limiter.status([Window(subject, CallLimits())]) == {}
        assert await limiter.status([key]) == {"requests": (10, 10, 0), "tokens": (1000, 1000, 0)}
        await limiter.take([key, account], 300)
        status = await limiter.status([key, account])
        assert all(0 < kind.reset_s <= 120 for kind in status.values())
        # Each in the window with the least left.
        assert {kind: left[:2] for kind, left in status.items()} == {"requests": (4, 3), "tokens": (1000, 700)}
        error = await refused(limiter.take([key, account], 900))
        assert error.limits["tokens"].remaining == 700
        assert error.limits["requests"].remaining == 3

    run(url, test)


def test_callers_do_not_share_their_minute(url: str | None, subject: str) -> None:
    async def test(limiter: RateLimiter) -> None:
        for number in range(3):
            await limiter.take([Window(f"{subject}:{number}", CallLimits(1, 10))], 10)

    run(url, test)


def test_at_once_no_more_than_allowed(url: str | None, subject: str) -> None:
    windows = [Window(subject, CallLimits(20, 100)), Window(f"account:{subject}", CallLimits(30, 95))]

    async def take(limiter: RateLimiter) -> bool:
        try:
            await limiter.take(windows, 10)
        except RateLimited:
            return False
        return True

    async def test(limiter: RateLimiter) -> None:
        async with counting(url) if url else _same(limiter) as other:
            taken = await asyncio.gather(*(take(one) for one in [limiter, other] * 20))
        assert 1 <= sum(taken) <= 9
        if url is None:
            assert sum(taken) == 9
        left = await limiter.status(windows)
        assert left["tokens"].remaining == 95 - 10 * sum(taken)  # the refused ones are not counted

    run(url, test)


@asynccontextmanager
async def _same(limiter: RateLimiter) -> AsyncIterator[RateLimiter]:
    yield limiter


# Time passes.


def test_each_call_is_forgotten_when_it_is_a_minute_old(url: str | None, subject: str, clock: Clock) -> None:
    windows = [Window(subject, CallLimits(requests_per_minute=2))]

    async def test(limiter: RateLimiter) -> None:
        await limiter.take(windows, 1)
        clock.now += 40
        await limiter.take(windows, 1)
        error = await refused(limiter.take(windows, 1))
        assert error.retry_after_s == 20
        assert error.limits["requests"].reset_s == 20
        clock.now += 20.5
        await limiter.take(windows, 1)
        assert (await refused(limiter.take(windows, 1))).retry_after_s == 40

    run(url, test)


def test_tokens_come_back_little_by_little(clock: Clock) -> None:
    windows = [Window("account:1", CallLimits(tokens_per_minute=600))]

    async def test(limiter: RateLimiter) -> None:
        clock.now += 30
        await limiter.take(windows, 600)
        clock.now += 30  # the next minute: all of it still counts
        assert (await refused(limiter.take(windows, 1))).kind == "tokens"
        clock.now += 30
        assert (await limiter.status(windows))["tokens"].remaining == 300
        await limiter.take(windows, 300)
        assert (await refused(limiter.take(windows, 300))).retry_after_s == 30
        clock.now += 30
        await limiter.take(windows, 300)

    run(None, test)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.integers(1, 100), st.floats(0, 90)), max_size=12), st.integers(1, 100))
def test_a_refused_call_passes_after_retry_after_and_not_before(
    clock: Clock, calls: list[tuple[int, float]], tokens: int
) -> None:
    windows = [Window("account:1", CallLimits(5, 100))]

    async def passes(limiter: RateLimiter, tokens: int) -> RateLimited | None:
        try:
            await limiter.take(windows, tokens)
        except RateLimited as error:
            return error
        return None

    async def test(limiter: RateLimiter) -> None:
        for cost, seconds in calls:
            await passes(limiter, cost)
            clock.now += seconds
        error = await passes(limiter, tokens)
        if error is None:
            return
        if error.kind == "requests" and error.retry_after_s > 1:
            clock.now += error.retry_after_s - 1.001
            assert await passes(limiter, tokens) is not None
            clock.now += 1.001
        else:
            clock.now += error.retry_after_s
        clock.now += 0.001
        error = await passes(limiter, tokens)
        if error is not None:  # one window has room: now the other one is reported
            clock.now += error.retry_after_s + 0.001
            assert await passes(limiter, tokens) is None

    run(None, test)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 30)), max_size=30))
def test_no_minute_holds_more_than_allowed(clock: Clock, calls: list[tuple[int, float]]) -> None:
    windows = [Window("account:1", CallLimits(4, 150))]
    counted: list[tuple[float, int]] = []

    async def test(limiter: RateLimiter) -> None:
        for tokens, seconds in calls:
            before = await limiter.status(windows)
            try:
                await limiter.take(windows, tokens)
            except RateLimited:
                assert await limiter.status(windows) == before
            else:
                counted.append((clock.now, tokens))
            clock.now += seconds

    run(None, test)
    for start, _ in counted:
        held = [tokens for at, tokens in counted if start <= at < start + 60]
        assert len(held) <= 4 and sum(held) <= 300
    for minute in {at // 60 for at, _ in counted}:
        assert sum(tokens for at, tokens in counted if at // 60 == minute) <= 150


def test_a_clock_that_is_set_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one that is set forward: the process's own clock counts."""
    windows = [Window("key:1", CallLimits(3, 1000))]

    async def test(limiter: RateLimiter) -> None:
        for _ in range(3):
            await limiter.take(windows, 30)
        for jump in (-600, 600):
            wall = time.time() + jump
            monkeypatch.setattr(time, "time", lambda wall=wall: wall)
            assert 30 <= (await refused(limiter.take(windows, 30))).retry_after_s <= 60
            monkeypatch.undo()

    run(None, test)


def test_callers_who_went_away_are_forgotten(clock: Clock) -> None:
    async def test(limiter: RateLimiter) -> int:
        tracemalloc.start()
        for number in range(1000):
            clock.now += 10
            await limiter.take([Window(f"address:{number:010000}", CallLimits(1))], 1)
        return tracemalloc.get_traced_memory()[0]

    try:
        assert run(None, test) < 1_000_000  # the names of all have 10 MB
    finally:
        tracemalloc.stop()


# A Redis that is not there.


def test_two_servers_count_together(redis_url: str, subject: str) -> None:
    windows = [Window(subject, CallLimits(2, 100))]

    async def test(limiter: RateLimiter) -> None:
        async with counting(redis_url) as other:
            await limiter.take(windows, 60)
            assert (await refused(other.take(windows, 60))).kind == "tokens"
            await other.take(windows, 40)
            ours, theirs = await limiter.status(windows), await other.status(windows)
            left = [{kind: one[:2] for kind, one in status.items()} for status in (ours, theirs)]
            assert left[0] == left[1], "a second may pass between the two"

    run(redis_url, test)


def test_without_redis_a_call_is_refused_for_now(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    windows = [Window("key:1", CallLimits(1, 1))]

    async def test(limiter: RateLimiter) -> None:
        for call in (limiter.check(windows), limiter.take(windows, 1), limiter.status(windows)):
            with pytest.raises(Unavailable) as raised:
                await call
            assert not isinstance(raised.value, RateLimited)

    with caplog.at_level(logging.ERROR):
        run(f"redis://:hunter2@127.0.0.1:{port}/0", test)
    assert "Redis" in caplog.text and "hunter2" not in caplog.text


def test_when_redis_comes_back_it_counts_again() -> None:
    port = free_port()
    windows = [Window("key:1", CallLimits(1, 1))]

    async def test(limiter: RateLimiter) -> None:
        for _ in range(2):
            with running_redis(port):  # empty
                await limiter.take(windows, 1)
            with pytest.raises(Unavailable):
                await limiter.check(windows)

    run(f"redis://127.0.0.1:{port}/0", test)


def test_a_redis_that_hangs_does_not_hold_up_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "REDIS_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

        async def test(limiter: RateLimiter) -> None:
            with pytest.raises(Unavailable):
                await limiter.check([Window("key:1", CallLimits(1))])

        run(url, test)


@pytest.mark.parametrize("url", ["redis://h:port/0", "http://localhost", "redis://:hunter2/x@h:1/0"])
def test_a_malformed_url_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="redis: the URL") as raised:
        RateLimiter(url)
    assert "hunter2" not in str(raised.value)


def test_a_missing_package_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    RateLimiter()
    with pytest.raises(SettingsError, match=r"pip install 'rerankd\[redis\]'"):
        RateLimiter("redis://localhost/0")
