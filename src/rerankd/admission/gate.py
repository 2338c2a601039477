"""Decides whether a call may run, and charges it: rate limits, credit, reservation. Knows no API and no engine.

A call passes these steps. `identify`, `admit` and `slot`, before its body is read: who calls, and may the caller call
now? `count_large`: a large body counts as a call even if it is refused later, since reading it costs work.
`check_model`: may the key use the model? `reserve`, once the tokens are known: counts the call and sets its cost aside,
or refuses it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.requests import Request

from rerankd.accounts.budget import over_budget
from rerankd.accounts.decision import UNLIMITED, CallCost, Charge, Concurrency
from rerankd.admission.async_store import AsyncStore
from rerankd.admission.identity import Authenticator, Identity
from rerankd.admission.rate_limits import RateLimiter, Window
from rerankd.errors import Forbidden, Loading, OutOfCredit, RateLimited, RateLimitStatus, Unavailable
from rerankd.prices import Price, PriceFile
from rerankd.types import CallLimits

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.reservation import Reservation

logger = logging.getLogger(__name__)

SMALL_BODY = 16_384
"""Bytes."""

RENEW_AGAIN_S = 2.0
"""Pause before the next try, after leases could not be renewed or Redis did not answer."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """An admitted caller. windows: where its calls are counted, the account's last."""

    identity: Identity
    windows: tuple[Window, ...]


class Settlement:
    """The open charge of a running call.

    Attributes:
        limits: the caller's rate limits, this call included.
        charge: None before `settle`, and without accounts.
    """

    def __init__(self, limits: Mapping[str, RateLimitStatus]) -> None:
        self.limits = limits
        self.charge: Charge | None = None

    async def settle(self, tokens: int | None = None, is_whole: bool = True) -> None:
        """Charges the call. Await it when the reply is ready, and send the reply only afterwards.

        Args:
            tokens, is_whole: see `Ledger.settle`.

        Raises:
            Unavailable: the call cannot be charged now. The reply must not be sent.
        """


class _AccountSettlement(Settlement):
    def __init__(self, limits: Mapping[str, RateLimitStatus], accounts: AsyncStore, reservation: Reservation) -> None:
        super().__init__(limits)
        self._accounts, self._reservation = accounts, reservation

    async def settle(self, tokens: int | None = None, is_whole: bool = True) -> None:
        self.charge = await self._accounts.run(self._accounts.ledger.settle, self._reservation, tokens, is_whole)


