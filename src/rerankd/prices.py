"""The rate card: what a model costs and allows. Knows no account, no call, no HTTP.

A card is the section `[rates."<model name>"]` of the settings file, read again whenever the file changes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rerankd.errors import SettingsError
from rerankd.settings_file import read_settings_file
from rerankd.types import CallLimits

logger = logging.getLogger(__name__)

MICRO = 1_000_000
"""Money is counted in millionths of its currency, as whole numbers."""


class Rate(BaseModel):
    """What one model costs and allows. The limits are those of an account that has none of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    input_price: Decimal = Field(Decimal(0), ge=0, le=MICRO, decimal_places=12)  # for 1M billed tokens
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    free_tokens: int = Field(0, ge=0, le=10**15)  # for each account
    free_days: int | None = Field(None, ge=1)  # from the account's creation; None = without end
    context: int | None = Field(None, ge=1)  # tokens
    languages: str | None = None
    description: str | None = None
    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)

    @property
    def limits(self) -> CallLimits:
        return CallLimits(self.requests_per_minute, self.tokens_per_minute, self.concurrency)

    def cost(self, tokens: int) -> int:
        """Of so many billed tokens, in millionths of `currency`, exact, rounded up."""
        # Decimal's own multiplication rounds to 28 digits.
        numerator, denominator = self.input_price.as_integer_ratio()
        return -(-tokens * numerator // denominator)


class RateCard:
    """The rates of all models.

    Raises:
        SettingsError: they are not all in one currency.
    """

    def __init__(self, rates: Sequence[Rate] = ()) -> None:
        self.rates = tuple(rates)
        currencies = sorted({rate.currency for rate in rates}) or ["USD"]
        if len(currencies) > 1:
            raise SettingsError(f"rates: all must have one currency; these have {' and '.join(currencies)}.")
        self.currency = currencies[0]
        self._by_model = {rate.model: rate for rate in rates}

    def of(self, names: Sequence[str]) -> Rate:
        """The rate of the first name that the card has; else a model that costs nothing.

        Args:
            names: of one model, at least one.
        """
        known = (self._by_model[name] for name in names if name in self._by_model)
        return next(known, None) or Rate(model=names[0], currency=self.currency)

    def has(self, names: Sequence[str]) -> bool:
        """Whether it has a rate of a model that answers to these names."""
        return any(name in self._by_model for name in names)

    def misses(self, names: Sequence[str]) -> bool:
        """Whether it has rates, but none of that model; no names: of a model that is not known yet."""
        return bool(names and self.rates) and not self.has(names)


class RateFile:
    """The rate card in a settings file; always as the file is now.

    Args:
        path: None for a card without rates.

    Raises:
        SettingsError: the file cannot be read, or a rate in it is wrong.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen = path and _version(path)
        self._card = read_card(path) if path else RateCard()
        self._names: tuple[str, ...] = ()  # of the served model, once they are known

    def serve(self, names: Sequence[str]) -> None:
        """From now on no card is in force that has rates, but none for the served model: it would be free by a typo.

        Args:
            names: that the model answers to.

        Raises:
            SettingsError: the card that is in force is such a one.
        """
        if self._card.misses(names):
            raise SettingsError(f"{self._path}: {_missed(self._card, names)}")
        self._names = tuple(names)
        self._tell_others(self._card)

    def current(self) -> RateCard:
        """The card; a file that cannot be used leaves the last good one in force, and is logged once."""
        if self._path is None:
            return self._card
        version = _version(self._path)
        if version != self._seen:
            with self._lock:
                if version != self._seen:
                    self._reload(self._path)
                    self._seen = version
        return self._card

    def _reload(self, path: Path) -> None:
        try:
            card = read_card(path)
            if card.misses(self._names) or (self._card.has(self._names) and not card.has(self._names)):
                raise SettingsError(f"{path}: {_missed(card, self._names)}")
        except SettingsError as error:
            logger.error("The rate card stays as it was: %s", error)
        else:
            self._card = card
            logger.info("The rate card was read again from %s", path)
            self._tell_others(card)

    def _tell_others(self, card: RateCard) -> None:
        others = [rate.model for rate in card.rates if self._names and rate.model not in self._names]
        if others:
            logger.warning("Rates for models that are not served here: %s", ", ".join(others))


def read_card(path: Path) -> RateCard:
    """The card in a settings file.

    Raises:
        SettingsError: it cannot be read, or a rate in it is wrong; names the file and the key.
    """
    table = read_settings_file(path).get("rates", {})
    try:
        return _card(table)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _card(table: Any) -> RateCard:
    if not isinstance(table, Mapping):
        raise SettingsError('rates: must be sections, [rates."<model name>"].')
    return RateCard([_rate(model, fields) for model, fields in table.items()])


def _rate(model: str, fields: Any) -> Rate:
    if not isinstance(fields, Mapping):
        raise SettingsError(f'rates.{model}: must be a section, [rates."{model}"].')
    if "model" in fields:
        raise SettingsError(f"rates.{model}.model: is not a setting; the section's name is the model's.")
    try:
        return Rate.model_validate({**fields, "model": model})
    except ValidationError as error:
        problems = (
            f"rates.{model}.{'.'.join(map(str, e['loc']))}: {_told(e['type'], e['msg'])}" for e in error.errors()
        )
        raise SettingsError(f"{'; '.join(problems)}.") from None


def _told(kind: str, message: str) -> str:
    known = sorted(Rate.model_fields.keys() - {"model"})
    return f"unknown; known are {', '.join(known)}" if kind == "extra_forbidden" else message


def _missed(card: RateCard, names: Sequence[str]) -> str:
    sections = ", ".join(f'[rates."{rate.model}"]' for rate in card.rates) or "no section [rates.…]"
    return (
        f"no rate for the served model, so that every call would be free. There is {sections}; "
        f"the model answers to {', '.join(names)}. Correct the name, or set input_price = 0."
    )


def _version(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file does; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
