"""The price list: exact costs, and a file that may change at any time."""

from __future__ import annotations

import logging
import math
import os
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rerankd.config import ServerSettings, read_settings
from rerankd.errors import SettingsError
from rerankd.prices import MICRO, Price, PriceFile, PriceList, read_price_list
from rerankd.types import CallLimits

PRICES = st.decimals(min_value=0, max_value=MICRO, places=12)
TOKENS = st.integers(0, 10**15)


def card(price: str, model: str = "qwen3-rerank") -> str:
    return f'[rates."{model}"]\ninput_price = {price}\n'


# What a call costs.


@pytest.mark.parametrize(
    ("price", "tokens", "micro"),
    [
        ("0.02", 1_000_000, 20_000),  # 0.02 USD
        ("0.02", 50, 1),
        ("0.02", 51, 2),
        ("0.02", 1, 1),
        ("0.02", 0, 0),
        ("0", 10**9, 0),
        ("0.1", 30, 3),  # the float next to 0.1 is more than 0.1
        ("2.5", 3, 8),
        ("0.000000000001", 1, 1),
        ("0.000000000001", 10**12 + 1, 2),
        ("999999.999999999999", 10**15 - 1, 10**21 - 1_000_999),  # more digits than Decimal multiplies
    ],
)
def test_a_cost_is_exact_and_rounded_up(price: str, tokens: int, micro: int) -> None:
    assert Price(model="m", input_price=Decimal(price)).cost(tokens) == micro


@given(PRICES, TOKENS)
def test_a_cost_is_the_least_whole_number_that_pays(price: Decimal, tokens: int) -> None:
    assert Price(model="m", input_price=price).cost(tokens) == math.ceil(Fraction(price) * tokens)


@given(PRICES, TOKENS, TOKENS)
def test_more_tokens_never_cost_less_and_splitting_never_saves(price: Decimal, some: int, more: int) -> None:
    priced = Price(model="m", input_price=price)
    assert priced.cost(some) <= priced.cost(some + more) <= priced.cost(some) + priced.cost(more)


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-0.01", "1000001", "1e-13"])
def test_a_price_that_cannot_be_is_refused(price: str) -> None:
    with pytest.raises(ValidationError):
        Price(model="m", input_price=Decimal(price))


# The card.


def test_the_first_name_on_the_card_counts_and_others_are_free() -> None:
    prices = [Price(model="a", input_price=Decimal(1)), Price(model="b", input_price=Decimal(2), tokens_per_minute=7)]
    whole = PriceList(prices)
    assert whole.of(["x", "b", "a"]) is whole.prices[1]
    assert whole.of(["x", "b"]).limits == CallLimits(tokens_per_minute=7)
    assert whole.of(["x", "y"]) == Price(model="x")
    assert whole.of(["x"]).cost(10**9) == 0


def test_all_rates_have_one_currency() -> None:
    assert PriceList().currency == "USD"
    euros = PriceList([Price(model="a", currency="EUR"), Price(model="b", currency="EUR")])
    assert euros.currency == euros.of(["x"]).currency == "EUR"
    with pytest.raises(SettingsError, match="EUR and USD"):
        PriceList([Price(model="a", currency="EUR"), Price(model="b")])


# The file.


def test_a_card_is_read_with_exact_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(
        'port = 1\n[rates."Qwen/Qwen3-Reranker-0.6B"]\ninput_price = 0.1\nfree_tokens = 1_000_000\nfree_days = 90\n'
        'context = 32768\nlanguages = "100+"\nrequests_per_minute = 60\ntokens_per_minute = 1000\nconcurrency = 4\n'
        '[rates.other]\ninput_price = "0.30000000001"\n',
        encoding="utf-8",
    )
    first, second = PriceFile(path).current().prices
    assert first.model == "Qwen/Qwen3-Reranker-0.6B" and first.input_price == Decimal("0.1")
    assert (first.free_tokens, first.free_days, first.context, first.languages) == (1_000_000, 90, 32768, "100+")
    assert first.limits == CallLimits(60, 1000, 4)
    assert second.input_price == Decimal("0.30000000001") and second.limits == CallLimits()


def test_without_a_file_everything_is_free() -> None:
    assert PriceFile(None).current().prices == ()


BROKEN = {
    "not TOML": ("[rates", "rerankd.toml"),
    "empty": ("", "contains no settings"),
    "a misspelt key": ('[rates."q"]\ninput_prise = 1', "rates.q.input_prise"),
    "a negative price": ('[rates."q"]\ninput_price = -1', "rates.q.input_price"),
    "no number": ('[rates."q"]\ninput_price = "cheap"', "rates.q.input_price"),
    "NaN": ('[rates."q"]\ninput_price = nan', "rates.q.input_price"),
    "a number without end": ('[rates."q"]\ninput_price = 1e99999999999999999999', "too large"),
    "no currency": ('[rates."q"]\ncurrency = "dollars"', "rates.q.currency"),
    "two currencies": ('[rates."q"]\ncurrency = "EUR"\n[rates."r"]\n', "EUR and USD"),
    "a name inside": ('[rates."q"]\nmodel = "r"', "rates.q.model"),
    "no section": ("[rates]\ninput_price = 1", "rates.input_price"),
    "no table": ("rates = 1", "rates: must be sections"),
}


