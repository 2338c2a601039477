"""An account that calls: what the tests of the ledger share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import count

from rerankd.accounts.accounts import Account
from rerankd.accounts.decision import UNLIMITED, CallCost, Concurrency
from rerankd.accounts.keys import Caller
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.reservation import Reservation
from rerankd.accounts.store import Store
from rerankd.prices import MICRO, Price

PRICE = Price(model="qwen3-rerank", input_price=Decimal("0.1"))  # 10 tokens a millionth
NUMBERS = count()


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float

    def __call__(self) -> float:
        return self.now


@dataclass
class Payer:
    """One account with one key."""

    store: Store
    ledger: Ledger
    account_id: int
    secret: str

    @property
    def account(self) -> Account:
        account = self.store.accounts.by_id(self.account_id)
        assert account is not None
        return account

    @property
    def caller(self) -> Caller:
        caller = self.store.keys.find(self.secret)
        assert caller is not None
        return caller

    @property
    def money(self) -> tuple[int, int]:
        """Balance and reserved."""
        return self.account.balance, self.account.reserved

    def reserve(
        self,
        tokens: int,
        price: Price = PRICE,
        request_id: str | None = None,
        fingerprint: bytes = b"call",
        dialect: str | None = None,
        concurrency: Concurrency = UNLIMITED,
    ) -> Reservation:
        """Reserves a new call, or the same call again where it has a request_id."""
        name = f"request-{next(NUMBERS)}" if request_id is None else request_id
        return self.ledger.reserve(self.caller, price, CallCost(tokens, name, fingerprint, dialect), concurrency)


def live(ledger: Ledger, clock: Clock, seconds: int) -> None:
    """So much time goes by, in which a ledger renews its leases as a server does."""
    ledger.renew()
    for step in range(20, seconds + 20, 20):
        clock.now += min(20, seconds + 20 - step)
        ledger.renew()


def new_payer(store: Store, ledger: Ledger | None = None, credit: int = MICRO) -> Payer:
    account = store.accounts.create(f"payer-{next(NUMBERS)}@example.org")
    ledger = ledger or store.ledger
    if credit:
        ledger.add_credits(account.id, credit)
    return Payer(store, ledger, account.id, store.keys.create(account.id, "a key")[1])
