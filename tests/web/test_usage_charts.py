"""The charts of usage: values under the pointer and by keyboard, in both themes and at every width."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from rerankd.accounts.accounts import Account
from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.decision import CallCost
from rerankd.accounts.ledger import Ledger
from rerankd.web.charts import Point, bar_chart
from support.looks import WIDTHS, both_themes, check
from support.site import Site

TITLES = ("Tokens by day", "Cost by day", "Calls by day", "Time of a call by day")


def add_usage(site: Site, account: Account, days_ago: int, tokens: int, refused: int = 0) -> None:
    """A charged call of 40 ms, and refused ones."""
    key, secret = site.store.keys.create(account.id, f"key of {days_ago}")
    caller, now = site.store.keys.find(secret), time.time() - 86_400 * days_ago
    assert caller
    ledger = Ledger(site.store.database, clock=lambda: now)
    price = site.prices.current().of(["another-model"])
    ledger.settle(ledger.reserve(caller, price, CallCost(tokens, secret, b"x")))
    ended = {"time": datetime.fromtimestamp(now, UTC), "account_id": account.id, "key_id": key.id, "dialect": "jina"}
    answered = CallRecord(**ended, request_id="a", status=200, milliseconds=40, documents=3)  # type: ignore[arg-type]
    no = CallRecord(**ended, request_id="r", status=429, milliseconds=1, error="RateLimited")  # type: ignore[arg-type]
    site.store.calls.add([answered, *[no] * refused])


@pytest.fixture
def used(site: Site) -> Site:
    for account in (site.admin, site.user):
        site.store.ledger.add_credits(account.id, 25_000_000)
    add_usage(site, site.user, 0, 1_000_000, refused=2)
    add_usage(site, site.user, 8, 2_500)
    add_usage(site, site.user, 200, 777_000)
    add_usage(site, site.admin, 0, 500_000)
    return site


def readings(page: str) -> list[str]:
    return re.findall(r'class="reading">([^<]+)<', page)


def texts(page: str, day: datetime) -> list[str]:
    return [text.partition(": ")[2] for text in re.findall(r'data-text="([^"]+)"', page) if f"{day:%Y-%m-%d}" in text]


def test_the_charts_have_the_sums_of_their_days(used: Site) -> None:
    client, today = used.visitor(used.user), datetime.now(UTC)
    page = client.get("/usage").text
    assert readings(page) == [
        "1,002,500 in 30 days",
        "2.005 USD in 30 days",
        "2 charged, 2 refused in 30 days",
        "mean 40 ms, P95 40 ms in 30 days",
    ]
    assert texts(page, today) == ["1,000,000 tokens", "2.00 USD", "1 charged, 2 refused", "mean 40 ms, P95 40 ms"]
    assert texts(page, today - timedelta(days=1)) == ["0 tokens", "0.00 USD", "0 charged, 0 refused", "no calls"]
    assert page.count("<g data-text") == 4 * 30
    week = client.get("/usage?days=7").text
    assert readings(week)[0] == "1,000,000 in 7 days" and week.count("<g data-text") == 4 * 7
    assert client.get("/usage?days=90").text.count("<g data-text") == 4 * 90
    year = client.get("/usage?days=365").text
    assert readings(year)[0] == "1,779,500 in 365 days" and "Tokens by week" in year
    assert year.count("<g data-text") == 4 * 53 and texts(year, today - timedelta(days=6))[0] == "1,000,000 tokens"
    assert all(len(one) < 150_000 for one in (page, week, year))


def test_administrators_see_the_sums_of_all_accounts(used: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    admin, today = used.visitor(used.admin), datetime.now(UTC)
    page = admin.get("/admin/usage").text
    assert texts(page, today) == ["1,500,000 tokens", "3.00 USD", "2 charged, 2 refused", "mean 40 ms, P95 40 ms"]
    assert (
        f'<a href="/admin/accounts/{used.user.id}">user@example.com</a>' in page and "with the most tokens" not in page
    )
    table = admin.get("/admin/usage.csv?days=30").text.splitlines()
    assert table[0] == "account,model,calls,tokens,free_tokens,billed_tokens,cost"
    assert table[1:] == [
        "admin@example.com,another-model,1,500000,0,500000,1.00",
        "user@example.com,another-model,2,1002500,0,1002500,2.005",
    ]
    monkeypatch.setattr("rerankd.web.usage_report.MAX_ACCOUNTS", 1)
    page = admin.get("/admin/usage").text
    assert "The 1 accounts with the most tokens, of 2." in page and "admin@example.com</a>" not in page
    assert used.visitor(used.user).get("/admin/usage.csv").status_code == 403


def test_p95_stands_beside_the_mean_on_each_page_and_in_the_file_of_days(used: Site) -> None:
    key_id = used.store.keys.of_account(used.user.id)[0].id
    ended = {"account_id": used.user.id, "key_id": key_id, "request_id": "a", "dialect": "jina", "status": 200}
    today = datetime.now(UTC)
    slow = [CallRecord(time=today, milliseconds=ms, documents=1, **ended) for ms in [*[40] * 17, 3000, 3000]]  # type: ignore[arg-type]
    used.store.calls.add(slow)
    admin, user = used.visitor(used.admin), used.visitor(used.user)
    one = f"/admin/accounts/{used.user.id}"
    for client, page, csv, documents, mean, p95 in (
        (user, "/usage", "/usage-by-day.csv", 22, 336, 3007),
        (admin, one, f"{one}/usage-by-day.csv", 22, 336, 3007),
        (admin, "/admin/usage", "/admin/usage-by-day.csv", 25, 322, 3007),
    ):
        shown = client.get(page).text
        assert texts(shown, today)[3] == f"mean {mean} ms, P95 {p95:,} ms"
        assert f'data-label="P95" class="num">{p95:,} ms<' in shown and f'href="{csv}?days=30"' in shown
        assert '<rect class="tick"' in shown
        lines = client.get(f"{csv}?days=7").text.splitlines()
        assert lines[0] == "day,calls,refused,documents,mean_ms,p95_ms,tokens,free_tokens,billed_tokens,cost"
        assert len(lines) == 2 and lines[1].startswith(f"{today:%Y-%m-%d},")
        assert lines[1].split(",")[2:6] == ["2", f"{documents}", f"{mean}", f"{p95}"]
    assert len(user.get("/usage-by-day.csv?days=365").text.splitlines()) == 4
    assert user.get(f"{one}/usage-by-day.csv").status_code == 403


def test_a_key_shows_its_refused_calls(used: Site) -> None:
    page = used.visitor(used.user).get("/usage").text
    keys = page.partition('aria-label="Usage by key"')[2].partition("</table>")[0]
    assert re.findall(r'data-label="Refused" class="num">(\d+)<', keys) == ["2", "0"]


def sign_in(page: Page, site: Site, url: str, path: str) -> None:
    page.context.add_cookies(
        [{"name": "rerankd-session", "value": site.store.sessions.open(site.admin.id), "url": url}]
    )
    page.goto(f"{url}{path}")


def chart(page: Page, title: str) -> tuple[Locator, Locator]:
    """(the plot, the text with its values)."""
    figure = page.locator("figure", has_text=title)
    return figure.locator(".plot"), figure.locator(".reading")


@both_themes
def test_values_under_the_pointer_and_by_keyboard(
    used: Site, serve_site: tuple[Site, str], open_page: Callable[..., Page], theme: str
) -> None:
    site, url = serve_site
    page = open_page(f"{url}/sign-in", color_scheme=theme)
    sign_in(page, site, url, "/admin/usage?days=7")
    today = datetime.now(UTC)
    days = [f"{today - timedelta(days=ago):%Y-%m-%d}" for ago in range(6, -1, -1)]
    plot, reading = chart(page, "Tokens by day")
    expect(reading).to_have_text("1,500,000 in 7 days")
    box = plot.bounding_box()
    assert box
    for share, day in ((0.01, days[0]), (0.5, days[3]), (0.99, days[6])):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + 9)
        expect(reading).to_have_text(f"{day}: {'1,500,000' if day == days[6] else '0'} tokens")
    page.mouse.move(0, 0)
    expect(reading).to_have_text("1,500,000 in 7 days")
    for title in TITLES:
        plot, reading = chart(page, title)
        while page.evaluate("document.activeElement.dataset.title") != title:
            page.keyboard.press("Tab")
        slider = page.get_by_role("slider", name=title)
        expect(slider).to_be_focused()
        for key, at in (("ArrowLeft", 5), ("Home", 0), ("ArrowLeft", 0), ("ArrowRight", 1), ("End", 6)):
            page.keyboard.press(key)
            expect(reading).to_contain_text(days[at])
            expect(slider).to_have_attribute("aria-valuetext", reading.text_content() or "")
    check(page, "with the keyboard on a chart")
    page.keyboard.press("Tab")
    expect(reading).to_have_text("mean 40 ms, P95 40 ms in 7 days")


def test_nothing_sticks_out_at_any_width(
    used: Site, serve_site: tuple[Site, str], open_page: Callable[..., Page]
) -> None:
    site, url = serve_site
    page = open_page(f"{url}/sign-in")
    for days in (7, 365):
        sign_in(page, site, url, f"/usage?days={days}")
        check(page, f"{days} days")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for plot in page.locator(".daily").all():
                box = plot.bounding_box()
                assert box and box["x"] >= 0 and box["x"] + box["width"] <= width and box["height"] < 330


def test_the_largest_value_fits_below_a_round_line() -> None:
    for largest in (0, 1, 3, 9, 10, 99, 12_345, 10**9):
        chart = bar_chart([Point("a", (0,), ""), Point("b", (largest // 3, largest - largest // 3), "")])
        assert max(y for y, _ in chart.lines) == 100
        top = chart.lines[-1][1]
        assert largest <= top <= max(4, 2.6 * largest) and all(value.is_integer() for _, value in chart.lines if value)
        assert chart.columns[0].bars == ()
        assert sum(bar.height for bar in chart.columns[1].bars) == pytest.approx(100 * largest / top, abs=0.02)
    lonely = bar_chart([Point("a", (1,), "")]).columns
    assert [(one.middle, one.width) for one in lonely] == [(50, 75)]
