"""Formats figures for people."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from rerankd.money import decimal
from rerankd.types import CallLimits


def number(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def short(value: float) -> str:
    """1.2k, 3.4M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def money(micro: int, currency: str) -> str:
    """Millionths of a currency, exact, with two to six decimals."""
    whole, _, places = decimal(abs(micro)).partition(".")
    return f"{'−' if micro < 0 else ''}{number(int(whole))}.{places} {currency}"


def price(value: Decimal, currency: str) -> str:
    """A price per million tokens."""
    return f"{value:f} {currency}" if value else "free"


def share(value: float | None) -> str:
    """A percentage; a dash for None."""
    return "–" if value is None else f"{value:.0%}"


def duration(seconds: float) -> str:
    """3 d 4 h, 12 min, 40 s: the two largest units."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def ms(value: int | None) -> str:
    """1,234 ms; a dash for None."""
    return "–" if value is None else f"{number(value)} ms"


def seconds(value: float | None) -> str:
    """12 ms, 1.25 s; a dash for None."""
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def day(moment: datetime) -> str:
    """2026-11-20, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def minute(moment: datetime) -> str:
    """2026-11-20 14:05, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def second(moment: datetime) -> str:
    """2026-11-20 14:05:09, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def limits(values: CallLimits) -> str:
    """The limits that are set, in one line; a dash for none."""
    units = (
        (values.requests_per_minute, "requests/min"),
        (values.tokens_per_minute, "tokens/min"),
        (values.concurrency, "at once"),
    )
    return ", ".join(f"{number(value)} {unit}" for value, unit in units if value is not None) or "–"


FILTERS = {
    one.__name__: one
    for one in (number, short, money, price, share, duration, ms, seconds, day, minute, second, limits)
}
