"""Budgets on the pages: set by the owner and by an administrator, and shown with what is spent."""

from __future__ import annotations

import html
import re

from rerankd.accounts.decision import CallCost
from rerankd.accounts.keys import Key
from support.site import Site


def spend(site: Site, secret: str, tokens: int) -> None:
    caller = site.store.keys.find(secret)
    assert caller
    price = site.prices.current().of(["another-model"])
    site.store.ledger.settle(site.store.ledger.reserve(caller, price, CallCost(tokens, str(tokens), b"x")))


def only_key(site: Site) -> Key:
    (key,) = site.store.keys.of_account(site.user.id)
    return key


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_an_owner_gives_a_key_a_budget_and_changes_it(site: Site) -> None:
    user = site.visitor(site.user)
    site.store.ledger.add_credits(site.user.id, 25_000_000)
    made = user.post("/keys", data={"csrf": site.csrf(user), "name": "job", "budget": "5"})
    assert made.status_code in (200, 303) and only_key(site).budget == 5_000_000
    site.store.keys.revoke(only_key(site).id)
    _, secret = site.store.keys.create(site.user.id, "search")
    spend(site, secret, 1_000_000)
    page = user.get("/keys").text
    assert "2.00 USD" in page and "<progress" not in page
    key = site.store.keys.of_account(site.user.id)[0]
    form = {"csrf": site.csrf(user), "key": f"{key.id}", "budget": "8.50"}
    assert user.post("/keys/budget", data=form).headers["location"] == "/keys?done=budget"
    page = user.get("/keys?done=budget").text
    assert "The budget is set." in page and "2.00 USD of 8.50 USD" in text_of(page)
    assert '<progress max="8500000" value="2000000"' in page
    assert re.search(r"Spending starts again on \d{4}-\d\d-01 at 00:00 UTC", page)
    user.post("/keys/budget", data={**form, "budget": " "})
    assert site.store.keys.of_account(site.user.id)[0].budget is None


def test_a_budget_that_makes_no_sense_is_refused_with_a_sentence(site: Site) -> None:
    user = site.visitor(site.user)
    key, _ = site.store.keys.create(site.user.id, "job")
    foreign, _ = site.store.keys.create(site.admin.id, "of another account")
    for fields, why in (
        ({"key": f"{key.id}", "budget": "much"}, "budget: must be a number such as 25.00"),
        ({"key": f"{key.id}", "budget": "-5"}, "budget: must be more than 0"),
        ({"key": f"{foreign.id}", "budget": "5"}, f"There is no key {foreign.id}."),
        ({"key": "", "budget": "5"}, "There is no key 0."),
        ({"key": "x", "budget": "5"}, "is not a whole number"),
    ):
        refused = user.post("/keys/budget", data={"csrf": site.csrf(user), **fields})
        assert refused.status_code == 400 and why in text_of(refused.text)
    assert {one.budget for one in site.store.keys.all()} == {None}


def test_an_administrator_sets_it_too_and_the_log_says_so(site: Site) -> None:
    admin = site.visitor(site.admin)
    key, _ = site.store.keys.create(site.user.id, "job")
    path = f"/admin/accounts/{site.user.id}"
    form = {"csrf": site.csrf(admin), "key": f"{key.id}", "budget": "3"}
    assert admin.post(f"{path}/budget", data=form).headers["location"] == f"{path}?done=budget"
    page = text_of(admin.get(f"{path}?done=budget").text)
    assert "The budget is set." in page and "0.00 USD of 3.00 USD" in page
    assert "budget set" in (log := text_of(admin.get(f"{path}/log").text)) and "job" in log and "3.00 a month" in log
    other = f"/admin/accounts/{site.admin.id}/budget"
    assert admin.post(other, data={**form, "csrf": site.csrf(admin)}).status_code == 400
    assert site.visitor(site.user).post(f"{path}/budget", data=form).status_code == 403
