"""Amounts of money, in millionths of a currency."""

from __future__ import annotations


def decimal(micro: int) -> str:
    """An amount as a decimal number with two to six places."""
    whole, rest = divmod(abs(micro), 1_000_000)
    return f"{'-' if micro < 0 else ''}{whole}.{f'{rest:06}'.rstrip('0').ljust(2, '0')}"
