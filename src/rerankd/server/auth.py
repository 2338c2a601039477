"""Who calls: the holder of the one static key or of an account's key, or, where none is asked for, an address."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import MissingKey, Unauthorized, Unavailable, WrongKey
from rerankd.server.accounts import Accounts
from rerankd.setting import Secret
from rerankd.web.throttle import network_of

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.keys import Caller


RECENT_S = 1.0


@dataclass(frozen=True, slots=True)
class Guest:
    """Who calls. caller: of an account, else None.

    who: as limits are counted, `key:17` or `address:192.0.2.1`; of an IPv6 address, its network of /64.
    """

    who: str
    caller: Caller | None = None

    @property
    def key_name(self) -> str | None:
        """For the log: the name of an account's key, `static` for the one key of a server; None without keys."""
        if self.caller is not None:
            return self.caller.key_name
        kind, _, name = self.who.partition(":")
        return name if kind == "key" else None


class Auth:
    """Tells callers apart.

    Args:
        api_key: the static key; None: everybody is let in, unless there are accounts.
        accounts: None where there are none.
    """

    def __init__(self, api_key: Secret | None, accounts: Accounts | None = None) -> None:
        self._api_key = api_key
        self._accounts = accounts
        self._seen = _Recent()

    @property
    def needs_key(self) -> bool:
        """Whether callers without a key are refused."""
        return self._api_key is not None or self._accounts is not None

    async def identify(self, request: Request, *, recently: bool = False) -> Guest:
        """Who calls.

        Args:
            recently: a key that was valid a second ago will do: for calls, whose key is looked at again in the
                transaction that reserves what they cost.

        Raises:
            MissingKey: no key was sent.
            WrongKey: the key is not valid.
            Unavailable: the accounts cannot be read now.
        """
        if not self.needs_key:
            return Guest(f"address:{network_of(request.client.host) if request.client else ''}")
        token = _token(request)
        if not token:
            raise MissingKey
        if self._accounts is None:
            return self._holder(token)
        caller = self._seen.get(token) if recently else None
        if caller is None:
            # By its hash, so the time that it takes tells nothing about the key.
            caller = await self._accounts.ask(self._accounts.keys.find, token)
            if caller is None:
                raise WrongKey
            self._seen.put(token, caller)
        return Guest(f"key:{caller.key_id}", caller)

    def _holder(self, token: str) -> Guest:
        assert self._api_key is not None
        # Header bytes arrive as latin-1, whatever they mean. Compared in constant time.
        if not hmac.compare_digest(token.encode("latin-1"), self._api_key.get_secret_value().encode()):
            raise WrongKey
        return Guest("key:static")


class KeyedPaths:
    """Asks for a key where pages and figures about the server are open to everybody else."""

    PATHS = ("/metrics", "/tei/metrics", "/load", "/v1/rates", "/rates", "/openapi.json", "/docs")

    def __init__(self, app: ASGIApp, auth: Auth) -> None:
        self._app = app
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_keyed(scope):
            try:
                await self._auth.identify(Request(scope))
            except (Unauthorized, Unavailable) as error:
                await _refusal(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_keyed(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return (path.rstrip("/") or "/") in self.PATHS


def _refusal(error: Unauthorized | Unavailable) -> JSONResponse:
    if isinstance(error, Unavailable):
        return JSONResponse({"detail": str(error)}, 503, {"retry-after": str(error.retry_after_s)})
    return JSONResponse({"detail": str(error)}, 401, {"www-authenticate": "Bearer"})


class _Recent:
    """The callers of the last second, by their keys' hashes; not those who have nothing to spend, who may get some."""

    def __init__(self) -> None:
        self._callers: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()  # the oldest first

    def get(self, token: str) -> Caller | None:
        self._forget()
        _, caller = self._callers.get(_hash(token), (0.0, None))
        return caller

    def put(self, token: str, caller: Caller) -> None:
        if caller.available > 0:
            self._callers[_hash(token)] = (time.monotonic(), caller)
            self._callers.move_to_end(_hash(token))

    def _forget(self) -> None:
        until = time.monotonic() - RECENT_S
        while self._callers and next(iter(self._callers.values()))[0] <= until:
            self._callers.popitem(last=False)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("latin-1")).digest()


def _token(request: Request) -> str:
    """`Authorization: Bearer <key>`; where there is none, `x-api-key` or `api-key`, as Azure's and Anthropic's clients
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
