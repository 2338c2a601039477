"""Hashes and checks passwords. Knows no database."""

from __future__ import annotations

import secrets
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from rerankd.errors import InvalidRequest

PASSWORD_LENGTH = range(8, 1025)
"""In characters; the time to hash a password also depends on its length."""


class Passwords:
    """argon2id with the parameters of RFC 9106 for low memory."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()

    def hash(self, password: str) -> str:
        """Raises InvalidRequest for a password of the wrong length."""
        check_password_length(password)
        return self._hasher.hash(password)

    def matches(self, password: str, stored: str | None) -> bool:
        """Whether a password has this hash. Takes as long where no hash is stored, so its time reveals nothing."""
        decoy = self._decoy  # made even if it is not needed: the first time takes long
        try:
            self._hasher.verify(stored or decoy, password)
        except VerificationError:
            return False
        return stored is not None

    def rehash(self, password: str, stored: str) -> str | None:
        """A new hash where the parameters have changed since this one was stored; else None."""
        return self._hasher.hash(password) if self._hasher.check_needs_rehash(stored) else None

    @cached_property
    def _decoy(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())


def check_password_length(password: str) -> None:
    """Raises InvalidRequest."""
    if len(password) not in PASSWORD_LENGTH:
        message = f"must have from {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters"
        raise InvalidRequest(f"The password {message}.", [("password", message)])
