"""One attempt to sign in: the values that tie the provider's answer to the browser that asked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

SECRET = re.compile(r"[\w-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Everything follows from one secret of 256 bits, which the browser keeps in a cookie. Nothing is stored here."""

    secret: str = field(repr=False)

    @classmethod
    def new(cls) -> Attempt:
        return cls(secrets.token_urlsafe(32))

    @classmethod
    def read(cls, text: str) -> Attempt | None:
        """None for a text that is not a secret of `new`."""
        return cls(text) if SECRET.fullmatch(text) else None

    @property
    def state(self) -> str:
        """Comes back with the provider's answer."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """Comes back within the ID token."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """Shows to the provider that this server began the attempt (https://www.rfc-editor.org/rfc/rfc7636)."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """The SHA-256 of the verifier."""
        return _text(hashlib.sha256(self.verifier.encode()).digest())

    def is_answered_by(self, state: str) -> bool:
        return hmac.compare_digest(self.state.encode(), state.encode(errors="replace"))

    def _derived(self, purpose: str) -> str:
        return _text(hmac.digest(self.secret.encode(), purpose.encode(), "sha256"))


def _text(digest: bytes) -> str:
    """Base64 for addresses, without padding: 43 characters."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
