"""A second factor for signing in: the codes of an authenticator app (TOTP, https://www.rfc-editor.org/rfc/rfc6238)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

from sqlalchemy import Connection, delete, func, insert, select, update

from rerankd.accounts.accounts import sign_out_person
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, recovery_codes
from rerankd.accounts.tokens import token_hash
from rerankd.errors import InvalidRequest

STEP_S = 30
DIGITS = 6
SECRET = re.compile(r"[A-Z2-7]{32}")
"""160 bits in base32."""

NUM_RECOVERY_CODES = 10
RECOVERY_CODE = re.compile(r"[A-Z2-7]{16}")
"""80 bits in base32: too many to guess, so a fast hash is enough."""


def new_secret() -> str:
    """A random secret, as authenticator apps read it."""
    return base64.b32encode(secrets.token_bytes(20)).decode()


def code_of(secret: str, step: int) -> str:
    """The code of a secret in one step of 30 seconds since 1970."""
    digest = hmac.digest(base64.b32decode(secret), step.to_bytes(8, "big"), hashlib.sha1)
    start = digest[-1] & 15
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


class SecondFactors:
    """The second factors of one database. Each method is one transaction.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def turn_on(self, account_id: int, secret: str, code: str) -> list[str]:
        """From now on, a sign-in needs a code. Signs the account out everywhere.

        Returns ten recovery codes, which are not stored: each signs in once, in place of a code of the app.

        Args:
            code: shows that the owner's app has the secret.

        Raises:
            InvalidRequest: the secret is malformed, or the code is wrong.
        """
        if not SECRET.fullmatch(secret):
            raise InvalidRequest("The secret is not from this page.")
        step = self._step_of(secret, code, -1)
        if step is None:
            raise InvalidRequest("The code is wrong. Check the clock of the device with the app.")
        with self._database.transaction() as connection:
            values = {"totp_secret": secret, "totp_step": step}
            connection.execute(update(accounts).where(accounts.c.id == account_id).values(values))
            sign_out_person(connection, account_id)
            return _renew(connection, account_id)

    def new_recovery_codes(self, account_id: int) -> list[str]:
        """Ten recovery codes in place of all earlier ones. Raises InvalidRequest without a second factor."""
        has_one = select(accounts.c.id).where(accounts.c.id == account_id, accounts.c.totp_secret.is_not(None))
        with self._database.transaction() as connection:
            if connection.execute(has_one.with_for_update()).first() is None:
                raise InvalidRequest("Recovery codes need a second factor: turn it on first.")
            return _renew(connection, account_id)

    def recovery_codes_left(self, account_id: int) -> int:
        """How many recovery codes were not used yet."""
        query = select(func.count()).select_from(recovery_codes).where(recovery_codes.c.account_id == account_id)
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def turn_off(self, account_id: int, by: Actor = "operator") -> None:
        """From now on, the password alone signs in."""
        with self._database.transaction() as connection:
            connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
            values = {"totp_secret": None, "totp_step": None}
            has_one = accounts.c.totp_secret.is_not(None)
            changed = connection.execute(update(accounts).where(accounts.c.id == account_id, has_one).values(values))
            if changed.rowcount:
                write(connection, by, "second factor removed", account_id)

    def check(self, account_id: int, code: str) -> bool:
        """Whether the code is right, or the account has no second factor.

        Args:
            code: of the app, or a recovery code. Either signs in once.
        """
        query = select(accounts.c.totp_secret, accounts.c.totp_step).where(accounts.c.id == account_id)
        with self._database.transaction() as connection:
            row = connection.execute(query.with_for_update()).first()
            if row is None:
                return False
            if row.totp_secret is None:
                return True
            if (typed := _as_recovery_code(code)) is not None:
                return _use(connection, account_id, typed)
            step = self._step_of(row.totp_secret, code, row.totp_step)
            if step is not None:
                connection.execute(update(accounts).where(accounts.c.id == account_id).values(totp_step=step))
            return step is not None

    def _step_of(self, secret: str, code: str, last: int) -> int | None:
        """The step of a code: this one, the one before or the next one, but none that was used; None: it is wrong."""
        typed, now = "".join(code.split()).encode(), int(self._clock()) // STEP_S
        steps = [step for step in (now - 1, now, now + 1) if hmac.compare_digest(code_of(secret, step).encode(), typed)]
        return next((step for step in steps if step > last), None)


def _as_recovery_code(typed: str) -> str | None:
    """As it is hashed, in whatever groups and case it was typed; None for any other text."""
    code = re.sub(r"[\s-]", "", typed).upper()
    return code if RECOVERY_CODE.fullmatch(code) else None


def _use(connection: Connection, account_id: int, code: str) -> bool:
    """Deletes a recovery code. Whether there was one."""
    found = (recovery_codes.c.account_id == account_id) & (recovery_codes.c.hash == token_hash(code))
    return connection.execute(delete(recovery_codes).where(found)).rowcount == 1


def _renew(connection: Connection, account_id: int) -> list[str]:
    """Replaces the recovery codes of an account. Returns them as people read them: four groups of four."""
    codes = [base64.b32encode(secrets.token_bytes(10)).decode() for _ in range(NUM_RECOVERY_CODES)]
    connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
    rows = [{"account_id": account_id, "hash": token_hash(code)} for code in codes]
    connection.execute(insert(recovery_codes), rows)
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in codes]
