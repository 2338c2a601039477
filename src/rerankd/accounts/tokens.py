"""Secret tokens, of which the database stores only a hash."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """256 random bits, safe in a URL."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """SHA-256. A fast hash is enough: nobody can guess 256 random bits."""
    return hashlib.sha256(token.encode()).digest()
