"""People at an OpenID provider who sign in to an account, and sign-ins that the account's owner still has to confirm.

Knows no provider: an identity is what the provider calls itself, and what it calls the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from rerankd.accounts.accounts import CAN_SIGN_IN, Account, account_of, insert_account, new_account
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, confirmations, identities
from rerankd.accounts.tokens import new_token, token_hash
from rerankd.errors import InvalidRequest

CONFIRMATION_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Linked:
    """An identity that signs in to an account, since `created`."""

    issuer: str
    subject: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A sign-in that has to be confirmed.

    Attributes:
        links: whether confirming it links the identity to the account; that takes the password.
    """

    account: Account
    links: bool


class Identities:
    """The identities of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, issuer: str, subject: str) -> Account | None:
        """The account that this person signs in to, also a disabled one."""
        query = select(accounts).join_from(identities, accounts)
        query = query.where(identities.c.issuer == issuer, identities.c.subject == subject)
        with self._database.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else account_of(row._mapping)

    def of_account(self, account_id: int) -> list[Linked]:
        """The oldest first."""
        query = select(identities).where(identities.c.account_id == account_id).order_by(identities.c.created)
        with self._database.read() as connection:
            return [Linked(row.issuer, row.subject, row.created) for row in connection.execute(query)]

    def create_account(self, issuer: str, subject: str, email: str, name: str) -> Account:
        """Creates an account without a password, to which this person signs in.

        Raises:
            InvalidRequest: the address is malformed or has an account already, or the person has one.
        """
        values = new_account(email, name, None)
        with self._database.transaction() as connection:
            account = insert_account(connection, values)
            _insert(connection, account.id, issuer, subject)
            return account

    def link(self, account_id: int, issuer: str, subject: str) -> None:
        """From now on, this person signs in to the account. Raises InvalidRequest if he signs in to one already."""
        with self._database.transaction() as connection:
            _insert(connection, account_id, issuer, subject)

    def unlink(self, account_id: int, by: Actor = "operator") -> None:
        """From now on, nobody at a provider signs in to the account, until somebody is linked again."""
        with self._database.transaction() as connection:
            if connection.execute(delete(identities).where(identities.c.account_id == account_id)).rowcount:
                write(connection, by, "provider unlinked", account_id)

    def ask(self, account_id: int, issuer: str | None = None, subject: str | None = None) -> str:
        """Returns the secret token of a sign-in that has to be confirmed within ten minutes.

        Args:
            issuer, subject: the identity that confirming it links; None: it is linked already.
        """
        token, now = new_token(), datetime.now(UTC)
        values = {
            "hash": token_hash(token),
            "account_id": account_id,
            "issuer": issuer,
            "subject": subject,
            "expires": now + CONFIRMATION_LIFETIME,
        }
        with self._database.transaction() as connection:
            connection.execute(delete(confirmations).where(confirmations.c.expires <= now))
            connection.execute(insert(confirmations), values)
        return token

    def asked(self, token: str) -> Confirmation | None:
        """What a token confirms; None if it is not valid, or no longer, or nobody may sign in."""
        query = select(accounts, confirmations.c.issuer).join_from(confirmations, accounts)
        query = query.where(confirmations.c.hash == token_hash(token), confirmations.c.expires > datetime.now(UTC))
        with self._database.read() as connection:
            row = connection.execute(query.where(CAN_SIGN_IN)).first()
        return None if row is None else Confirmation(account_of(row._mapping), row.issuer is not None)

    def confirm(self, token: str) -> int:
        """Uses the token up, and links its identity. Returns the account's id.

        Raises:
            InvalidRequest: the token is not valid, or no longer; or the person signs in to another account.
        """
        now = datetime.now(UTC)
        used = delete(confirmations).where(confirmations.c.hash == token_hash(token), confirmations.c.expires > now)
        columns = (confirmations.c.account_id, confirmations.c.issuer, confirmations.c.subject)
        with self._database.transaction() as connection:
            row = connection.execute(used.returning(*columns)).first()
            if row is None:
                raise InvalidRequest("This sign-in took too long. Begin again.")
            if row.issuer is not None:
                _insert(connection, row.account_id, row.issuer, row.subject)
            return int(row.account_id)


def _insert(connection: Connection, account_id: int, issuer: str, subject: str) -> None:
    values = {"issuer": issuer, "subject": subject, "account_id": account_id, "created": datetime.now(UTC)}
    try:
        connection.execute(insert(identities), values)
    except IntegrityError:
        raise InvalidRequest("This person signs in to another account already.") from None
