"""The statement of an account: the page and its file, for the owner and for administrators."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from rerankd.accounts.accounts import Account
from rerankd.accounts.decision import CallCost
from support.site import Site


def charge(site: Site, account: Account, tokens: int) -> None:
    _, secret = site.store.keys.create(account.id, "a key")
    caller = site.store.keys.find(secret)
    assert caller
    price = site.prices.current().of(["another-model"])
    site.store.ledger.settle(site.store.ledger.reserve(caller, price, CallCost(tokens, secret, b"x")))


def rows_of(page: str) -> list[list[str]]:
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = (
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
    )
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in rows]


def table_of(response: Any) -> list[dict[str, str]]:
    assert response.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(response.text)))


def with_history(site: Site) -> None:
    ledger, user = site.store.ledger, site.user
    ledger.add_credits(user.id, 25_000_000, "invoice 17")
    charge(site, user, 1_000_000)
    charge(site, user, 500_000)
    ledger.add_credits(user.id, -5_000_000, "=correction <b>", site.admin.id)
    ledger.add_credits(site.admin.id, 7_000_000, "somebody else's")


def test_the_owner_sees_why_the_balance_is_what_it_is(site: Site) -> None:
    client = site.visitor(site.user)
    assert "No credit and no charges" in client.get("/statement").text
    with_history(site)
    page = client.get("/statement?days=7").text
    today = rows_of(page)[0][0][:10]
    assert [row[1:] for row in rows_of(page)] == [
        ["credit", "=correction &lt;b&gt;", "−5.00 USD", "17.00 USD"],
        ["2 calls", "", "−3.00 USD", "22.00 USD"],
        ["credit", "invoice 17", "25.00 USD", "25.00 USD"],
    ]
    assert site.admin.email not in page and "else's" not in page
    lines = table_of(client.get("/statement.csv?days=7"))
    assert [(line["kind"], line["calls"], line["amount"], line["balance"], line["currency"]) for line in lines] == [
        ("credit", "0", "25.00", "25.00", "USD"),
        ("charges", "2", "-3.00", "22.00", "USD"),
        ("credit", "0", "-5.00", "17.00", "USD"),
    ]
    assert lines[-1]["note"] == "'=correction <b>", "a spreadsheet would compute it"
    assert all(line["time"].startswith(today) and line["by"] == "" for line in lines)


def test_administrators_see_who_gave_the_credit(site: Site) -> None:
    with_history(site)
    admin, path = site.visitor(site.admin), f"/admin/accounts/{site.user.id}/statement"
    givers = [row[3] for row in rows_of(admin.get(path).text)]
    assert givers == ["admin@example.com", "", "the operator"]
    assert [line["by"] for line in table_of(admin.get(f"{path}.csv"))] == ["", "", "admin@example.com"]
    assert admin.get("/admin/accounts/99/statement").status_code == 404
    for page in (path, f"{path}.csv"):
        assert site.visitor(site.user).get(page).status_code == 403
        assert site.visitor().get(page).status_code == 303


def test_a_long_statement_is_cut_visibly(site: Site, monkeypatch: Any) -> None:
    monkeypatch.setattr("rerankd.web.statement_pages.MAX_LINES", 2)
    with_history(site)
    client = site.visitor(site.user)
    page = client.get("/statement").text
    assert len(rows_of(page)) == 2 and "Only the newest 2 lines" in page and "invoice 17" not in page
    assert len(table_of(client.get("/statement.csv"))) == 3
