"""Limits calls and tokens per minute. Knows no account, no key, no database: callers are plain names.

Calls are counted exactly, in a moving window. Tokens use a sliding window counter
(https://limits.readthedocs.io/en/stable/strategies.html#sliding-window-counter): one number for this minute, and one
for the previous minute, whose weight decreases linearly. It assumes that the previous minute's tokens were spread
evenly, so 60 seconds that begin with a burst may hold up to twice the limit.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import limits.aio.storage
import limits.aio.strategies
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError

from rerankd.admission.windows import MINUTE_S, MemoryWindows
from rerankd.errors import InvalidRequest, RateLimited, RateLimitStatus, SettingsError, Unavailable
from rerankd.types import CallLimits

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

logger = logging.getLogger(__name__)

REDIS_TIMEOUT_S = 1.0
"""Timeout of one method, over all its calls of Redis."""

REDIS_RETRY_AFTER_S = 5
"""Sent to a caller while Redis does not answer."""


@dataclass(frozen=True, slots=True)
class Window:
    """A caller's minute and its limits.

    Attributes:
        subject: who is counted: `key:17`, `account:3` or `address:192.0.2.1`.
    """

    subject: str
    limits: CallLimits


@dataclass(frozen=True, slots=True)
class _Count:
    """One limit of one caller."""

    subject: str
    kind: Literal["requests", "tokens"]
    item: RateLimitItem

    @property
    def sentence(self) -> str:
        noun = {"key": "this API key", "account": "this account", "address": "this address"}
        whose = noun.get(self.subject.partition(":")[0], "this caller")
        return f"{self.item.amount} {self.kind} a minute are allowed for {whose}"


class RateLimiter:
    """Counts the calls and tokens of the last minute.

    Args:
        redis: the URL of a Redis that several servers share; None: count in this process.

    Raises:
        SettingsError: the URL is malformed, or the package `redis` is not installed.
    """

    def __init__(self, redis: str | None = None) -> None:
        self.trouble: str | None = None  # why Redis did not answer the last request
        self._redis = _Redis(redis) if redis is not None else None
        self._memory = MemoryWindows()  # used without Redis

    async def check(self, windows: Sequence[Window]) -> None:
        """Refuses a call that cannot begin now. Counts nothing.

        Raises:
            RateLimited: a window is full.
            Unavailable: Redis does not answer.
        """
        async with self._answering():
            counts = _counts(windows)
            for count in counts:
                if not await self._fits(count, 1):
                    raise await self._refusal(count, 1, counts)

    async def take(self, windows: Sequence[Window], tokens: int) -> None:
        """Counts one call and its tokens in every window, or in none.

        Raises:
            InvalidRequest: the tokens exceed a whole minute's limit. A retry cannot help, so this is not RateLimited.
            RateLimited: the call does not fit into a window now.
            Unavailable: Redis does not answer.
        """
        async with self._answering():
            counts = _counts(windows)
            costs = {count: tokens if count.kind == "tokens" else 1 for count in counts}
            for count, cost in costs.items():
                if cost > count.item.amount:
                    raise InvalidRequest(
                        f"This call has {cost} tokens and can never pass: {count.sentence}. "
                        "Send fewer or shorter documents, or several requests."
                    )
                if not await self._fits(count, cost):
                    raise await self._refusal(count, cost, counts)
            await self._add(costs)

    async def status(self, windows: Sequence[Window]) -> Mapping[str, RateLimitStatus]:
        """The rest of `requests` and of `tokens`, each in the window with the smallest rest.

        A kind without a limit is missing. `reset_s` counts until the oldest call is a minute old, or until all tokens
        have left the window.

        Raises:
            Unavailable: Redis does not answer.
        """
        async with self._answering():
            return await self._status(_counts(windows))

    async def close(self) -> None:
        """Closes the connections to Redis."""
        if self._redis is not None:
            await self._redis.close()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                yield
        except (StorageError, TimeoutError) as error:
            self.trouble = str(error or "timeout")
            logger.error("The limits cannot be counted: Redis does not answer (%s)", self.trouble)
            raise Unavailable("The rate limits cannot be checked right now. Try again.", REDIS_RETRY_AFTER_S) from None
        self.trouble = None

    async def recheck(self) -> None:
        """Clears `trouble` if Redis answers again."""
        if self.trouble and self._redis is not None:
            with suppress(Unavailable):
                async with self._answering():
                    await self._redis.check()

    async def _fits(self, count: _Count, cost: int) -> bool:
        if count.kind == "tokens":
            return (await self._tokens_used(count)).tokens < count.item.amount - cost + 1
        left, _ = await self._calls_left(count)
        return left >= cost

    async def _add(self, costs: Mapping[_Count, int]) -> None:
        """Counts a call that was just found to fit.

        In memory nothing runs in between. In Redis another server may have counted meanwhile: then the tokens are
        subtracted again; the library cannot remove a call. So tokens are counted first (see `_counts`), and at worst
        a refused call counts in one window because the other one filled up at the same moment.
        """
        counted: list[_Count] = []
        for count, cost in costs.items():
            if not await self._hit(count, cost):
                for one in counted:
                    if one.kind == "tokens":
                        await self._hit(one, -costs[one])
                raise await self._refusal(count, cost, list(costs))
            counted.append(count)

    async def _hit(self, count: _Count, cost: int) -> bool:
        if self._redis is not None:
            return await self._redis.hit(count, cost)
        if count.kind == "tokens":
            self._memory.add_tokens(count.subject, cost)
        else:
            self._memory.add_call(count.subject)
        return True

    async def _refusal(self, count: _Count, cost: int, counts: Sequence[_Count]) -> RateLimited:
        if count.kind == "tokens":
            used = await self._tokens_used(count)
            wait_s = used.seconds_until(count.item.amount - cost)
        else:
            _, wait_s = await self._calls_left(count)
        seconds = max(1, math.ceil(wait_s))
        message = f"Rate limit exceeded: {count.sentence}. Try again in {seconds} s."
        return RateLimited(message, seconds, count.kind, await self._status(counts))

    async def _status(self, counts: Sequence[_Count]) -> dict[str, RateLimitStatus]:
        tightest: dict[str, RateLimitStatus] = {}
        for count in counts:
            left, reset_s = await self._left(count)
            status = RateLimitStatus(count.item.amount, max(0, left), max(0, math.ceil(reset_s)))
            tightest[count.kind] = min(status, tightest.get(count.kind, status), key=_tightness)
        return tightest

    async def _left(self, count: _Count) -> tuple[int, float]:
        """(what is left of a limit, seconds until it resets)."""
        if count.kind == "tokens":
            used = await self._tokens_used(count)
            return count.item.amount - math.floor(used.tokens), used.seconds_until(0)
        return await self._calls_left(count)

    async def _calls_left(self, count: _Count) -> tuple[int, float]:
        if self._redis is not None:
            return await self._redis.calls_left(count)
        return self._memory.calls_left(count.subject, count.item.amount)

    async def _tokens_used(self, count: _Count) -> _TokensUsed:
        if self._redis is not None:
            return _TokensUsed(*await self._redis.tokens(count))
        return _TokensUsed(*self._memory.tokens(count.subject))


class _Redis:
    """Counts that several servers share, by the clock of each: their clocks should agree."""

    def __init__(self, url: str) -> None:
        self._pool, self._storage = _open_redis(url)
        self._requests = limits.aio.strategies.MovingWindowRateLimiter(self._storage)
        self._tokens = limits.aio.strategies.SlidingWindowCounterRateLimiter(self._storage)

    async def hit(self, count: _Count, cost: int) -> bool:
        limiter = self._requests if count.kind == "requests" else self._tokens
        return bool(await limiter.hit(count.item, count.subject, cost=cost))

    async def calls_left(self, count: _Count) -> tuple[int, float]:
        reset, left = await self._requests.get_window_stats(count.item, count.subject)
        return left, reset - time.time() if left < count.item.amount else 0.0

    async def tokens(self, count: _Count) -> tuple[int, float, int, float]:
        return await self._storage.get_sliding_window(count.item.key_for(count.subject), count.item.get_expiry())

    async def check(self) -> None:
        """Raises TimeoutError if Redis does not answer."""
        if not await self._storage.check():
            raise TimeoutError

    async def close(self) -> None:
        await self._pool.disconnect()


@dataclass(frozen=True, slots=True)
class _TokensUsed:
    """The two numbers of a sliding window counter.

    Attributes:
        previous: the previous minute's tokens, whose weight falls to 0 in previous_s seconds.
        current: this minute's tokens, whose weight falls to 0 in current_s seconds, beginning in current_s - 60.
    """

    previous: int
    previous_s: float
    current: int
    current_s: float

    @property
    def tokens(self) -> float:
        return self.previous * self.previous_s / MINUTE_S + self.current

    def seconds_until(self, allowed: int) -> float:
        """Seconds until at most this many tokens are counted, if none are added."""
        if self.current <= allowed:
            return (
                max(0.0, self.previous_s - MINUTE_S * (allowed - self.current) / self.previous)
                if self.previous
                else 0.0
            )
        return self.current_s - MINUTE_S * allowed / self.current


def _counts(windows: Sequence[Window]) -> list[_Count]:
    """Every limit that is set; tokens first, see `RateLimiter._add`."""
    tokens = [
        _Count(window.subject, "tokens", RateLimitItemPerMinute(amount, namespace="tokens"))
        for window in windows
        if (amount := window.limits.tokens_per_minute) is not None
    ]
    requests = [
        _Count(window.subject, "requests", RateLimitItemPerMinute(amount, namespace="requests"))
        for window in windows
        if (amount := window.limits.requests_per_minute) is not None
    ]
    return tokens + requests


def _tightness(status: RateLimitStatus) -> tuple[int, int, int]:
    return status.remaining, status.limit, status.reset_s


def _open_redis(url: str) -> tuple[ConnectionPool, limits.aio.storage.RedisStorage]:
    try:
        from redis.asyncio import ConnectionPool
    except ImportError:
        raise SettingsError("redis: its package is missing: pip install 'rerankd[redis]'.") from None
    try:
        pool = ConnectionPool.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    except ValueError:  # its text may quote the password
        raise SettingsError("redis: the URL is malformed; it should be redis://HOST:PORT/NUMBER.") from None
    storage = limits.aio.storage.RedisStorage(
        "async+redis://",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="rerankd",
        connection_pool=pool,  # type: ignore[arg-type]  # documented, not typed
    )
    return pool, storage
