"""The tables. Money is in millionths of the price list's currency; time is UTC."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    literal_column,
    text,
)

from rerankd.types import CallLimits

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


NO_LIMITS = CallLimits()
LIMITS = tuple(field.name for field in fields(CallLimits))


class Time(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970, so that it is exact on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH) // MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Day(TypeDecorator[date]):
    """A day in UTC, stored as days since 1970."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: date | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - EPOCH.date()).days

    def process_result_value(self, value: Any, dialect: Dialect) -> date | None:
        return None if value is None else EPOCH.date() + timedelta(days=value)


# SQLite assigns ids only to columns of type INTEGER, which has 64 bits there.
Id = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_index",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def _limits() -> tuple[Column[int], ...]:
    return tuple(Column(name, Integer) for name in LIMITS)


def _account(**options: Any) -> Column[int]:
    return Column("account_id", ForeignKey("accounts.id"), nullable=False, **options)


def _sums(*names: str) -> tuple[Column[int], ...]:
    return tuple(Column(name, BigInteger, nullable=False) for name in names)


def _only(rows: str) -> dict[str, Any]:
    """Options of an index that holds only some rows."""
    return {"sqlite_where": text(rows), "postgresql_where": text(rows)}


accounts = Table(
    "accounts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),  # in lower case
    Column("name", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("password", String(200)),  # argon2id; null: nobody can sign in
    Column("created", Time, nullable=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("balance", BigInteger, nullable=False, default=0),  # the sum of the account's entries
    Column("reserved", BigInteger, nullable=False, default=0),  # the cost of its running calls
    Column("totp_secret", String(32)),  # of the second factor; null: the password alone signs in
    Column("totp_step", BigInteger),  # of the code that was used last
    Column("warned", Time),  # that credit runs low; null: not since there was enough
    Column("deleted", Time),  # null: it is not; a deleted account has neither name nor address
    Column("team_id", ForeignKey("accounts.id"), index=True),  # the account that this member belongs to; null: none
    Column("member_role", String(20), nullable=False, server_default="owner"),  # none: no longer signs in
    *_limits(),
    CheckConstraint("role IN ('admin', 'user')", "role"),
    CheckConstraint("reserved >= 0", "reserved"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the token
    _account(index=True),
    Column("csrf", String(64), nullable=False),
    Column("expires", Time, nullable=False, index=True),
    Column("payer_id", ForeignKey("accounts.id")),  # the account that its person chose; null: the person's first one
)

memberships = Table(  # in accounts that people joined beside their first one, which is in their row of `accounts`
    "memberships",
    metadata,
    _account(primary_key=True),
    Column("person_id", ForeignKey("accounts.id"), primary_key=True, index=True),
    Column("role", String(20), nullable=False),  # none: the person left it
    Column("joined", Time, nullable=False),
)

recovery_codes = Table(  # each signs in once, in place of a code of the second factor
    "recovery_codes",
    metadata,
    _account(primary_key=True),
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the code
)

invites = Table(
    "invites",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the token
    Column("email", String(254)),  # the only address that may use it; null: any
    Column("created_by", ForeignKey("accounts.id"), nullable=False),
    Column("created", Time, nullable=False),
    Column("expires", Time, nullable=False),
    Column("used_by", ForeignKey("accounts.id")),
    Column("account_id", ForeignKey("accounts.id")),  # whose member it makes; null: it makes an account
    Column("role", String(20)),  # of that member
)

links = Table(  # one-time links: for a new password of an account, or for the account of an address
    "links",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the token
    Column("account_id", ForeignKey("accounts.id")),
    Column("email", String(254)),
    Column("expires", Time, nullable=False),
)

identities = Table(  # people at an OpenID provider who sign in to an account
    "identities",
    metadata,
    Column("issuer", String(300), primary_key=True),
    Column("subject", String(255), primary_key=True),
    _account(index=True),
    Column("created", Time, nullable=False),
)

confirmations = Table(  # sign-ins at a provider that need a password or a code before they open a session
    "confirmations",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),  # SHA-256 of the token
    _account(),
    Column("issuer", String(300)),  # of the identity that is linked then; null: it is linked already
    Column("subject", String(255)),
    Column("expires", Time, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Id, primary_key=True),
    _account(index=True),
    Column("name", String(100), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the secret
    Column("hint", String(20), nullable=False),
    Column("created", Time, nullable=False),
    Column("expires", Time),
    Column("revoked", Time),
    Column("models", JSON, nullable=False),  # a list of names; empty: all
    *_limits(),
    Column("last_used", Time),  # to the minute
    Column("budget", BigInteger),  # what its calls may cost in a calendar month; null: any amount
    Column("made_by", ForeignKey("accounts.id")),  # the member or administrator; null: not known, or the operator
)

months = Table(
    "months",  # what the calls of a key cost in each calendar month (UTC): the sum of its entries
    metadata,
    Column("key_id", ForeignKey("keys.id"), primary_key=True),
    Column("month", Integer, primary_key=True),  # as 202611
    Column("spent", BigInteger, nullable=False),
    Column("warned", Time),  # that the budget is nearly spent; null: not yet
)

quotas = Table(  # free tokens
    "quotas",
    metadata,
    _account(primary_key=True),
    Column("model", String(300), primary_key=True),  # its name in the price list
    Column("used", BigInteger, nullable=False, default=0),
    Column("reserved", BigInteger, nullable=False, default=0),
    CheckConstraint("reserved >= 0", "reserved"),
)

reservations = Table(  # running calls: few, and written by each call, so an index would cost more than it saves
    "reservations",
    metadata,
    Column("id", String(32), primary_key=True),  # random: an expired one must not be mistaken for a later one
    _account(),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("holder", String(32), key="process_id", nullable=False),  # random id of the process that runs the call
    Column("model", String(300), nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("free_tokens", BigInteger, nullable=False),
    Column("expires", Time, nullable=False),
)

entries = Table(  # triggers forbid changes and deletions
    "entries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", ForeignKey("accounts.id"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("amount", BigInteger, nullable=False),  # added to the balance; negative for a charge
    Column("balance_after", BigInteger, nullable=False),
    Column("time", Time, nullable=False),
    Column("note", Text),
    Column("made_by", ForeignKey("accounts.id")),  # the account that added the credit; null: the operator
    # For charges:
    Column("key_id", ForeignKey("keys.id")),
    Column("model", String(300)),  # its name in the price list
    Column("dialect", String(50)),
    Column("request_id", Text),
    Column("tokens", BigInteger, nullable=False, default=0),
    Column("free_tokens", BigInteger, nullable=False, default=0),
    Column("billed_tokens", BigInteger, nullable=False, default=0),
    Column("price", String(40)),  # per 1M tokens, exact
    Column("currency", String(3)),
    Column("idempotency_key", LargeBinary(32)),
    Column("occurrence", Integer),  # how often the same call was charged before
    CheckConstraint("kind IN ('charge', 'credit')", "kind"),
    UniqueConstraint("idempotency_key", "occurrence"),
    Index(None, "account_id", "time"),
    Index("entries_credits_index", "account_id", "time", **_only("kind = 'credit'")),
)

# A literal: SQLite uses an index of some rows only for a condition without parameters.
IS_CREDIT = entries.c.kind == literal_column("'credit'")

repeats = Table(
    "repeats",  # free repeats of charged calls in the last 24 hours
    metadata,
    Column("id", Id, primary_key=True),
    Column("idempotency_key", LargeBinary(32), nullable=False, index=True),
    Column("time", Time, nullable=False, index=True),
)

calls = Table(
    "calls",  # also refused ones; deleted after some days
    metadata,
    Column("id", Id, primary_key=True),
    _account(),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("time", Time, nullable=False, index=True),  # when it ended
    Column("request_id", String(200), nullable=False),
    Column("dialect", String(50), nullable=False),
    Column("status", Integer, nullable=False),
    Column("milliseconds", BigInteger, nullable=False),
    Column("model", String(300)),
    Column("documents", Integer),
    Column("tokens", BigInteger),
    Column("cost", BigInteger, nullable=False),
    Column("error", String(50)),  # null: answered
    Column("reason", String(500)),
    Index(None, "account_id", "id"),
    Index("calls_request_id_index", "request_id"),
    Index("calls_refused_index", "id", **_only("error IS NOT NULL")),
    Index("calls_account_id_refused_index", "account_id", "id", **_only("error IS NOT NULL")),
)

CHARGE_SUMS = ("calls", "tokens", "free_tokens", "billed_tokens", "cost")
"""Of charged calls. cost: in millionths."""

CALL_SUMS = ("answered", "refused", "documents", "milliseconds")
"""Of all calls. documents, milliseconds: of answered ones."""

# Sums of each day. A trigger on `entries` keeps the first two in the transaction that writes an entry, whichever
# version of the program wrote it.
daily_charges = Table(
    "daily_charges",
    metadata,
    _account(primary_key=True),
    Column("day", Day, primary_key=True),
    Column("key_id", ForeignKey("keys.id"), primary_key=True),
    Column("model", String(300), primary_key=True),
    *_sums(*CHARGE_SUMS),
    sqlite_with_rowid=False,  # the rows of an account lie together
)

daily_charge_totals = Table(
    "daily_charge_totals",
    metadata,
    Column("day", Day, primary_key=True, autoincrement=False),
    Column("model", String(300), primary_key=True),
    # The account's id modulo 16: calls of different accounts seldom wait for the same row.
    Column("shard", Integer, primary_key=True, autoincrement=False),
    *_sums(*CHARGE_SUMS),
    sqlite_with_rowid=False,
)

daily_calls = Table(  # kept when `calls` are deleted
    "daily_calls",
    metadata,
    _account(primary_key=True),
    Column("day", Day, primary_key=True),
    Column("key_id", ForeignKey("keys.id"), primary_key=True),
    *_sums(*CALL_SUMS),
    sqlite_with_rowid=False,
)

daily_call_totals = Table(
    "daily_call_totals",
    metadata,
    Column("day", Day, primary_key=True, autoincrement=False),
    *_sums(*CALL_SUMS),
    sqlite_with_rowid=False,
)

daily_latencies = Table(
    "daily_latencies",
    metadata,
    _account(primary_key=True),
    Column("day", Day, primary_key=True),
    Column("counts", JSON, nullable=False),  # of answered calls, by the class of their time (`latencies`)
    sqlite_with_rowid=False,
)

daily_latency_totals = Table(
    "daily_latency_totals",
    metadata,
    Column("day", Day, primary_key=True, autoincrement=False),
    Column("counts", JSON, nullable=False),
    sqlite_with_rowid=False,
)

admin_log = Table(
    "admin_log",  # of administrators and of members; triggers forbid changes and deletions
    metadata,
    Column("id", Id, primary_key=True),
    Column("time", Time, nullable=False),
    Column("made_by", ForeignKey("accounts.id")),  # null: the operator
    Column("action", String(50), nullable=False),
    Column("account_id", ForeignKey("accounts.id"), index=True),  # that it was done to
    Column("detail", Text, nullable=False),
)


def limits_of(row: RowMapping) -> CallLimits:
    """Converts a row with the columns of `_limits`."""
    return CallLimits(*(row[name] for name in LIMITS))