class Gate:
    """Admits the calls of one server.

    Args:
        names: every name of the only model, its own first; none where several are served. Raises Loading.
        limits: of callers without limits of their own.
        accounts: None without accounts.
    """

    def __init__(
        self,
        auth: Authenticator,
        rate_limiter: RateLimiter,
        prices: PriceFile,
        names: Callable[[], Sequence[str]],
        limits: CallLimits,
        accounts: AsyncStore | None,
    ) -> None:
        self._auth, self._rate_limiter, self._prices = auth, rate_limiter, prices
        self._names, self._limits, self._accounts = names, limits, accounts
        self._running: Counter[str] = Counter()  # calls in this process, by subject
        self.failed_renewals = 0
        self._leases_renewed, self._renew_at = True, 0.0

    @property
    def charges(self) -> bool:
        """Whether calls are charged: each then needs a fingerprint."""
        return self._accounts is not None

    async def identify(self, request: Request) -> Identity:
        """Identifies the caller. Costs nothing.

        Raises:
            Unauthorized: no key was sent, or it is not valid.
            Unavailable: the accounts do not answer.
        """
        return await self._auth.identify_cached(request)

    async def admit(self, identity: Identity) -> Admitted:
        """Admits a caller who may call now. Costs nothing, and counts nothing.

        Raises:
            RateLimited: the key or the account has reached its limit.
            OutOfCredit: the account has nothing left.
            OverBudget: the budget of the key is spent.
            Unavailable: Redis or the accounts do not answer.
        """
        price = self._price()
        admitted = Admitted(identity, self._windows(identity, price))
        await self._rate_limiter.check(admitted.windows)
        await self._refuse_without_credit(identity, price)
        return admitted

    @contextmanager
    def slot(self, admitted: Admitted) -> Iterator[None]:
        """Counts a call as running, from before its body is read, since reading costs work.

        Raises:
            RateLimited: too many run in this process. (With accounts, `reserve` counts those of all servers.)
        """
        counted: list[str] = []
        try:
            for window in admitted.windows:
                self._check_concurrency(window)
                self._running[window.subject] += 1
                counted.append(window.subject)
            yield
        finally:
            for subject in counted:
                self._running[subject] -= 1
                if not self._running[subject]:
                    del self._running[subject]

    async def count_large(self, admitted: Admitted, request: Request) -> bool:
        """Counts a call with a large body, which cost work even if it is refused.

        Returns:
            Whether it was counted. `reserve` counts the others.

        Raises:
            RateLimited: the caller has reached its limit.
            Unavailable: Redis does not answer.
        """
        if _is_small(request):
            return False
        await self._rate_limiter.take(_without(admitted.windows, tokens_per_minute=None), 0)
        return True

    def check_model(self, admitted: Admitted, names: Sequence[str], requested: str | None) -> None:
        """Refuses a key that may not use the model.

        Args:
            names: every name of the model that answers, its own first.
            requested: the name in the request; None: any.

        Raises:
            Forbidden: the key may use neither this name nor the model's own name. A name that the model does not answer
                to grants nothing, although some APIs accept any name.
        """
        caller = admitted.identity.caller
        if caller is None or not caller.models:
            return
        own = names[0]
        granting = set(names) & {own, requested} if requested else set(names)
        if not granting & set(caller.models):
            raise Forbidden(requested or own, caller.models)

    @asynccontextmanager
    async def reserve(
        self, admitted: Admitted, names: Sequence[str], cost: CallCost, *, is_counted: bool, is_part: bool = False
    ) -> AsyncIterator[Settlement]:
        """Counts a call and sets its cost aside. Releases the cost at the end of the block unless it was settled.

        Args:
            names: of the model that answers; its price and its limits hold.
            is_counted: `count_large` has counted the call.
            is_part: of a call that is running, so that it is not another call.

        Raises:
            WrongKey: the key is no longer valid.
            InvalidRequest: more tokens than the limit of a whole minute.
            RateLimited: too many calls or tokens in this minute, or too many running calls on all servers.
            OutOfCredit: the account cannot pay.
            OverBudget: the budget of the key cannot.
            Unavailable: Redis or the accounts do not answer.
        """
        caller = admitted.identity.caller
        price = self._prices.current().of(names)
        windows = self._windows(admitted.identity, price)
        if self._accounts is None or caller is None:
            yield Settlement(await self._count(windows, cost.tokens, is_counted))
            return
        concurrency = UNLIMITED if is_part else Concurrency(*(window.limits.concurrency for window in windows))
        ledger = self._accounts.ledger
        reservation = await self._accounts.run(ledger.reserve, caller, price, cost, concurrency)
        settlement: Settlement | None = None
        try:
            limits = await self._count(windows, cost.tokens, is_counted)
            settlement = _AccountSettlement(limits, self._accounts, reservation)
            yield settlement
        finally:
            if settlement is None or settlement.charge is None:
                await asyncio.shield(self._release(self._accounts, reservation))

    async def maintain(self) -> None:
        """Renews the leases of running calls, and frees those of dead processes. Runs until cancelled.

        After a failure it tries again soon, so that the end of an outage is noticed.
        """
        while True:
            await self._rate_limiter.recheck()
            if self._accounts is not None and (self.troubles or time.monotonic() >= self._renew_at):
                self._leases_renewed = await self._renew(self._accounts)
                self.failed_renewals += not self._leases_renewed
                self._renew_at = time.monotonic() + self._accounts.ledger.lease_s / 3
            await asyncio.sleep(RENEW_AGAIN_S)

    async def _renew(self, accounts: AsyncStore) -> bool:
        try:
            await accounts.run(accounts.ledger.renew)
            await accounts.run(accounts.ledger.sweep)
        except Unavailable:  # the database logged why
            return False
        except Exception:
            logger.exception("The leases of running calls cannot be renewed: this is a bug")
            return False
        return True

    @property
    def troubles(self) -> dict[str, str]:
        """The parts that do not answer, so that calls are refused: `accounts`, `limits`; each `unreachable`."""
        found = {}
        if self._accounts is not None and (self._accounts.trouble or not self._leases_renewed):
            found["accounts"] = "unreachable"
        if self._rate_limiter.trouble:
            found["limits"] = "unreachable"
        return found

    async def close(self) -> None:
        """Closes the connections to Redis."""
        await self._rate_limiter.close()

    def _price(self) -> Price:
        """The price of the only model now. Free while it loads, and where only the body says which model is asked."""
        try:
            names = self._names()
        except Loading:
            names = ()
        return self._prices.current().of(names or ("",))

    def _windows(self, identity: Identity, price: Price) -> tuple[Window, ...]:
        caller = identity.caller
        if caller is None:
            return (Window(identity.subject, self._limits),)
        account = merge_limits(caller.account_limits, price.limits, self._limits)
        return Window(identity.subject, caller.key_limits), Window(f"account:{caller.account_id}", account)

    async def _refuse_without_credit(self, identity: Identity, price: Price) -> None:
        caller = identity.caller
        if self._accounts is None or caller is None or caller.can_pay or not price.input_price:
            return
        quota = await self._accounts.run(self._accounts.ledger.quota, caller.account_id, price)
        if quota.left:
            return
        if caller.available > 0 and caller.budget is not None:
            raise over_budget(caller.budget, caller.spent, datetime.now(UTC), price.currency)
        raise OutOfCredit(caller.available, None, price.currency)

    async def _count(self, windows: tuple[Window, ...], tokens: int, is_counted: bool) -> Mapping[str, RateLimitStatus]:
        uncounted = _without(windows, requests_per_minute=None) if is_counted else windows
        await self._rate_limiter.take(uncounted, tokens)
        return await self._rate_limiter.status(windows)

    async def _release(self, accounts: AsyncStore, reservation: Reservation) -> None:
        try:
            await accounts.run(accounts.ledger.release, reservation)
        except Unavailable:
            pass  # `sweep` releases it later

    def _check_concurrency(self, window: Window) -> None:
        limit = window.limits.concurrency
        if limit is not None and self._running[window.subject] >= limit:
            raise RateLimited(
                f"Concurrency limit exceeded: {limit} calls at the same time are allowed. "
                "Try again when one of them has ended.",
                1,
                "concurrency",
            )


def _is_small(request: Request) -> bool:
    """Whether reading and tokenizing the body costs no more than the request itself."""
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= SMALL_BODY and "content-encoding" not in request.headers


def _without(windows: tuple[Window, ...], **limits: None) -> tuple[Window, ...]:
    return tuple(replace(window, limits=replace(window.limits, **limits)) for window in windows)


def merge_limits(*limits: CallLimits) -> CallLimits:
    """Each limit from the first argument that sets it."""
    return CallLimits(
        next((one.requests_per_minute for one in limits if one.requests_per_minute), None),
        next((one.tokens_per_minute for one in limits if one.tokens_per_minute), None),
        next((one.concurrency for one in limits if one.concurrency), None),
    )
