"""Identifies callers: by the server's static key, by an account's key or session, or, without keys, by address."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import TTLCache
from starlette.requests import Request

from rerankd.admission.async_store import AsyncStore
from rerankd.admission.session_calls import session_of_call
from rerankd.errors import MissingKey, WrongKey
from rerankd.setting import Secret

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.keys import Caller


HOW_TO_SEND_A_KEY = "send the header 'Authorization: Bearer <key>', or 'X-Api-Key: <key>'"

SIGN_IN_AGAIN = "your session on this server's pages has ended; sign in again, or send a key"

CACHED_S = 1.0
MAX_CACHED = 10_000
"""Keys."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller.

    Attributes:
        subject: the caller's name for rate limits: `key:17`, or `address:192.0.2.1` (an IPv6 address by its /64).
        caller: the account's key; None without accounts.
    """

    subject: str
    caller: Caller | None = None

    @property
    def key_name(self) -> str | None:
        """For the log: the name of an account's key, `static` for the server's key; None without keys."""
        if self.caller is not None:
            return self.caller.key_name
        kind, _, name = self.subject.partition(":")
        return name if kind == "key" else None


class Authenticator:
    """Finds out who sent a request.

    Args:
        api_key: the static key; None: everybody is admitted, unless there are accounts.
        accounts: None without accounts.
    """

    def __init__(self, api_key: Secret | None, accounts: AsyncStore | None = None) -> None:
        self._api_key = api_key
        self._accounts = accounts
        self._cache: TTLCache[bytes, Caller] = TTLCache(MAX_CACHED, CACHED_S, timer=time.monotonic)

    @property
    def needs_key(self) -> bool:
        """Whether callers without a key are refused."""
        return self._api_key is not None or self._accounts is not None

    async def identify(self, request: Request) -> Identity:
        """Checks the key against the accounts as they are now.

        Raises:
            MissingKey: no key was sent.
            WrongKey: the key is not valid.
            Unavailable: the accounts cannot be read now.
        """
        if not self.needs_key:
            return Identity(f"address:{network_of(request.client.host) if request.client else ''}")
        key = _key_of(request)
        session = session_of_call(request) if not key and self._accounts is not None else None
        if session is not None and self._accounts is not None:
            return await self._find_session(*session, self._accounts)
        if not key:
            raise MissingKey(HOW_TO_SEND_A_KEY)
        return self._check_static_key(key) if self._accounts is None else await self._find(key, self._accounts)

    async def identify_cached(self, request: Request) -> Identity:
        """The same, but accepts a key that was valid a second ago.

        For calls: `Ledger.reserve` checks their key again.
        """
        caller = self._cache.get(_hash(_key_of(request))) if self._accounts is not None else None
        return await self.identify(request) if caller is None else Identity(f"key:{caller.key_id}", caller)

    async def _find(self, key: str, accounts: AsyncStore) -> Identity:
        # By its hash, so the time of the look-up reveals nothing about the key.
        caller = await accounts.run(accounts.keys.find, key)
        if caller is None:
            raise WrongKey
        if caller.can_pay:  # a caller without credit may get some at any moment
            self._cache[_hash(key)] = caller
        return Identity(f"key:{caller.key_id}", caller)

    async def _find_session(self, secret: str, token: str, accounts: AsyncStore) -> Identity:
        caller = await accounts.run(accounts.session_caller, secret, token)
        if caller is None:
            raise MissingKey(SIGN_IN_AGAIN)
        return Identity(f"key:{caller.key_id}", caller)

    def _check_static_key(self, key: str) -> Identity:
        assert self._api_key is not None
        # Header bytes arrive as latin-1, whatever they mean. Compared in constant time.
        if not hmac.compare_digest(key.encode("latin-1"), self._api_key.get_secret_value().encode()):
            raise WrongKey
        return Identity("key:static")


def network_of(address: str) -> str:
    """IPv6 addresses are grouped by /64, since one host controls a whole /64."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("latin-1")).digest()


def _key_of(request: Request) -> str:
    """The key in `Authorization: Bearer <key>`; else in `x-api-key` or `api-key`, as Azure's and Anthropic's clients
    send it."""
    headers = request.headers
    others = (headers.get(name, "").strip() for name in ("x-api-key", "api-key"))
    return _bearer(headers.get("authorization", "")) or next(filter(None, others), "")


def _bearer(header: str) -> str:
    """The key of an Authorization header; also without the scheme, as LlamaIndex sends it to a TEI server."""
    scheme, _, token = header.strip().partition(" ")
    if not token:
        return "" if scheme.lower() == "bearer" else scheme
    return token.strip() if scheme.lower() == "bearer" else ""
