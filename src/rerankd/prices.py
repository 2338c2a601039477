"""The price list: what each model costs and allows. Knows no account, no call, no HTTP.

Each section `[rates."<model name>"]` of the settings file is one price. The file is read again when it changes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rerankd.errors import SettingsError
from rerankd.settings_file import file_version, read_settings_file
from rerankd.types import CallLimits

logger = logging.getLogger(__name__)

MICRO = 1_000_000
"""Money is counted in millionths of its currency, as whole numbers."""


class Price(BaseModel):
    """The price and the limits of one model. The limits apply to accounts without limits of their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    input_price: Decimal = Field(Decimal(0), ge=0, le=MICRO, decimal_places=12)  # per 1M billed tokens
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    free_tokens: int = Field(0, ge=0, le=10**15)  # per account
    free_days: int | None = Field(None, ge=1)  # from the account's creation; None: no expiry
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
        """The cost of billed tokens, in millionths of `currency`: exact, then rounded up."""
        # Decimal's own multiplication rounds to 28 digits.
        numerator, denominator = self.input_price.as_integer_ratio()
        return -(-tokens * numerator // denominator)


class PriceList:
    """The prices of all models.

    Raises:
        SettingsError: the currencies differ.
    """

    def __init__(self, prices: Sequence[Price] = ()) -> None:
        self.prices = tuple(prices)
        currencies = sorted({price.currency for price in prices}) or ["USD"]
        if len(currencies) > 1:
            raise SettingsError(f"rates: all must have one currency; these have {' and '.join(currencies)}.")
        self.currency = currencies[0]
        self._by_model = {price.model: price for price in prices}

    def of(self, names: Sequence[str]) -> Price:
        """The price of the first listed name; a free model where none is listed.

        Args:
            names: the names of one model, at least one.
        """
        known = (self._by_model[name] for name in names if name in self._by_model)
        return next(known, None) or Price(model=names[0], currency=self.currency)

    def has(self, names: Sequence[str]) -> bool:
        """Whether the list has a price for one of these names."""
        return any(name in self._by_model for name in names)

    def misses(self, names: Sequence[str]) -> bool:
        """Whether the list has prices, but none for these names. No names (the model is still unknown): False."""
        return bool(names and self.prices) and not self.has(names)


class PriceFile:
    """The price list of a settings file, always up to date with the file.

    Args:
        path: None for an empty list.
        num_models: that the server serves.

    Raises:
        SettingsError: the file cannot be read, or a price in it is invalid.
    """

    def __init__(self, path: Path | None, num_models: int = 1) -> None:
        self._path = path
        self._num_models = num_models
        self._lock = threading.Lock()
        self._seen = path and file_version(path)
        self._list = read_price_list(path) if path else PriceList()
        self._served: list[tuple[str, ...]] = []  # the names of each served model, once known

    def serve(self, names: Sequence[str]) -> None:
        """Rejects, from now on, every list that has prices but none for this model: a typo would make it free.

        Args:
            names: the names that a served model answers to.

        Raises:
            SettingsError: the current list has no price for the model.
        """
        if self._list.misses(names):
            raise SettingsError(f"{self._path}: {_missing_price(self._list, names)}")
        if not self._list.prices and not self._served:
            logger.info("There is no price list, so every call is free")
        self._served.append(tuple(names))
        self._warn_of_unserved(self._list)

    def current(self) -> PriceList:
        """The current list. An invalid file leaves the last valid list in force and is logged once."""
        if self._path is None:
            return self._list
        version = file_version(self._path)
        if version != self._seen:
            with self._lock:
                if version != self._seen:
                    self._reload(self._path)
                    self._seen = version
        return self._list

    def _reload(self, path: Path) -> None:
        try:
            prices = read_price_list(path)
            for names in self._served:
                if prices.misses(names) or (self._list.has(names) and not prices.has(names)):
                    raise SettingsError(f"{path}: {_missing_price(prices, names)}")
        except SettingsError as error:
            logger.error("The price list stays as it was: %s", error)
        else:
            self._list = prices
            logger.info("The price list was read again from %s", path)
            self._warn_of_unserved(prices)

    def _warn_of_unserved(self, prices: PriceList) -> None:
        served = {name for names in self._served for name in names}
        others = [price.model for price in prices.prices if price.model not in served]
        if others and len(self._served) >= self._num_models:
            logger.warning("The price list has models that are not served here: %s", ", ".join(others))


def read_price_list(path: Path) -> PriceList:
    """The price list of a settings file.

    Raises:
        SettingsError: the file cannot be read, or a price is invalid; names the file and the key.
    """
    table = read_settings_file(path).get("rates", {})
    try:
        return _price_list(table)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from None


def _price_list(table: Any) -> PriceList:
    if not isinstance(table, Mapping):
        raise SettingsError('rates: must be sections, [rates."<model name>"].')
    return PriceList([_price(model, fields) for model, fields in table.items()])


def _price(model: str, fields: Any) -> Price:
    if not isinstance(fields, Mapping):
        raise SettingsError(f'rates.{model}: must be a section, [rates."{model}"].')
    if "model" in fields:
        raise SettingsError(f"rates.{model}.model: is not a setting; the section is named after the model.")
    try:
        return Price.model_validate({**fields, "model": model})
    except ValidationError as error:
        problems = (
            f"rates.{model}.{'.'.join(map(str, e['loc']))}: {_problem(e['type'], e['msg'])}" for e in error.errors()
        )
        raise SettingsError(f"{'; '.join(problems)}.") from None


def _problem(kind: str, message: str) -> str:
    known = sorted(Price.model_fields.keys() - {"model"})
    return f"unknown; known are {', '.join(known)}" if kind == "extra_forbidden" else message


def _missing_price(prices: PriceList, names: Sequence[str]) -> str:
    sections = ", ".join(f'[rates."{price.model}"]' for price in prices.prices) or "no section [rates.…]"
    return (
        f"no price for a served model, so every call would be free. There is {sections}; "
        f"the model answers to {', '.join(names)}. Correct the name, or set input_price = 0."
    )
