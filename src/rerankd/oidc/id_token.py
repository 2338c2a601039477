"""Checks an ID token, and reads who it is about. The only file that imports joserfc, the JOSE library of Authlib.

https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from rerankd.oidc.errors import SignInRefused, UnknownKey

KEY_TYPES: Mapping[str, type[RSAKey] | type[ECKey]] = {"RSA": RSAKey, "EC": ECKey}

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
"""Signatures by a private key only: `none` proves nothing, and with HS256 a published key could pass for a secret."""

LEEWAY_S = 60
"""How far the provider's clock and this one may be apart."""

MAX_SUBJECT = 255

Jwk = Mapping[str, Any]
"""A public key, as the provider publishes it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person at a provider. The two together never change, and no other person gets them.

    Attributes:
        email: empty if the provider names none.
        is_verified: whether the provider has checked that the address is this person's.
        name: empty if the provider names none.
    """

    issuer: str
    subject: str
    email: str = ""
    is_verified: bool = False
    name: str = ""


def read_id_token(token: str, keys: Sequence[Jwk], issuer: str, client_id: str, nonce: str, now: float) -> Identity:
    """Who an ID token is about.

    Args:
        keys: that the provider publishes.
        now: seconds since 1970.

    Raises:
        UnknownKey: none of these keys has the id that the token names.
        SignInRefused: the token is malformed, forged, expired, or meant for somebody else.
    """
    key = _key_for(_header_of(token), keys)
    try:
        claims = jwt.decode(token, KEY_TYPES[key["kty"]].import_key(dict(key)), algorithms=ALGORITHMS).claims
        expected = jwt.JWTClaimsRegistry(
            now=int(now),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client_id},
            exp={"essential": True},
            iat={"essential": True},
        )
        expected.validate(claims)
    except (JoseError, ValueError, TypeError) as error:
        raise SignInRefused(f"the ID token is not valid: {type(error).__name__}") from error
    _check_recipient(claims, client_id)
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(errors="replace"), nonce.encode()):
        raise SignInRefused("the ID token has another nonce")
    return _identity(claims, issuer)


def _header_of(token: str) -> Mapping[str, Any]:
    first = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise SignInRefused("the ID token cannot be read")
    return header


def _key_for(header: Mapping[str, Any], keys: Sequence[Jwk]) -> Jwk:
    """The key that the header names; the only one, if it names none."""
    usable = [key for key in keys if key.get("kty") in KEY_TYPES and key.get("use", "sig") == "sig"]
    if "kid" not in header and len(usable) > 1:
        raise SignInRefused("the ID token names none of several keys")
    found = [key for key in usable if "kid" not in header or key.get("kid") == header["kid"]]
    if not found:
        raise UnknownKey("the ID token is signed with an unknown key")
    return found[0]


def _check_recipient(claims: Mapping[str, Any], client_id: str) -> None:
    """A token for several recipients says which of them asked for it. Raises SignInRefused."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise SignInRefused("the ID token was made for another client")


def _identity(claims: Mapping[str, Any], issuer: str) -> Identity:
    subject, email, name = claims.get("sub"), claims.get("email"), claims.get("name")
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise SignInRefused("the ID token names nobody")
    return Identity(
        issuer,
        subject,
        email.strip().lower() if isinstance(email, str) else "",
        claims.get("email_verified") in (True, "true"),  # some providers send a text
        name.strip() if isinstance(name, str) else "",
    )
