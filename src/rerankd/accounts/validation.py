"""Parses and checks the input of forms and commands."""

from __future__ import annotations

import re
from dataclasses import asdict
from decimal import Decimal

from rerankd.errors import InvalidRequest
from rerankd.prices import MICRO
from rerankd.types import CallLimits

MAX_AMOUNT = 10**9 * MICRO
MAX_LIMIT = 2**31 - 1


def read_email(text: str) -> str:
    """An e-mail address, in lower case.

    Raises:
        InvalidRequest: not an e-mail address.
    """
    email = text.strip().lower()
    if len(email) > 254 or not re.fullmatch(r"[^@\s]+@[^@\s]+", email) or not email.isprintable():
        raise _invalid("email", "not an e-mail address")
    return email


def read_name(text: str, max_length: int) -> str:
    """A name: one line of printable characters.

    Raises:
        InvalidRequest: empty, too long, or not printable.
    """
    name = text.strip()
    if not 1 <= len(name) <= max_length or not name.isprintable():
        raise _invalid("name", f"must have from 1 to {max_length} printable characters")
    return name


def read_amount(text: str, field: str = "amount") -> int:
    """An amount of money such as `25.00`, in millionths.

    Raises:
        InvalidRequest: not a number, finer than a millionth, or 10^9 or more.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,9}(\.[0-9]{1,6})?", text.strip()):
        message = "must be a number such as 25.00, with up to nine digits before the point and six after it"
        raise _invalid(field, message)
    return int(Decimal(text.strip()) * MICRO)


def read_budget(text: str) -> int | None:
    """What a key may spend in a month, in millionths; None for an empty text: any amount. Raises InvalidRequest."""
    return read_amount(text, "budget") if text.strip() else None


def check_budget(micro: int | None) -> int | None:
    """Raises InvalidRequest for a budget that is out of range."""
    if micro is not None and not 0 < micro < MAX_AMOUNT:
        raise _invalid("budget", "must be more than 0 and less than 1000000000; revoke a key that may spend nothing")
    return micro


def storable(text: str) -> str:
    """Replaces the characters that PostgreSQL cannot store: NUL and lone surrogates."""
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def check_limits(limits: CallLimits) -> dict[str, int | None]:
    """The limits by name.

    Raises:
        InvalidRequest: a limit is less than 1 or more than MAX_LIMIT.
    """
    values = asdict(limits)
    for name, value in values.items():
        if value is not None and not 1 <= value <= MAX_LIMIT:
            raise _invalid(name, f"must be from 1 to {MAX_LIMIT}")
    return values


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}.", [(field, message)])
