"""How many calls and tokens a caller may have in a minute. Knows no account, no key, no database: only names.

Calls are counted exactly, in a moving window. Tokens are counted for this minute and the one before, which weighs less
the longer it is over (https://limits.readthedocs.io/en/stable/strategies.html#sliding-window-counter): two numbers a
caller, never more than the limit in one of these minutes, and none begins anew. It supposes that the tokens of the
minute before were spread evenly, so 60 seconds that begin with a burst may hold up to twice the limit.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import limits.aio.storage
import limits.aio.strategies
import limits.storage
import limits.strategies
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError

from rerankd.errors import InvalidRequest, RateLimited, SettingsError, Unavailable
from rerankd.types import CallLimits

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

logger = logging.getLogger(__name__)

T = TypeVar("T")

MINUTE_S = 60

REDIS_TIMEOUT_S = 1.0
"""For everything that one method asks of Redis."""

REDIS_RETRY_AFTER_S = 5
"""Told to a caller that cannot be counted."""


@dataclass(frozen=True, slots=True)
class Window:
    """Whose minute it is, and what fits in it.

    who: `key:17`, `account:3` or `address:192.0.2.1`.
    """

    who: str
    limits: CallLimits


@dataclass(frozen=True, slots=True)
class _Count:
    """One limit of one caller."""

    who: str
    kind: Literal["requests", "tokens"]
    item: RateLimitItem

    @property
    def sentence(self) -> str:
        noun = {"key": "this API key", "account": "this account", "address": "this address"}
        whose = noun.get(self.who.partition(":")[0], "this caller")
        return f"{self.item.amount} {self.kind} a minute are allowed for {whose}"


class CallRates:
    """Counts calls and tokens of the last minute.

    Args:
        redis: URL of a Redis where several servers count together; None counts in this process.

    Raises:
        SettingsError: the URL is malformed, or Redis's package is not installed.
    """

    def __init__(self, redis: str | None = None) -> None:
        self.trouble: str | None = None  # of Redis, when it was last asked
        self._pool: ConnectionPool | None = None
        self._requests: limits.strategies.RateLimiter | limits.aio.strategies.RateLimiter
        self._tokens: limits.strategies.RateLimiter | limits.aio.strategies.RateLimiter
        if redis is None:
            # Not the asyncio edition: it looks through all callers on threads after every call.
            memory = limits.storage.MemoryStorage()
            self._requests = limits.strategies.MovingWindowRateLimiter(memory)
            self._tokens = limits.strategies.SlidingWindowCounterRateLimiter(memory)
        else:
            self._pool, storage = _redis(redis)
            self._requests = limits.aio.strategies.MovingWindowRateLimiter(storage)
            self._tokens = limits.aio.strategies.SlidingWindowCounterRateLimiter(storage)
        self._last_seen: OrderedDict[tuple[RateLimitItem, str], float] = OrderedDict()

    async def check(self, windows: Sequence[Window]) -> None:
        """Whether a call could begin; counts nothing.

        Raises:
            RateLimited: a window is full; says which, whose, and for how long.
            Unavailable: Redis does not answer.
        """
        async with self._answering():
            counts = _counts(windows)
            for count in counts:
                if not await self._fits(count, 1):
                    raise await self._refusal(count, 1, counts)

    async def take(self, windows: Sequence[Window], tokens: int) -> None:
        """Counts one call of so many tokens in every window, or in none.

        Raises:
            InvalidRequest: the tokens are more than a whole minute's; no retry can help, so this is not RateLimited.
            RateLimited: it does not fit into a window; says which, whose, and for how long.
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

    async def headers(self, windows: Sequence[Window]) -> Mapping[str, str]:
        """`x-ratelimit-limit-requests`, `-remaining-requests` and `-reset-requests`, and the same of tokens.

        Each of the window in which least is left; none for what has no limit. reset: seconds (`12s`) until the oldest
        counted call is a minute old, or until all counted tokens are forgotten.

        Raises:
            Unavailable: Redis does not answer.
        """
        async with self._answering():
            return await self._headers(_counts(windows))

    async def close(self) -> None:
        """Ends the connections to Redis."""
        if self._pool is not None:
            await self._pool.disconnect()

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

    async def look_again(self) -> None:
        """Whether Redis answers again, where it did not."""
        if self.trouble:
            with suppress(Unavailable):
                async with self._answering():
                    if not await _now_or_later(self._requests.storage.check()):
                        raise TimeoutError

    async def _fits(self, count: _Count, cost: int) -> bool:
        return await _now_or_later(self._limiter(count).test(count.item, count.who, cost=cost))

    async def _add(self, costs: Mapping[_Count, int]) -> None:
        """Counts what was just found to fit.

        In memory nothing comes in between. In Redis another server may: what does not fit any more is taken back, if
        it is tokens; the library cannot take a call back. So tokens are counted first (see `_counts`), and at worst a
        refused call is one of the calls of a window, where the other window of two was filled in that very moment.
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
        if self._pool is None and count.kind == "requests":
            self._forget_idle(count)
        return await _now_or_later(self._limiter(count).hit(count.item, count.who, cost=cost))

    def _forget_idle(self, count: _Count) -> None:
        """The library's memory would keep the name of everybody who ever called."""
        now = time.monotonic()
        self._last_seen[count.item, count.who] = now
        self._last_seen.move_to_end((count.item, count.who))
        while (oldest := next(iter(self._last_seen.items())))[1] < now - 2 * MINUTE_S:
            del self._last_seen[oldest[0]]
            self._requests.clear(*oldest[0])

    def _limiter(self, count: _Count) -> Any:
        return self._requests if count.kind == "requests" else self._tokens

    async def _refusal(self, count: _Count, cost: int, counts: Sequence[_Count]) -> RateLimited:
        if count.kind == "tokens":
            used = await self._tokens_used(count)
            wait_s = used.seconds_until(count.item.amount - cost)
        else:
            reset, _ = await _now_or_later(self._limiter(count).get_window_stats(count.item, count.who))
            wait_s = reset - time.time()
        seconds = max(1, math.ceil(wait_s))
        message = f"Rate limit exceeded: {count.sentence}. Try again in {seconds} s."
        return RateLimited(message, seconds, count.kind, await self._headers(counts))

    async def _headers(self, counts: Sequence[_Count]) -> dict[str, str]:
        tightest: dict[str, tuple[int, int, float]] = {}
        for count in counts:
            left, reset_s = await self._left(count)
            told = (max(0, left), count.item.amount, reset_s)
            tightest[count.kind] = min(told, tightest.get(count.kind, told))
        headers = {}
        for kind, (left, amount, reset_s) in tightest.items():
            headers[f"x-ratelimit-limit-{kind}"] = str(amount)
            headers[f"x-ratelimit-remaining-{kind}"] = str(left)
            headers[f"x-ratelimit-reset-{kind}"] = f"{max(0, math.ceil(reset_s))}s"
        return headers

    async def _left(self, count: _Count) -> tuple[int, float]:
        """What is left of a limit, and in how many seconds it resets."""
        if count.kind == "tokens":
            used = await self._tokens_used(count)
            return count.item.amount - math.floor(used.tokens), used.seconds_until(0)
        reset, left = await _now_or_later(self._limiter(count).get_window_stats(count.item, count.who))
        return left, reset - time.time() if left < count.item.amount else 0.0

    async def _tokens_used(self, count: _Count) -> _TokensUsed:
        storage: Any = self._tokens.storage
        key = count.item.key_for(count.who)
        return _TokensUsed(*await _now_or_later(storage.get_sliding_window(key, count.item.get_expiry())))


