"""Who may call: for now whoever holds the one static key."""

from __future__ import annotations

import hmac

from pydantic import SecretStr
from starlette.requests import Request

from rerankd.errors import Unauthorized


def check_key(request: Request, key: SecretStr | None) -> str:
    """Compares in constant time.

    Returns:
        Who calls: the holder of the key, or, where none is asked for, an address.

    Raises:
        Unauthorized: no bearer token, or not the key.
    """
    if key is None:
        return request.client.host if request.client else ""
    token = _token(request)
    if not token:
        raise Unauthorized(missing=True)
    # Header bytes arrive as latin-1, whatever they mean.
    if not hmac.compare_digest(token.encode("latin-1"), key.get_secret_value().encode()):
        raise Unauthorized(missing=False)
    return "key"


def _token(request: Request) -> str:
    """`Authorization: Bearer <key>`; also without the scheme, as LlamaIndex sends it to a TEI server."""
    scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
    if not token:
        return "" if scheme.lower() == "bearer" else scheme
    return token.strip() if scheme.lower() == "bearer" else ""
