"""Asks one OpenID provider: its addresses and keys, and who a code is about."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import httpx2

from rerankd.client.bounded import read_bounded
from rerankd.errors import MissingExtra, SettingsError
from rerankd.loopback import is_loopback
from rerankd.oidc.attempt import Attempt
from rerankd.oidc.errors import ProviderUnreachable, SignInRefused, UnknownKey

if TYPE_CHECKING:  # an extra installs joserfc
    from rerankd.oidc.id_token import Identity, Jwk

TIMEOUT = httpx2.Timeout(10, connect=5)
MAX_REPLY_BYTES = 1_000_000
DISCOVERED_FOR_S = 3600
"""How long the provider's addresses and keys are believed. A new key is fetched when a token names it."""

SCOPE = "openid email profile"
ERROR_CODE = re.compile(r"[\w.-]{1,40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Discovered:
    """What the provider says about itself. sign_out: empty where it has no such address. at: seconds since 1970."""

    authorization: str
    token: str
    sign_out: str
    is_basic: bool
    keys: Sequence[Jwk]
    at: float


class Provider:
    """One provider, where this server is registered as a client. Each call may wait for the network.

    Args:
        issuer: the provider's address.
        clock: seconds since 1970.

    Raises:
        SettingsError: the issuer is neither an https address nor on this machine.
        MissingExtra: joserfc is not installed.
    """

    def __init__(self, issuer: str, client_id: str, client_secret: str, clock: Callable[[], float] = time.time) -> None:
        if not is_private(issuer):
            raise SettingsError("--oidc-issuer must be an https address: sign-ins could be read on the way.")
        try:
            import rerankd.oidc.id_token  # noqa: F401
        except ImportError as error:
            raise MissingExtra("Sign-in by OIDC", error, "leave --oidc-issuer out", "oidc") from None
        self.issuer = issuer
        self._client_id, self._client_secret = client_id, client_secret
        self._clock = clock
        self._discovered: _Discovered | None = None

    def address_for(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where the browser goes to sign in. Raises ProviderUnreachable."""
        with _http() as http:
            found = self._discover(http)
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": redirect_uri,
                "scope": SCOPE,
                "state": attempt.state,
                "nonce": attempt.nonce,
                "code_challenge": attempt.challenge,
                "code_challenge_method": "S256",
            }
        )
        return _with_query(found.authorization, query)

    def sign_out_address(self, redirect_uri: str) -> str:
        """Where the browser goes to sign out there, too; empty where the provider announces no such address.

        It comes back to `redirect_uri`, if that is registered
        (https://openid.net/specs/openid-connect-rpinitiated-1_0.html).

        Raises:
            ProviderUnreachable: the provider does not answer.
        """
        with _http() as http:
            found = self._discover(http)
        query = urlencode({"client_id": self._client_id, "post_logout_redirect_uri": redirect_uri})
        return _with_query(found.sign_out, query) if found.sign_out else ""

    def identity(self, code: str, attempt: Attempt, redirect_uri: str) -> Identity:
        """Who signed in, by the code that the browser brought back.

        Raises:
            ProviderUnreachable: the provider does not answer.
            SignInRefused: the provider refuses the code, or its ID token is not valid.
        """
        with _http() as http:
            found = self._discover(http)
            token = self._exchange(http, found, code, attempt, redirect_uri)
            try:
                return self._read_token(token, found, attempt)
            except UnknownKey:
                # The token came from the provider itself, so nobody else can make us ask for keys again and again.
                self._discovered = None
                return self._read_token(token, self._discover(http), attempt)

    def _read_token(self, token: str, found: _Discovered, attempt: Attempt) -> Identity:
        from rerankd.oidc.id_token import read_id_token

        return read_id_token(token, found.keys, self.issuer, self._client_id, attempt.nonce, self._clock())

    def _discover(self, http: httpx2.Client) -> _Discovered:
        known = self._discovered
        if known is None or self._clock() - known.at > DISCOVERED_FOR_S:
            address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            known = self._read(http, _object(_get(http, address)))
            self._discovered = known
        return known

    def _read(self, http: httpx2.Client, described: Mapping[str, Any]) -> _Discovered:
        if described.get("issuer") != self.issuer:
            raise ProviderUnreachable(f"it says that its issuer is {str(described.get('issuer'))[:200]!r}")
        addresses = [described.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if not all(isinstance(one, str) and is_private(one) for one in addresses):
            raise ProviderUnreachable("it has an address that is not https")
        authorization, token, jwks = map(str, addresses)
        sign_out = described.get("end_session_endpoint")
        if not (isinstance(sign_out, str) and is_private(sign_out)):
            sign_out = ""
        keys = _object(_get(http, jwks)).get("keys")
        if not isinstance(keys, list):
            raise ProviderUnreachable("it publishes no keys")
        methods = described.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        is_basic = "client_secret_basic" in methods
        known = [key for key in keys if isinstance(key, dict)]
        return _Discovered(authorization, token, sign_out, is_basic, known, self._clock())

    def _exchange(self, http: httpx2.Client, found: _Discovered, code: str, attempt: Attempt, redirect_uri: str) -> str:
        """The ID token for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        auth: tuple[str, str] | None = None
        if found.is_basic:  # https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
            # Spaces as %20, which form decoders and those of addresses both read
            auth = quote(self._client_id, safe=""), quote(self._client_secret, safe="")
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        reply = _send(http, "POST", found.token, data=form, auth=auth)
        if 400 <= reply.status_code < 500:
            raise SignInRefused(f"the provider refuses the code: {_error_in(reply)}")
        token = _object(reply).get("id_token")
        if not isinstance(token, str):
            raise SignInRefused("the provider sent no ID token")
        return token


def _with_query(address: str, query: str) -> str:
    return f"{address}{'&' if '?' in address else '?'}{query}"


def is_private(address: str) -> bool:
    """Whether nobody on the way can read what is sent there: https, or this machine."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and is_loopback(host)


@contextmanager
def _http() -> Iterator[httpx2.Client]:
    """Follows no redirect: a provider's addresses are those that it described."""
    with httpx2.Client(timeout=TIMEOUT, headers={"accept": "application/json"}) as http:
        yield http


def _get(http: httpx2.Client, address: str) -> httpx2.Response:
    return _send(http, "GET", address)


def _send(http: httpx2.Client, method: str, address: str, **options: Any) -> httpx2.Response:
    try:
        with http.stream(method, address, **options) as reply:
            return read_bounded(reply, MAX_REPLY_BYTES)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProviderUnreachable(f"{type(error).__name__}: {error}") from error


def _object(reply: httpx2.Response) -> Mapping[str, Any]:
    if reply.status_code != 200:
        raise ProviderUnreachable(f"{reply.request.url.path} answers {reply.status_code}")
    try:
        content = reply.json()
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ProviderUnreachable(f"{reply.request.url.path} answers something else than a JSON object")
    return content


def _error_in(reply: httpx2.Response) -> str:
    """The provider's code of an error, such as `invalid_grant`."""
    try:
        found = reply.json().get("error")
    except (ValueError, RecursionError, AttributeError):
        found = None
    return found if isinstance(found, str) and ERROR_CODE.fullmatch(found) else str(reply.status_code)