@dataclass(frozen=True, slots=True)
class _TokensUsed:
    """The sliding window counter's two halves.

    previous, which loses all its weight in previous_s seconds, evenly; current, which begins to in current_s - 60.
    """

    previous: int
    previous_s: float
    current: int
    current_s: float

    @property
    def tokens(self) -> float:
        return self.previous * self.previous_s / MINUTE_S + self.current

    def seconds_until(self, allowed: int) -> float:
        """Until no more tokens than these are counted, if none are added."""
        if self.current <= allowed:
            return (
                max(0.0, self.previous_s - MINUTE_S * (allowed - self.current) / self.previous)
                if self.previous
                else 0.0
            )
        return self.current_s - MINUTE_S * allowed / self.current


def _counts(windows: Sequence[Window]) -> list[_Count]:
    """Every limit that is set: tokens first, see `CallRates._add`."""
    tokens = [
        _Count(window.who, "tokens", RateLimitItemPerMinute(amount, namespace="tokens"))
        for window in windows
        if (amount := window.limits.tokens_per_minute) is not None
    ]
    requests = [
        _Count(window.who, "requests", RateLimitItemPerMinute(amount, namespace="requests"))
        for window in windows
        if (amount := window.limits.requests_per_minute) is not None
    ]
    return tokens + requests


async def _now_or_later(value: T | Awaitable[T]) -> T:
    """What memory answers at once, so that no other call comes in between, and Redis after a while."""
    return await value if inspect.isawaitable(value) else value


def _redis(url: str) -> tuple[ConnectionPool, limits.aio.storage.RedisStorage]:
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
