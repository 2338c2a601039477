"""Whether a call may run, and what it costs: limits, credit, reservation, charge. Knows no dialect.

A call passes three gates. `enter` and `at_once`, before its body is read: whose key it is, and whether its holder may
call at all now. Then, if its body is large, it is counted as a call, since all that follows costs work. `permit`:
whether the key may use the model. `running`, when its tokens are known: it is counted and its cost is set aside, or it
is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starlette.requests import Request

from rerankd.accounts.decision import CallCost, Charge, Concurrency
from rerankd.accounts.limits import RateLimiter, Window
from rerankd.config import ServerSettings
from rerankd.errors import Forbidden, OutOfCredit, RateLimited, Unavailable
from rerankd.prices import Price, PriceFile
from rerankd.server.accounts import Accounts
from rerankd.server.auth import Auth, Guest
from rerankd.server.served import ServedModel
from rerankd.types import CallLimits

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.keys import Caller
    from rerankd.accounts.ledger import Reservation

logger = logging.getLogger(__name__)

SMALL_BODY = 16_384
"""Bytes."""

RENEW_AGAIN_S = 2.0
"""After leases could not be renewed, or something could not be asked."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A guest that was let in. windows: where its calls are counted, the account's last."""

    guest: Guest
    windows: tuple[Window, ...]


