"""Whether a call may run, and what it costs: decided from the state of its account alone. Knows no database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rerankd.accounts.budget import over_budget
from rerankd.errors import OutOfCredit, RateLimited, WrongKey
from rerankd.prices import Price

CHARGED_ONCE_IN = timedelta(hours=24)
"""The same call (same request id, same content) is charged once within this time."""

FREE_REPEATS = 3
"""Free repeats within that time, since each is computed again. The next one is charged as a new call."""


@dataclass(frozen=True, slots=True)
class CallCost:
    """A call as the ledger sees it.

    Attributes:
        tokens: query_tokens × documents + Σ document_tokens.
        request_id: identifies the call, with the fingerprint.
        fingerprint: a hash of the request, so that other content under the same request_id is charged.
        dialect: the API, for the entry.
    """

    tokens: int
    request_id: str
    fingerprint: bytes
    dialect: str | None = None


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many calls of the key and of the account may run; None: any number."""

    key: int | None = None
    account: int | None = None


UNLIMITED = Concurrency()


@dataclass(frozen=True, slots=True)
class AccountState:
    """The state of an account that decides about a call. Money in millionths.

    Attributes:
        balance: credit less charges.
        reserved: the cost of running calls.
        created: when the account was created: its free tokens expire from then on.
        key_is_valid: the key is neither revoked nor expired, and the account is enabled.
        key_running, account_running: the number of running calls.
        budget: what the calls of the key may cost in a calendar month; None: any amount.
        spent: what they cost in this one.
        key_reserved: the cost of the key's running calls.
        free_used, free_reserved: free tokens of the model; None: no quota row yet.
        last_charged: when the same call was last charged; None: never.
        times_charged: how often the same call was charged.
        repeats: how often it was free in the last 24 hours.
    """

    balance: int
    reserved: int
    created: datetime
    key_is_valid: bool = True
    key_running: int = 0
    account_running: int = 0
    free_used: int | None = None
    free_reserved: int | None = None
    last_charged: datetime | None = None
    times_charged: int = 0
    repeats: int = 0
    budget: int | None = None
    spent: int = 0
    key_reserved: int = 0

    @property
    def available(self) -> int:
        """What a call may cost at most, in millionths."""
        return self.balance - self.reserved


@dataclass(frozen=True, slots=True)
class Charge:
    """The charge of a call, in millionths. tokens: all of them; a free repeat has neither free nor billed ones."""

    cost: int
    free_tokens: int
    billed_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A call may run at this charge. is_repeat: the same call was charged before, so this one is free."""

    charge: Charge
    is_repeat: bool


def decide(
    state: AccountState, price: Price, tokens: int, now: datetime, concurrency: Concurrency = UNLIMITED
) -> Decision:
    """Admits a call at its charge, or raises.

    Raises:
        WrongKey: the key is no longer valid.
        RateLimited: the key or the account has reached its concurrency limit.
        OutOfCredit: the account cannot pay.
        OverBudget: the budget of the key cannot.
    """
    if not state.key_is_valid:
        raise WrongKey
    _check_concurrency("API key", state.key_running, concurrency.key)
    _check_concurrency("account", state.account_running, concurrency.account)
    if _is_free_repeat(state, now):
        return Decision(free_charge(tokens), is_repeat=True)
    return Decision(charge_for(state, price, tokens, now), is_repeat=False)


def charge_for(state: AccountState, price: Price, tokens: int, now: datetime) -> Charge:
    """Spends free tokens first, then credit. Raises OutOfCredit or OverBudget."""
    free = min(tokens, free_tokens_left(price, state.created, state.free_used, state.free_reserved, now))
    cost = price.cost(tokens - free)
    if cost and state.available < cost:
        raise OutOfCredit(state.available, cost, price.currency)
    # Running calls count, also those that began in the month before: each is charged in the month in which it ends.
    if cost and state.budget is not None and state.spent + state.key_reserved + cost > state.budget:
        raise over_budget(state.budget, state.spent, now, price.currency, state.key_reserved, cost)
    return Charge(cost, free, tokens - free, tokens)


def part_of(charge: Charge, price: Price, tokens: int) -> Charge:
    """The charge of a call of which only some tokens were computed."""
    if not charge.free_tokens and not charge.billed_tokens:
        return free_charge(tokens)
    free = min(tokens, charge.free_tokens)
    return Charge(price.cost(tokens - free), free, tokens - free, tokens)


def free_charge(tokens: int) -> Charge:
    """The charge of a free repeat."""
    return Charge(0, 0, 0, tokens)


def free_tokens_left(price: Price, created: datetime, used: int | None, reserved: int | None, now: datetime) -> int:
    """Free tokens that are neither used nor reserved; 0 once they have expired.

    Args:
        created: when the account was created.
    """
    expiry = free_tokens_expiry(price, created)
    if expiry is not None and now >= expiry:
        return 0
    return max(0, price.free_tokens - (used or 0) - (reserved or 0))


def free_tokens_expiry(price: Price, created: datetime) -> datetime | None:
    """When the free tokens of an account expire; None: never."""
    return None if price.free_days is None else created + timedelta(days=price.free_days)


def _is_free_repeat(state: AccountState, now: datetime) -> bool:
    if state.last_charged is None or now - state.last_charged >= CHARGED_ONCE_IN:
        return False
    return state.repeats < FREE_REPEATS


def _check_concurrency(whose: str, running: int, limit: int | None) -> None:
    if limit is not None and running >= limit:
        raise RateLimited(
            f"Concurrency limit exceeded: this {whose} may run {limit} calls at the same time. "
            "Try again when one of them has ended.",
            1,
            "concurrency",
        )
