"""One-time links. With one, a person chooses a new password, creates the account of an e-mail address, or changes the
address of an account."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from rerankd.accounts.accounts import (
    CAN_SIGN_IN,
    Account,
    account_of,
    has_account,
    insert_account,
    new_account,
    select_by_email,
    sign_out_person,
)
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.schema import accounts, links
from rerankd.accounts.tokens import new_token, token_hash
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest

LINK_LIFETIME = timedelta(hours=1)
ADMIN_LINK_LIFETIME = timedelta(hours=24)

NOT_VALID = "This link is not valid, or has expired. Ask for a new one."


class Links:
    """The one-time links of one database. Each method is one transaction."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def for_password(self, account_id: int, by: Actor = "operator") -> str:
        """Returns the secret token of a link that sets the password of an enabled account.

        Args:
            by: `owner` for a link that is mailed to the account's address; it lives for an hour, others for a day.

        Raises:
            InvalidRequest: there is no such account, or it is disabled.
        """
        with self._database.transaction() as connection:
            _enabled(connection, account_id)
            write(connection, by, "password link created", account_id)
            return _insert(connection, account_id, None, by)

    def set_password(self, token: str, password: str) -> Account:
        """Sets the password, uses every link of the account up, and signs the account out everywhere.

        Raises:
            InvalidRequest: the link is not valid, or the password is too short or too long.
        """
        hashed = self._passwords.hash(password)
        with self._database.transaction() as connection:
            account_id, email = _use(connection, token)
            if account_id is None or email is not None:
                raise InvalidRequest(NOT_VALID)
            account = _enabled(connection, account_id)
            connection.execute(update(accounts).where(accounts.c.id == account_id).values(password=hashed))
            sign_out_person(connection, account_id)
        return account

    def for_sign_up(self, email: str) -> str:
        """Returns the secret token of a link that creates the account of this address. Raises InvalidRequest."""
        email = read_email(email)
        with self._database.transaction() as connection:
            return _insert(connection, None, email, "owner")

    def sign_up(self, token: str, email: str, name: str, password: str) -> Account:
        """Creates the account of the link's address, and uses the link up.

        Raises:
            InvalidRequest: the link is not valid, or the name or password is; or the address has an account already.
        """
        values = new_account(email, name, self._passwords.hash(password))
        with self._database.transaction() as connection:
            if _use(connection, token) != (None, values["email"]):
                raise InvalidRequest("This link is for another e-mail address, or for another purpose.")
            return insert_account(connection, values)

    def for_email(self, account_id: int, email: str, by: Actor = "operator") -> str:
        """Returns the secret token of a link with which the owner of an account, signed in, changes its address.

        Args:
            by: `owner` for a link that is mailed to the new address; it lives for an hour, others for a day.

        Raises:
            InvalidRequest: the address is malformed or has an account already; or the account is disabled.
        """
        email = read_email(email)
        with self._database.transaction() as connection:
            _enabled(connection, account_id)
            if connection.execute(select_by_email(email)).first():
                raise has_account(email)
            write(connection, by, "e-mail link created", account_id)
            return _insert(connection, account_id, email, by)

    def change_email(self, token: str, account_id: int) -> str:
        """Changes the address of the account, and uses all its links up. Returns the new address.

        Raises:
            InvalidRequest: the link is not valid, or of another account; or the address has an account by now.
        """
        with self._database.transaction() as connection:
            linked, email = _use(connection, token)
            if linked != account_id or email is None:
                raise InvalidRequest("This link is for another account, or for another purpose.")
            try:
                connection.execute(update(accounts).where(accounts.c.id == account_id).values(email=email))
            except IntegrityError:
                raise has_account(email) from None
            connection.execute(delete(links).where(links.c.account_id == account_id))
        return email


def _insert(connection: Connection, account_id: int | None, email: str | None, by: Actor) -> str:
    """Stores a link, and returns its token. One of an administrator lives longer than one that is mailed."""
    token, now = new_token(), datetime.now(UTC)
    lifetime = LINK_LIFETIME if by == "owner" else ADMIN_LINK_LIFETIME
    connection.execute(delete(links).where(links.c.expires <= now))
    values = {"hash": token_hash(token), "account_id": account_id, "email": email, "expires": now + lifetime}
    connection.execute(insert(links), values)
    return token


def _use(connection: Connection, token: str) -> tuple[int | None, str | None]:
    """Deletes a valid link, and returns its account and its e-mail address. Raises InvalidRequest."""
    found = links.c.hash == token_hash(token)
    used = connection.execute(
        delete(links).where(found, links.c.expires > datetime.now(UTC)).returning(links.c.account_id, links.c.email)
    ).first()
    if used is None:
        raise InvalidRequest(NOT_VALID)
    return used.account_id, used.email


def _enabled(connection: Connection, account_id: int) -> Account:
    query = select(accounts).where(accounts.c.id == account_id, CAN_SIGN_IN).with_for_update(of=accounts)
    row = connection.execute(query).first()
    if row is None:
        raise InvalidRequest("This account is disabled, or there is no such account.")
    return account_of(row._mapping)
