"""Who may call: for now whoever holds the one static key."""

from __future__ import annotations

import hmac

from pydantic import SecretStr
from starlette.requests import Request

from rerankd.errors import Unauthorized


def check_key(request: Request, key: SecretStr | None) -> None:
    """Compares in constant time.

    Raises:
        Unauthorized: no bearer token, or not the key.
    """
    if key is None:
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized(missing=True)
    # Header bytes arrive as latin-1, whatever they mean.
    if not hmac.compare_digest(token.strip().encode("latin-1"), key.get_secret_value().encode()):
        raise Unauthorized(missing=False)
