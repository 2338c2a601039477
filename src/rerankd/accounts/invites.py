"""Invitations: each creates one account, or one member of an account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, false, func, insert, or_, select, update

from rerankd.accounts.accounts import ENABLED_ADMINS, Account, has_account, insert_account, new_account, select_by_email
from rerankd.accounts.admin_log import write
from rerankd.accounts.database import Database
from rerankd.accounts.members import add_member
from rerankd.accounts.memberships import Right, join
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.schema import accounts, invites, memberships
from rerankd.accounts.tokens import new_token, token_hash
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest

INVITE_LIFETIME = timedelta(days=14)

MAX_OPEN = 100
"""Invitations to one account."""


_OWNERS, _JOINED = accounts.alias("owners"), memberships.alias("joined")
_IS_OWNER = exists().where(
    _OWNERS.c.id == invites.c.created_by,
    or_(_OWNERS.c.id == invites.c.account_id, _OWNERS.c.team_id == invites.c.account_id),
    _OWNERS.c.member_role == "owner",
    _OWNERS.c.disabled.is_(False),
)
_JOINED_AS_OWNER = exists().where(
    _JOINED.c.account_id == invites.c.account_id,
    _JOINED.c.person_id == invites.c.created_by,
    _JOINED.c.role == "owner",
    _OWNERS.c.id == _JOINED.c.person_id,
    _OWNERS.c.disabled.is_(False),
)
_TEAM = accounts.alias("team")
_TEAM_IS_ENABLED = exists().where(_TEAM.c.id == invites.c.account_id, _TEAM.c.disabled.is_(False))
_VALID = (
    invites.c.used_by.is_(None),
    or_(
        invites.c.account_id.is_(None) & invites.c.created_by.in_(ENABLED_ADMINS),
        (_IS_OWNER | _JOINED_AS_OWNER) & _TEAM_IS_ENABLED,
    ),
)
"""Conditions for an invitation that was not used and whose author may invite."""


@dataclass(frozen=True, slots=True)
class Invite:
    """A valid invitation.

    Attributes:
        email: the only address that may use it; None: any.
        account_id: whose member it makes; None: it makes an account.
        role: of that member.
    """

    email: str | None
    created_by: int
    expires: datetime
    account_id: int | None = None
    role: Right | None = None


@dataclass(frozen=True, slots=True)
class OpenInvite:
    """An invitation to an account in its list. number: in a form; it is no secret."""

    number: str
    email: str | None
    role: Right
    expires: datetime


class Invites:
    """The invitations of one database. Each method is one transaction."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def create(self, by: int, email: str | None = None) -> str:
        """Returns the secret token of a new invitation.

        Args:
            by: the inviting account.
            email: the only address that may use it; None: any.

        Raises:
            InvalidRequest: the e-mail address is malformed, or has an account already.
        """
        email = read_email(email) if email is not None else None
        token, values = _new(by, email)
        with self._database.transaction() as connection:
            if email is not None and connection.execute(select_by_email(email)).first():
                raise has_account(email)
            connection.execute(insert(invites), values)
            write(connection, by, "invitation created", None, email or "for any address")
        return token

    def create_for_member(self, by: int, account_id: int, role: Right, email: str | None = None) -> str:
        """Returns the secret token of an invitation to become a member of an account.

        It does not say whether the address has an account: an owner is no administrator.

        Args:
            by: the owner who invites.
            email: the only address that may use it; None: any.

        Raises:
            InvalidRequest: the e-mail address is malformed, or too many invitations are open.
        """
        email = read_email(email) if email is not None else None
        token, values = _new(by, email)
        with self._database.transaction() as connection:
            connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())
            connection.execute(delete(invites).where(*_open(account_id), invites.c.expires <= datetime.now(UTC)))
            number = connection.scalar(select(func.count()).select_from(invites).where(*_open(account_id))) or 0
            if number >= MAX_OPEN:
                raise InvalidRequest(f"An account may have at most {MAX_OPEN} open invitations: withdraw one first.")
            connection.execute(insert(invites), {**values, "account_id": account_id, "role": role})
            write(connection, by, "member invited", account_id, f"{email or 'any address'}: {role}")
        return token

    def open_of(self, account_id: int) -> list[OpenInvite]:
        """The invitations to an account that can be used, the newest first."""
        query = select(invites).where(*_open(account_id), *_VALID, invites.c.expires > datetime.now(UTC))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(invites.c.created.desc())).all()
        return [OpenInvite(row.hash.hex(), row.email, row.role, row.expires) for row in rows]

    def withdraw(self, account_id: int, number: str, by: int) -> None:
        """Raises InvalidRequest if the account has no such open invitation."""
        try:
            one = invites.c.hash == bytes.fromhex(number)
        except ValueError:
            one = false()
        with self._database.transaction() as connection:
            gone = connection.execute(delete(invites).where(*_open(account_id), one).returning(invites.c.email)).first()
            if gone is None:
                raise InvalidRequest("There is no such open invitation.")
            write(connection, by, "invitation withdrawn", account_id, gone.email or "any address")

    def find(self, token: str) -> Invite | None:
        """A valid invitation; None if it was used or has expired, or if its creator is no longer allowed to
        invite."""
        with self._database.read() as connection:
            return _invite(connection.execute(_select_valid(token)).first())

    def use(self, token: str, email: str, name: str, password: str, *, for_member: bool = False) -> Account:
        """Creates an account, or a member of one, and uses the invitation up.

        Args:
            for_member: an invitation that makes an account is not valid.

        Raises:
            InvalidRequest: the invitation is not valid, or not for this address; or as `Accounts.create` says.
        """
        values = new_account(email, name, self._passwords.hash(password))
        with self._database.transaction() as connection:
            invite = _valid(connection, token, values["email"], for_member=for_member)
            account = _insert(connection, invite, values)
            connection.execute(update(invites).where(invites.c.hash == token_hash(token)).values(used_by=account.id))
            return account

    def accept(self, token: str, person_id: int) -> int:
        """Makes a person who has an account a member of the invitation's one, and uses the invitation up.

        Returns:
            The id of the account that the person joined.

        Raises:
            InvalidRequest: the invitation is not valid, or not for this address; or as `memberships.join` says.
        """
        with self._database.transaction() as connection:
            email = connection.scalar(select(accounts.c.email).where(accounts.c.id == person_id))
            invite = _valid(connection, token, email, for_member=True)
            assert invite.account_id is not None and invite.role is not None, "This is a bug: it makes no member."
            email = join(connection, invite.account_id, person_id, invite.role)
            write(connection, person_id, "member joined", invite.account_id, f"{email}: {invite.role}")
            connection.execute(update(invites).where(invites.c.hash == token_hash(token)).values(used_by=person_id))
            return invite.account_id