class Bill:
    """Of a running call.

    headers: for its reply, complete once it is settled. charge: None before that, and where there is no account.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = dict(headers)
        self.charge: Charge | None = None

    async def settle(self) -> None:
        """Charges the call: to be awaited when its reply is ready to be sent, and not before.

        Raises:
            Unavailable: it cannot be charged now. The reply must not be sent.
        """


class _AccountBill(Bill):
    def __init__(self, headers: Mapping[str, str], accounts: Accounts, reservation: Reservation) -> None:
        super().__init__(headers)
        self._accounts, self._reservation = accounts, reservation

    async def settle(self) -> None:
        self.charge = await self._accounts.ask(self._accounts.ledger.settle, self._reservation)
        self.headers["x-rerankd-cost"] = str(self.charge.cost)
        self.headers["x-rerankd-tokens"] = str(self.charge.tokens)


class Admission:
    """The gates of one server.

    Args:
        accounts: None where there are none.
    """

    def __init__(
        self, settings: ServerSettings, auth: Auth, prices: PriceFile, served: ServedModel, accounts: Accounts | None
    ) -> None:
        self._auth, self._prices, self._served, self._accounts = auth, prices, served, accounts
        self._defaults = CallLimits(settings.requests_per_minute, settings.tokens_per_minute, settings.concurrency)
        self._call_rates = RateLimiter(settings.redis)
        self._running: Counter[str] = Counter()  # calls in this process, by whom they are counted
        self.failed_renewals = 0
        self._renewing, self._renew_at = True, 0.0  # renewing: not in vain

    @property
    def charges(self) -> bool:
        """Whether calls are charged: then each needs a fingerprint."""
        return self._accounts is not None

    async def enter(self, request: Request) -> Pass:
        """The first gate, which costs nothing: what it refuses is counted nowhere.

        Raises:
            Unauthorized: no key was sent, or it is not valid.
            RateLimited: the minute of the key or the account is full.
            OutOfCredit: the account has nothing left.
            Unavailable: Redis or the accounts cannot be asked now.
        """
        guest = await self._auth.identify(request, recently=True)
        price = self._price()
        entered = Pass(guest, self._windows(guest, price))
        await self._call_rates.check(entered.windows)
        await self._refuse_broke(guest, price)
        return entered

    @contextmanager
    def at_once(self, entered: Pass) -> Iterator[None]:
        """A call is one of those that run at a time from here on: its body, too, is read, and costs work.

        Raises:
            RateLimited: as many run. (With accounts, `running` counts those of all servers.)
        """
        counted: list[str] = []
        try:
            for window in entered.windows:
                self._check_running(window)
                self._running[window.who] += 1
                counted.append(window.who)
            yield
        finally:
            for who in counted:
                self._running[who] -= 1
                if not self._running[who]:
                    del self._running[who]

    async def count(self, entered: Pass, request: Request) -> bool:
        """Counts a call whose body was read, if it is large: whatever is wrong with it, it costs work.

        Returns:
            Whether it was counted. Smaller ones are counted when they run.

        Raises:
            RateLimited: the minute is full.
            Unavailable: Redis cannot be asked now.
        """
        if _is_small(request):
            return False
        await self._call_rates.take(_without(entered.windows, tokens_per_minute=None), 0)
        return True

    def permit(self, entered: Pass, model: str | None) -> None:
        """The second gate.

        Args:
            model: the name that was asked for, None for any.

        Raises:
            Forbidden: the key may use neither this name nor the served model by its own one. A name that the model
                does not answer to opens nothing, although some surfaces take any name.
            Loading: that is not known yet.
        """
        caller = entered.guest.caller
        if caller is None or not caller.models:
            return
        own, names = self._served.engine.info.name, set(self._served.names())
        asked = names & {own, model} if model else names
        if not asked & set(caller.models):
            raise Forbidden(model or own, caller.models)

    @asynccontextmanager
    async def running(self, entered: Pass, cost: CallCost, *, is_counted: bool) -> AsyncIterator[Bill]:
        """The third gate. What is not settled when the block ends is not charged.

        Args:
            is_counted: `count` has counted the call already.

        Raises:
            WrongKey: the key is no longer valid.
            InvalidRequest: more tokens than may ever come in a minute.
            RateLimited: too many calls or tokens in this minute, or too many calls at a time on all servers.
            OutOfCredit: the account cannot pay for it.
            Unavailable: Redis or the accounts cannot be asked now.
        """
        if self._accounts is None or entered.guest.caller is None:
            yield Bill(await self._take(entered, cost.tokens, is_counted))
            return
        reservation = await self._reserve(self._accounts, entered.guest.caller, entered.windows, cost)
        bill: Bill | None = None
        try:
            bill = _AccountBill(await self._take(entered, cost.tokens, is_counted), self._accounts, reservation)
            yield bill
        finally:
            if bill is None or bill.charge is None:
                await asyncio.shield(self._release(self._accounts, reservation))

    async def keep_up(self) -> None:
        """Renews the leases of running calls, and frees those of processes that died.

        Runs until cancelled, whatever fails: then it tries again soon, so that an outage that is over is noticed.
        """
        while True:
            await self._call_rates.look_again()
            if self._accounts is not None and (self.troubles or time.monotonic() >= self._renew_at):
                self._renewing = await self._renew(self._accounts)
                self.failed_renewals += not self._renewing
                self._renew_at = time.monotonic() + self._accounts.ledger.lease_s / 3
            await asyncio.sleep(RENEW_AGAIN_S)

    async def _renew(self, accounts: Accounts) -> bool:
        try:
            await accounts.ask(accounts.ledger.renew)
            await accounts.ask(accounts.ledger.sweep)
        except Unavailable:  # the database said why
            return False
        except Exception:
            logger.exception("The leases of running calls cannot be renewed: this is a bug")
            return False
        return True

    @property
    def troubles(self) -> dict[str, str]:
        """What cannot be asked now, so that calls are refused: `accounts`, `limits`. By part, `unreachable`."""
        found = {}
        if self._accounts is not None and (self._accounts.trouble or not self._renewing):
            found["accounts"] = "unreachable"
        if self._call_rates.trouble:
            found["limits"] = "unreachable"
        return found

    async def close(self) -> None:
        """Ends the connections to Redis."""
        await self._call_rates.close()

    def _price(self) -> Price:
        """Of the served model, as it is now; nothing costs anything while it loads, and nothing is answered."""
        card = self._prices.current()
        if not self._served.ready:
            return card.of(("",))
        return card.of(self._served.names())

    def _windows(self, guest: Guest, price: Price) -> tuple[Window, ...]:
        caller = guest.caller
        if caller is None:
            return (Window(guest.who, self._defaults),)
        account = _first_set(caller.account_limits, price.limits, self._defaults)
        return Window(guest.who, caller.key_limits), Window(f"account:{caller.account_id}", account)

    async def _refuse_broke(self, guest: Guest, price: Price) -> None:
        caller = guest.caller
        if self._accounts is None or caller is None or caller.available > 0 or not price.input_price:
            return
        quota = await self._accounts.ask(self._accounts.ledger.quota, caller.account_id, price)
        if not quota.left:
            raise OutOfCredit(caller.available, None, price.currency)

    async def _take(self, entered: Pass, tokens: int, is_counted: bool) -> Mapping[str, str]:
        windows = _without(entered.windows, requests_per_minute=None) if is_counted else entered.windows
        await self._call_rates.take(windows, tokens)
        return await self._call_rates.headers(entered.windows)

    async def _reserve(
        self, accounts: Accounts, caller: Caller, windows: tuple[Window, ...], cost: CallCost
    ) -> Reservation:
        concurrency = Concurrency(*(window.limits.concurrency for window in windows))
        return await accounts.ask(accounts.ledger.reserve, caller, self._price(), cost, concurrency)

    async def _release(self, accounts: Accounts, reservation: Reservation) -> None:
        try:
            await accounts.ask(accounts.ledger.release, reservation)
        except Unavailable:
            pass  # `sweep` will

    def _check_running(self, window: Window) -> None:
        limit = window.limits.concurrency
        if limit is not None and self._running[window.who] >= limit:
            raise RateLimited(
                f"Concurrency limit exceeded: {limit} calls at the same time are allowed. "
                "Try again when one of them has ended.",
                1,
                "concurrency",
            )


def _is_small(request: Request) -> bool:
    """Whether reading the body and tokenising it cost no more than the request itself."""
    length = request.headers.get("content-length", "")
    return length.isdecimal() and int(length) <= SMALL_BODY and "content-encoding" not in request.headers


def _without(windows: tuple[Window, ...], **limits: None) -> tuple[Window, ...]:
    return tuple(replace(window, limits=replace(window.limits, **limits)) for window in windows)


def _first_set(*limits: CallLimits) -> CallLimits:
    """Each limit from the first that has it."""
    return CallLimits(
        next((one.requests_per_minute for one in limits if one.requests_per_minute), None),
        next((one.tokens_per_minute for one in limits if one.tokens_per_minute), None),
        next((one.concurrency for one in limits if one.concurrency), None),
    )