@pytest.mark.parametrize(("text", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_at_start_is_named_with_its_key(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        PriceFile(path)
    assert str(path) in str(raised.value) and told in str(raised.value)


def test_a_missing_file_or_one_in_another_encoding_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.toml cannot be read"):
        PriceFile(tmp_path / "nowhere.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes("# käse\n".encode("latin-1"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        PriceFile(path)


def price(file: PriceFile) -> Decimal:
    return file.current().of(["qwen3-rerank"]).input_price


def test_a_changed_file_is_seen_by_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(card("1"))
    file = PriceFile(path)
    before = file.current()
    assert file.current() is before
    path.write_text(card("2"))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # however coarse the file system's clock is
    assert price(file) == 2
    assert before.of(["qwen3-rerank"]).input_price == 1  # a card that somebody holds never changes


def test_a_change_of_size_or_file_is_seen_when_the_time_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(card("1"))
    time = path.stat().st_mtime_ns
    os.utime(path, ns=(time, time))
    file = PriceFile(path)
    path.write_text(card("1.5"))
    os.utime(path, ns=(time, time))
    assert price(file) == Decimal("1.5")
    other = tmp_path / "other"
    other.write_text(card("2.5"))
    os.utime(other, ns=(time, time))
    other.replace(path)
    assert price(file) == Decimal("2.5")


@pytest.mark.parametrize("text", ["[rates", "", '[rates."qwen3-rerank"]\ninput_price = -1', None])
def test_a_file_that_breaks_leaves_the_last_good_card(
    text: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(card("1"))
    file = PriceFile(path)
    path.unlink()
    if text is not None:
        path.write_text(text)
    with caplog.at_level(logging.INFO, "rerankd"):
        assert [price(file) for _ in range(3)] == [1, 1, 1]
    [record] = caplog.records
    assert record.levelno == logging.ERROR and str(path) in record.getMessage()
    path.write_text(card("3"))
    os.utime(path, ns=(0, 1))
    assert price(file) == 3


SERVED = ("embedded-multilingual", "qwen3-rerank")


def test_a_card_without_a_rate_for_the_served_model_is_refused(tmp_path: Path) -> None:
    """A typing mistake must not make everything free."""
    path = tmp_path / "rerankd.toml"
    path.write_text('[rates."qwen3-rernk"]\ninput_price = 1\n')
    with pytest.raises(SettingsError) as raised:
        PriceFile(path).serve(SERVED)
    assert str(path) in str(raised.value) and '[rates."qwen3-rernk"]' in str(raised.value)
    assert "embedded-multilingual, qwen3-rerank" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        '[rates."qwen3-rernk"]\ninput_price = 2\n',  # the section's name
        '[rate."qwen3-rerank"]\ninput_price = 2\n',  # the table's
        "requests_per_minute = 60\n",  # cut off
    ],
)
def test_a_card_that_loses_the_served_models_rate_stays_as_it_was(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(card("1"))
    file = PriceFile(path)
    file.serve(SERVED)
    path.write_text(text)
    assert [price(file) for _ in range(3)] == [1, 1, 1]
    [record] = caplog.records
    assert "stays as it was" in record.getMessage() and "no price for a served model" in record.getMessage()
    path.write_text(card("0"))
    os.utime(path, ns=(0, 1))
    assert price(file) == 0, "who wants it free says so"


def test_where_there_is_no_card_nothing_costs_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    PriceFile(None).serve(SERVED)
    path = tmp_path / "rerankd.toml"
    path.write_text("requests_per_minute = 60\n")
    file = PriceFile(path)
    file.serve(SERVED)
    assert price(file) == 0 and not caplog.records
    path.write_text('[rates."qwen3-rernk"]\ninput_price = 2\n')
    assert price(file) == 0 and "no price for a served model" in caplog.text


def test_rates_of_other_models_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rerankd.toml"
    path.write_text(card("1") + '[rates."qwen3-rernk"]\ninput_price = 2\n')
    PriceFile(path).serve(SERVED)
    assert "not served here: qwen3-rernk" in caplog.text


def test_the_example_of_the_compose_files_is_a_price_list(tmp_path: Path) -> None:
    example = (Path(__file__).parents[1] / "deploy" / "compose" / "settings" / "rerankd.toml").read_text()
    path = tmp_path / "rerankd.toml"
    path.write_text(re.sub(r"^# (\[|\w+ = )", r"\1", example, flags=re.MULTILINE))
    assert read_settings(ServerSettings, {"config": path}, {}).model == ("auto",)
    [price] = read_price_list(path).prices
    assert (price.model, price.input_price, price.free_tokens) == ("qwen3-rerank", Decimal("0.02"), 1_000_000)


def test_that_every_call_is_free_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    prices = PriceFile(None)
    with caplog.at_level(logging.INFO):
        prices.serve(["a"])
        prices.serve(["b"])
    assert [record.message for record in caplog.records] == ["There is no price list, so every call is free"]
