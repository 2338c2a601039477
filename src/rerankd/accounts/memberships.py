"""The accounts that a person acts in: the first one, and those that the person joined later.

Who a person is stands in one row of `accounts`, with the role in the first account: the row's own, or the one that
`team_id` names. Each further account is a row of `memberships`. Who leaves one keeps that row, with the role `none`, so
that the account's log still says who did what.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import ColumnElement, Connection, delete, func, insert, literal_column, or_, select, union_all, update

from rerankd.accounts.accounts import CAN_SIGN_IN, everybody, sign_out_person
from rerankd.accounts.schema import accounts, identities, memberships, recovery_codes, sessions
from rerankd.errors import InvalidRequest

Right = Literal["viewer", "member", "owner"]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""Each role may do what those before it may."""

MAX_MEMBERS = 100
"""Of one account."""

MAX_JOINED = 30
"""Accounts that one person may join."""


@dataclass(frozen=True, slots=True)
class Membership:
    """An account that a person may act in, and the person's role there. email, name: of the account."""

    account_id: int
    email: str
    name: str
    role: Right


def memberships_of(connection: Connection, person_id: int) -> list[Membership]:
    """The enabled accounts that a person may act in: the first one, then the others by e-mail address."""
    person, about = accounts.alias("person"), (accounts.c.id, accounts.c.email, accounts.c.name)
    first = (
        select(*about, person.c.member_role.label("role"), literal_column("0").label("place"))
        .join_from(person, accounts, accounts.c.id == func.coalesce(person.c.team_id, person.c.id))
        .where(person.c.id == person_id, person.c.member_role != "none", accounts.c.disabled.is_(False))
    )
    joined = (
        select(*about, memberships.c.role, literal_column("1"))
        .join_from(memberships, accounts, accounts.c.id == memberships.c.account_id)
        .where(memberships.c.person_id == person_id, memberships.c.role != "none", accounts.c.disabled.is_(False))
    )
    found = connection.execute(union_all(first, joined).order_by("place", "email"))
    return [Membership(row.id, row.email, row.name, row.role) for row in found]


def is_in(account_id: int) -> ColumnElement[bool]:
    """Condition for the rows of the people of an account."""
    return (everybody(account_id) & (accounts.c.member_role != "none")) | _joined(account_id, RIGHTS)


def owns(account_id: int) -> ColumnElement[bool]:
    """Condition for the rows of the owners of an account."""
    return (everybody(account_id) & (accounts.c.member_role == "owner")) | _joined(account_id, ("owner",))


def lock_team(connection: Connection, account_id: int) -> None:
    """Locks an account while another member comes in. Raises InvalidRequest if it can have no further one."""
    team = connection.execute(select(accounts).where(accounts.c.id == account_id).with_for_update()).first()
    if team is None or team.team_id is not None or team.deleted is not None:
        raise InvalidRequest(f"There is no account {account_id} that can have members.")
    people = connection.scalar(select(func.count()).select_from(accounts).where(is_in(account_id))) or 0
    if people >= MAX_MEMBERS:
        raise InvalidRequest(f"An account may have at most {MAX_MEMBERS} members: remove one first.")


def join(connection: Connection, account_id: int, person_id: int, role: Right) -> str:
    """Makes a person who has an account a member of another one. Returns the person's e-mail address.

    Raises:
        InvalidRequest: the person cannot sign in, is a member already, or joined too many accounts; or as `lock_team`.
    """
    lock_team(connection, account_id)
    found = select(accounts).where(accounts.c.id == person_id, CAN_SIGN_IN).with_for_update(of=accounts)
    person = connection.execute(found).first()
    if person is None:
        raise InvalidRequest("This account is disabled, or there is no such account.")
    if connection.execute(select(accounts.c.id).where(accounts.c.id == person_id, is_in(account_id))).first():
        raise InvalidRequest(f"{person.email} is a member of this account already.")
    if account_id in (person.id, person.team_id):  # left it before
        connection.execute(update(accounts).where(accounts.c.id == person_id).values(member_role=role))
        return str(person.email)
    mine = (memberships.c.person_id == person_id, memberships.c.role != "none")
    if (connection.scalar(select(func.count()).select_from(memberships).where(*mine)) or 0) >= MAX_JOINED:
        raise InvalidRequest(f"A person may join at most {MAX_JOINED} accounts: leave one first.")
    row = {"account_id": account_id, "person_id": person_id}
    connection.execute(delete(memberships).where(*(memberships.c[name] == value for name, value in row.items())))
    connection.execute(insert(memberships), {**row, "role": role, "joined": datetime.now(UTC)})
    return str(person.email)


def set_right(connection: Connection, account_id: int, person_id: int, role: Right | Literal["none"]) -> None:
    """Changes the role of a person who is in the account."""
    here = (memberships.c.account_id == account_id, memberships.c.person_id == person_id)
    if not connection.execute(update(memberships).where(*here).values(role=role)).rowcount:
        connection.execute(update(accounts).where(accounts.c.id == person_id).values(member_role=role))


def take_out(connection: Connection, account_id: int, person_id: int) -> None:
    """Ends a person's part in an account: the sessions there, and the sign-in if no other account is left."""
    set_right(connection, account_id, person_id, "none")
    chosen = or_(sessions.c.payer_id == account_id, sessions.c.payer_id.is_(None))
    connection.execute(delete(sessions).where(sessions.c.account_id == person_id, chosen))
    end_lost_sign_in(connection, person_id)


def end_lost_sign_in(connection: Connection, person_id: int) -> None:
    """Ends the sign-in of a person who is in no account any more, not even in a disabled one."""
    person = connection.execute(select(accounts).where(accounts.c.id == person_id)).one()
    others = (memberships.c.person_id == person_id, memberships.c.role != "none")
    if person.member_role != "none" or connection.execute(select(memberships).where(*others)).first():
        return
    gone: dict[str, str | None] = dict.fromkeys(("password", "totp_secret", "totp_step"))
    if person.team_id is not None:  # an account of its own keeps its name
        gone["email"] = f"{person.email[:200]} (removed {person_id})"
    connection.execute(update(accounts).where(accounts.c.id == person_id).values(gone))
    sign_out_person(connection, person_id)
    for table in (identities, recovery_codes):
        connection.execute(delete(table).where(table.c.account_id == person_id))


def _joined(account_id: int, roles: tuple[Right, ...]) -> ColumnElement[bool]:
    here = (memberships.c.account_id == account_id, memberships.c.role.in_(roles))
    return accounts.c.id.in_(select(memberships.c.person_id).where(*here))
