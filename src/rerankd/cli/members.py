"""`rerankd accounts members`, `add-member`, `member-role` and `remove-member`: who shares an account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter

from rerankd.accounts.members import Member
from rerankd.accounts.memberships import Right
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_email
from rerankd.cli.options import FLAG, NONE_GIVEN, Given
from rerankd.cli.store import AS_TABLE, Email, Formats, account_of, opened, print_records
from rerankd.cli.table import show_table
from rerankd.cli.typed_password import read_password
from rerankd.errors import InvalidRequest

MemberEmail = Annotated[str, Parameter(name="MEMBER", help="the member's e-mail address")]


def members(email: Email, /, *, formats: Formats = AS_TABLE, given: Given = NONE_GIVEN) -> int:
    """List the members of an account: the people who sign in to it."""
    with opened(given) as store:
        found = store.members.of(account_of(store, email).id)
    if print_records(formats, [_record(member) for member in found]):
        return 0
    rows = [(one.email, one.name, one.role, "on" if one.has_second_factor else "off", one.since) for one in found]
    show_table(("e-mail", "name", "role", "second factor", "since"), rows)
    return 0


def add_member(
    email: Email,
    member: MemberEmail,
    /,
    *,
    role: Right = "member",
    name: Annotated[str, Parameter(metavar="NAME", show_default=False)] = "",
    password_stdin: Annotated[bool, FLAG] = False,
    given: Given = NONE_GIVEN,
) -> int:
    """Add a member to an account; asks for the member's password, unless that person has an account already.

    Args:
        role: viewer sees everything, member also makes keys and sets budgets, owner also manages members
        name: a name to show (default: the e-mail address)
        password_stdin: read the password from the first line of stdin
    """
    with opened(given) as store:
        account, address = account_of(store, email), read_email(member)
        if person := store.accounts.by_email(address):
            store.members.add_existing(account.id, person.id, role)
        else:
            store.members.add(account.id, address, name, read_password(password_stdin), role)
    print(f"{address} is {role} of {account.email}.")
    return 0


def member_role(email: Email, member: MemberEmail, role: Right, /, *, given: Given = NONE_GIVEN) -> int:
    """Change the role of a member: viewer, member or owner. One owner always stays."""
    with opened(given) as store:
        account, one = account_of(store, email), _member_of(store, email, member)
        store.members.set_role(account.id, one.id, role)
    print(f"{one.email} is {role} of {account.email}.")
    return 0


def remove_member(email: Email, member: MemberEmail, /, *, given: Given = NONE_GIVEN) -> int:
    """Remove a member from an account: signs the member out at once; the keys stay."""
    with opened(given) as store:
        account, one = account_of(store, email), _member_of(store, email, member)
        store.members.remove(account.id, one.id)
    print(f"Removed {one.email} from {account.email}.")
    return 0


def _member_of(store: Store, email: str, member: str) -> Member:
    """Raises InvalidRequest if the account has no such member."""
    address = read_email(member)
    found = next((one for one in store.members.of(account_of(store, email).id) if one.email == address), None)
    if found is None:
        raise InvalidRequest(f"{address} is not a member of {email}.")
    return found


def _record(member: Member) -> dict[str, object]:
    return {
        "email": member.email,
        "name": member.name,
        "role": member.role,
        "second_factor": member.has_second_factor,
        "since": member.since,
    }


ACTIONS: dict[str, Callable[..., int]] = {
    "members": members,
    "add-member": add_member,
    "member-role": member_role,
    "remove-member": remove_member,
}
"""Actions of `rerankd accounts`, by name."""
