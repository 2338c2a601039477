"""Mails the owner of an account, once, when its credit runs low."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from rerankd.errors import Unavailable
from rerankd.mail import Mailer
from rerankd.money import decimal
from rerankd.prices import PriceFile

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.low_credit import LowCredit

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0

TEXT = """\
The account {email} on {site} has {left} {currency} of credit left.
Calls that cost more than that are refused. Ask an administrator of the server to add credit.

{site}/statement shows what was spent.
"""


class CreditMails:
    """Looks once a minute.

    Args:
        limit: in millionths of the currency: an account with less is low on credit.
        site: the address of this server for people.
    """

    def __init__(self, low_credit: LowCredit, mailer: Mailer, prices: PriceFile, limit: int, site: str) -> None:
        self._low_credit = low_credit
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
        """Mails the owners of accounts that became low on credit, on the thread of the caller."""
        currency = self._prices.current().currency
        try:
            for account in self._low_credit.take(self._limit):
                left = decimal(account.available)
                text = TEXT.format(email=account.email, site=self._site, left=left, currency=currency)
                if not self._mailer.send(account.email, f"Your credit is low: {left} {currency}", text):
                    self._low_credit.give_back(account.id)
        except Unavailable:  # the database logged why
            logger.debug("The accounts cannot be read now: nobody is warned")