def _valid(connection: Connection, token: str, email: str | None, *, for_member: bool) -> Invite:
    """Locks a valid invitation. Raises InvalidRequest if it is not valid, or not for this address."""
    invite = _invite(connection.execute(_select_valid(token).with_for_update()).first())
    if invite is None or (for_member and invite.account_id is None):
        raise InvalidRequest("This invitation is not valid, or has expired. Ask for a new one.")
    if invite.email not in (None, email):
        raise InvalidRequest("This invitation is for another e-mail address.", [("email", "another one")])
    return invite


def _new(by: int, email: str | None) -> tuple[str, dict[str, Any]]:
    """The token of a new invitation, and its row."""
    token, now = new_token(), datetime.now(UTC)
    row = {"hash": token_hash(token), "email": email, "created_by": by, "created": now}
    return token, {**row, "expires": now + INVITE_LIFETIME}


def _insert(connection: Connection, invite: Invite, values: dict[str, Any]) -> Account:
    if invite.account_id is None or invite.role is None:
        return insert_account(connection, values)
    return add_member(connection, invite.account_id, values, invite.role, "owner")


def _open(account_id: int) -> tuple[ColumnElement[bool], ...]:
    """Conditions for the invitations to an account that were not used."""
    return (invites.c.account_id == account_id, invites.c.used_by.is_(None))


def _select_valid(token: str) -> Select[Any]:
    columns = (invites.c.email, invites.c.created_by, invites.c.expires, invites.c.account_id, invites.c.role)
    query = select(*columns).where(invites.c.hash == token_hash(token), *_VALID)
    return query.where(invites.c.expires > datetime.now(UTC))


def _invite(row: Row[Any] | None) -> Invite | None:
    return None if row is None else Invite(row.email, row.created_by, row.expires, row.account_id, row.role)
