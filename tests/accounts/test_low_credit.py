"""Who is warned that credit runs low: each account once, by one server, by a mail that a real SMTP server takes."""

from __future__ import annotations

from rerankd.accounts.store import Store, open_store
from rerankd.mail import Mailer
from rerankd.prices import PriceFile
from rerankd.server.credit_mails import CreditMails
from support.smtp import Received, smtp_server

LIMIT = 5_000_000


def emails(store: Store) -> list[str]:
    return sorted(account.email for account in store.low_credit.take(LIMIT))


def test_an_account_is_taken_once_until_it_has_credit_again(store: Store, database_url: str) -> None:
    accounts, ledger = store.accounts, store.ledger
    ann, rich, _, off = (accounts.create(f"{name}@example.org") for name in ("ann", "rich", "never", "off"))
    for account in (ann, rich, off):
        ledger.add_credits(account.id, LIMIT)
    accounts.disable(off.id)
    ledger.add_credits(off.id, -1)
    assert emails(store) == []
    ledger.add_credits(ann.id, -1)
    other = open_store(database_url)
    assert emails(store) == ["ann@example.org"] and emails(store) == emails(other) == []
    other.database.close()
    store.low_credit.give_back(ann.id)
    assert emails(store) == ["ann@example.org"]
    ledger.add_credits(ann.id, 1)
    assert emails(store) == []
    ledger.add_credits(ann.id, -2)
    assert emails(store) == ["ann@example.org"]


def test_a_mail_says_what_is_left(store: Store) -> None:
    ann, bob = (store.accounts.create(f"{name}@example.org") for name in ("ann", "bob"))
    store.ledger.add_credits(ann.id, 1_250_000)
    store.ledger.add_credits(bob.id, 1)

    def look(received: Received) -> None:
        mailer = Mailer(received.url, "rerank@example.org")
        CreditMails(store, mailer, PriceFile(None), LIMIT, "https://rerank.example").look()

    with smtp_server() as received:
        received.refuse.add("bob@example.org")
        look(received)
        [(recipients, mail)] = received.mails
        assert recipients == ["ann@example.org"] and mail["subject"] == "Your credit is low: 1.25 USD"
        assert "https://rerank.example/statement" in mail.get_content()
        received.refuse.clear()
        look(received)
        look(received)
    assert [recipients for recipients, _ in received.mails[1:]] == [["bob@example.org"]], "sent where it was refused"
