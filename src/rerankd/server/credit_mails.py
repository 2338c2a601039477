"""Mails the owner of an account, once, when its credit runs low, or when a key has nearly spent its budget."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rerankd.errors import Unavailable
from rerankd.mail import Mailer
from rerankd.money import decimal
from rerankd.prices import PriceFile

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0

TEXT = """\
The account {email} on {site} has {left} {currency} of credit left.
Calls that cost more than that are refused. Ask an administrator of the server to add credit.

{site}/statement shows what was spent.
"""
BUDGET = """\
The key {key} of the account {email} on {site} may spend {budget} {currency} a month.
It has spent {spent} {currency} in this month. Calls that do not fit into the rest are refused until the next month.

{site}/keys shows what was spent, and changes the budget.
"""


class CreditMails:
    """Looks once a minute.

    Args:
        limit: in millionths of the currency: an account with less is low on credit; None: nobody is warned of that.
        site: the address of this server for people.
    """

    def __init__(self, store: Store, mailer: Mailer, prices: PriceFile, limit: int | None, site: str) -> None:
        self._store = store
        self._mailer = mailer
        self._prices = prices
        self._limit = limit
        self._site = site

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self._mailer.later(self.look)
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Mails the owners of accounts that became low on credit or on a budget, on the thread of the caller."""
        currency = self._prices.current().currency
        try:
            if self._limit is not None:
                self._warn_of_credit(self._limit, currency)
            self._warn_of_budgets(currency)
        except Unavailable:  # the database logged why
            logger.debug("The accounts cannot be read now: nobody is warned")

    def _warn_of_credit(self, limit: int, currency: str) -> None:
        for account in self._store.low_credit.take(limit):
            left = decimal(account.available)
            text = TEXT.format(email=account.email, site=self._site, left=left, currency=currency)
            if not self._send(account.id, f"Your credit is low: {left} {currency}", text):
                self._store.low_credit.give_back(account.id)

    def _warn_of_budgets(self, currency: str) -> None:
        for low in self._store.low_budgets.take():
            amounts = {"budget": decimal(low.budget), "spent": decimal(low.spent), "currency": currency}
            text = BUDGET.format(key=low.key, email=low.account, site=self._site, **amounts)
            share = f"{100 * low.spent // low.budget} %"
            if not self._send(low.account_id, f"A key has spent {share} of its budget", text):
                self._store.low_budgets.give_back(low)

    def _send(self, account_id: int, subject: str, text: str) -> bool:
        """Mails every owner of an account. Returns whether a mail was sent."""
        return any([self._mailer.send(email, subject, text) for email in self._store.members.owners(account_id)])
