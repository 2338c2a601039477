"""The pages with calls one by one: filters, pages, CSV, and whose calls they show."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import pytest

from rerankd.accounts.accounts import Account
from rerankd.accounts.call_record import CallRecord
from support.site import Site


def add_calls(site: Site, account: Account, name: str, number: int, **changes: object) -> int:
    """Calls `name-0` to `name-N`. Returns the key's id."""
    key, _ = site.store.keys.create(account.id, f"key of {name}")
    now = datetime.now(UTC)
    record = {
        "time": now,
        "dialect": "jina",
        "status": 200,
        "milliseconds": 1234,
        "model": "a model",
        "documents": 2,
        "tokens": 1500,
    }
    records = [
        CallRecord(request_id=f"{name}-{one}", account_id=account.id, key_id=key.id, **{**record, **changes})  # type: ignore[arg-type]
        for one in range(number)
    ]
    site.store.calls.add(records)
    return key.id


@pytest.fixture
def busy(site: Site) -> Site:
    old = datetime.now(UTC) - timedelta(days=9)
    add_calls(site, site.user, "old", 1, time=old)
    add_calls(site, site.user, "good", 60, cost=2500)
    refused = {"documents": None, "tokens": None, "error": "RateLimited", "reason": "Too many <calls>."}
    add_calls(site, site.user, "refused", 1, status=429, **refused)
    add_calls(site, site.admin, "admins", 1)
    return site


def ids(text: str) -> list[str]:
    return re.findall(r"<code>([\w-]+-\d+)</code>", text)


def test_the_owner_sees_only_own_calls_page_by_page(busy: Site) -> None:
    client = busy.visitor(busy.user)
    first = client.get("/calls").text
    assert ids(first)[:2] == ["refused-0", "good-59"] and len(ids(first)) == 50
    assert "Too many &lt;calls&gt;." in first and "0.0025 USD" in first and "1,234" in first and "1,500" in first
    older = re.search(r'href="(/calls\?before=\d+)"', first)
    assert older
    second = client.get(older[1]).text
    assert ids(second)[-1] == "old-0" and len(ids(second)) == 12 and "Older calls" not in second
    assert "admins" not in first + second


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("outcome=refused", 1),
        ("outcome=answered&days=5", 50),
        ("status=429", 1),
        ("id=good-7", 1),
        ("id=admins-0", 0),
        ("model=another", 0),
        ("days=0&status=x&key=-1&before=y&outcome=z", 50),
        (f"before={'9' * 30}&key={'9' * 18}", 0),
    ],
)
def test_filters(busy: Site, query: str, number: int) -> None:
    response = busy.visitor(busy.user).get(f"/calls?{query}")
    assert response.status_code == 200 and len(ids(response.text)) == number


def test_a_filter_stays_on_the_next_page_and_in_the_file(busy: Site) -> None:
    client = busy.visitor(busy.user)
    page = client.get("/calls?outcome=answered&id=%22%3E").text
    assert 'value="&#34;&gt;"' in page and "No such calls" in page
    page = client.get("/calls?outcome=answered").text
    assert re.search(r'href="/calls\?outcome=answered&amp;before=\d+"', page)
    assert "<option selected>answered</option>" in page
    response = client.get("/calls.csv?outcome=answered")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert len(rows) == 61 and {row["account"] for row in rows} == {"user@example.com"}


def test_another_accounts_key_opens_nothing(busy: Site) -> None:
    key = add_calls(busy, busy.admin, "hidden", 1)
    client = busy.visitor(busy.user)
    assert ids(client.get(f"/calls?key={key}").text) == []
    assert "hidden" not in client.get(f"/calls.csv?key={key}").text


def test_administrators_see_all_calls_and_those_of_one_account(busy: Site) -> None:
    admin = busy.visitor(busy.admin)
    assert ids(admin.get("/admin/calls").text)[:2] == ["admins-0", "refused-0"]
    assert ids(admin.get(f"/admin/accounts/{busy.admin.id}/calls").text) == ["admins-0"]
    assert "admins-0" in admin.get("/admin/calls.csv").text
    assert "admins-0" not in admin.get(f"/admin/accounts/{busy.user.id}/calls.csv").text
    for path in ("/admin/calls", "/admin/calls.csv", f"/admin/accounts/{busy.user.id}/calls"):
        assert busy.visitor(busy.user).get(path).status_code == 403


def test_a_server_that_keeps_no_calls_says_so(make_site) -> None:  # type: ignore[no-untyped-def]
    site = make_site(call_log_days=0)
    assert "--call-log-days" in site.visitor(site.user).get("/calls").text
