"""How many calls and tokens a caller may have in a minute. Knows no account, no key, no database: only names.

Calls are counted exactly, in a moving window. Tokens are counted for this minute and the one before, which weighs less
the longer it is over (https://limits.readthedocs.io/en/stable/strategies.html#sliding-window-counter): two numbers a
caller, never more than the limit in one of these minutes, and none begins anew. It supposes that the tokens of the
minute before were spread evenly, so 60 seconds that begin with a burst may hold up to twice the limit.
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

from rerankd.accounts.windows import MINUTE_S, MemoryWindows
from rerankd.errors import InvalidRequest, RateLimited, SettingsError, Unavailable
from rerankd.types import CallLimits

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

logger = logging.getLogger(__name__)

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


class RateLimiter:
    """Counts calls and tokens of the last minute.

    Args:
        redis: URL of a Redis where several servers count together; None counts in this process.

    Raises:
        SettingsError: the URL is malformed, or Redis's package is not installed.
    """

    def __init__(self, redis: str | None = None) -> None:
        self.trouble: str | None = None  # of Redis, when it was last asked
        self._redis = _Redis(redis) if redis is not None else None
        self._memory = MemoryWindows()  # counts where there is no Redis

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

    async def look_again(self) -> None:
        """Whether Redis answers again, where it did not."""
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
        if self._redis is not None:
            return await self._redis.hit(count, cost)
        if count.kind == "tokens":
            self._memory.add_tokens(count.who, cost)
        else:
            self._memory.add_call(count.who)
        return True

    async def _refusal(self, count: _Count, cost: int, counts: Sequence[_Count]) -> RateLimited:
        if count.kind == "tokens":
            used = await self._tokens_used(count)
            wait_s = used.seconds_until(count.item.amount - cost)
        else:
            _, wait_s = await self._calls_left(count)
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
        return await self._calls_left(count)

    async def _calls_left(self, count: _Count) -> tuple[int, float]:
        if self._redis is not None:
            return await self._redis.calls_left(count)
        return self._memory.calls_left(count.who, count.item.amount)

    async def _tokens_used(self, count: _Count) -> _TokensUsed:
        if self._redis is not None:
            return _TokensUsed(*await self._redis.tokens(count))
        return _TokensUsed(*self._memory.tokens(count.who))


class _Redis:
    """The counts of several servers together, by the clock of each: they should be in step."""

    def __init__(self, url: str) -> None:
        self._pool, self._storage = _open_redis(url)
        self._requests = limits.aio.strategies.MovingWindowRateLimiter(self._storage)
        self._tokens = limits.aio.strategies.SlidingWindowCounterRateLimiter(self._storage)

    async def hit(self, count: _Count, cost: int) -> bool:
        limiter = self._requests if count.kind == "requests" else self._tokens
        return bool(await limiter.hit(count.item, count.who, cost=cost))

    async def calls_left(self, count: _Count) -> tuple[int, float]:
        reset, left = await self._requests.get_window_stats(count.item, count.who)
        return left, reset - time.time() if left < count.item.amount else 0.0

    async def tokens(self, count: _Count) -> tuple[int, float, int, float]:
        return await self._storage.get_sliding_window(count.item.key_for(count.who), count.item.get_expiry())

    async def check(self) -> None:
        """Raises TimeoutError where it does not answer."""
        if not await self._storage.check():
            raise TimeoutError

    async def close(self) -> None:
        await self._pool.disconnect()


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
    """Every limit that is set: tokens first, see `RateLimiter._add`."""
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
