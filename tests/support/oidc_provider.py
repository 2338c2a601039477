"""A real OpenID provider on this machine, which can be told to lie about who signs in.

Authlib judges the requests: the registration, its secret, the redirect address, PKCE, and that a code works once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from authlib.common.security import generate_token
from authlib.oauth2.rfc6749 import AuthorizationServer, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7636 import CodeChallenge
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from support.waiting import wait_until

CLIENT_ID, CLIENT_SECRET = "rerankd at work", "a secret: 100% & more"
"""Characters that have to be escaped where they are sent."""


@dataclass
class Person:
    """Who signs in."""

    subject: str = "248289761001"
    email: str = "user@example.com"
    is_verified: bool = True
    name: str = "Ursula"


@dataclass
class Code:
    """An authorization code, as Authlib asks for it."""

    code: str
    redirect_uri: str
    scope: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


class Registration:
    """The server under test, as it is registered here. redirect_uris: where browsers may be sent."""

    client_id = CLIENT_ID

    def __init__(self) -> None:
        self.redirect_uris: set[str] = set()

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris

    def check_client_secret(self, secret: str) -> bool:
        return secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in ("client_secret_basic", "client_secret_post")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def get_client_id(self) -> str:
        return self.client_id


@dataclass
class OidcProvider:
    """The provider, and what it answers from now on.

    Attributes:
        person: who signs in; None: who does not.
        claims: replace those of the next ID tokens; None leaves one out.
        forge: makes the next ID tokens instead, from their claims.
        status: of every answer to the server; 200: it works.
        described: replaces what it says about itself.
        asks: whether a page asks before the browser is sent back.
        requests: the paths that the server asked for.
    """

    issuer: str = ""
    person: Person | None = field(default_factory=Person)
    claims: dict[str, Any] = field(default_factory=dict)
    forge: Callable[[Mapping[str, Any]], str] | None = None
    status: int = 200
    described: dict[str, Any] = field(default_factory=dict)
    asks: bool = False
    requests: list[str] = field(default_factory=list)
    registration: Registration = field(default_factory=Registration)
    codes: dict[str, Code] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rotate()
        self._server = _AuthorizationServer(self)

    def rotate(self, key: Any = None, number: int = 1) -> None:
        """From now on it signs with new keys, and publishes only these."""
        self.keys = [key or ECKey.generate_key("P-256", {"kid": generate_token(8)}) for _ in range(number)]

    def id_token(self, nonce: str) -> str:
        """Signed, about the person."""
        assert self.person is not None
        now = int(time.time())
        about = {"sub": self.person.subject, "email": self.person.email, "name": self.person.name}
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce, **about}
        claims = {**claims, "email_verified": self.person.is_verified, **self.claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        return self.forge(claims) if self.forge else self.signed(claims)

    def signed(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A token of the newest key."""
        key = self.keys[-1]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        shown = {"alg": algorithm, "kid": key.kid, **header}
        shown = {name: value for name, value in shown.items() if value is not None}
        return jwt.encode(shown, dict(claims), key, algorithms=[algorithm])

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._describe),
                Route("/keys", self._publish),
                Route("/authorize", self._authorize, methods=["GET", "POST"]),
                Route("/token", self._token, methods=["POST"]),
                Route("/logout", self._sign_out),
            ]
        )

    async def _describe(self, request: Request) -> Response:
        described = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            **self.described,
        }
        return self._answer(request, described)

    async def _publish(self, request: Request) -> Response:
        return self._answer(request, {"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _authorize(self, request: Request) -> Response:
        if self.asks and request.method == "GET":
            return HTMLResponse(
                '<!doctype html><html lang="en"><title>Provider</title><h1>Provider</h1>'
                '<form method="post"><button>Continue</button></form>'
            )
        asked = OAuth2Request("GET", "https://provider/authorize", headers={})
        asked.payload = BasicOAuth2Payload(dict(request.query_params))
        grant = self._server.get_consent_grant(asked, end_user=self.person)
        made: Response = self._server.create_authorization_response(asked, grant_user=self.person, grant=grant)
        return made

    async def _sign_out(self, request: Request) -> Response:
        """Where `described` announces it."""
        self.requests.append(request.url.path)
        assert request.query_params["client_id"] == CLIENT_ID
        return RedirectResponse(request.query_params["post_logout_redirect_uri"])

    async def _token(self, request: Request) -> Response:
        if self.status != 200:
            return self._answer(request, {})
        self.requests.append(request.url.path)
        asked = _TokenRequest("POST", "https://provider/token", headers=request.headers)
        asked.form = dict(parse_qsl((await request.body()).decode()))
        asked.payload = BasicOAuth2Payload(asked.form)
        made: Response = self._server.create_token_response(asked)
        return made

    def _answer(self, request: Request, content: Mapping[str, Any]) -> Response:
        self.requests.append(request.url.path)
        return JSONResponse(dict(content), self.status)


class _TokenRequest(OAuth2Request):
    form: Any = None


class _AuthorizationServer(AuthorizationServer):
    """Authlib's part, over Starlette."""

    def __init__(self, provider: OidcProvider) -> None:
        super().__init__()
        self.provider = provider
        self.register_grant(_CodeGrant, [CodeChallenge(required=True)])
        self.register_token_generator("default", lambda **_: {"token_type": "Bearer", "access_token": "opaque"})

    def query_client(self, client_id: str) -> Registration | None:
        return self.provider.registration if client_id == CLIENT_ID else None

    def save_token(self, token: Any, request: Any) -> None:
        pass

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass

    def create_oauth2_request(self, request: Any) -> Any:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        if isinstance(body, dict):
            return JSONResponse(body, status)
        return Response(body, status, dict(headers))


class _CodeGrant(AuthorizationCodeGrant):
    def save_authorization_code(self, code: str, request: Any) -> Code:
        asked = request.payload.data
        names = ("redirect_uri", "scope", "nonce", "code_challenge", "code_challenge_method")
        saved = Code(code, *(asked[name] for name in names))
        self.server.provider.codes[code] = saved
        return saved

    def query_authorization_code(self, code: str, client: Any) -> Code | None:
        found: Code | None = self.server.provider.codes.get(code)
        return found

    def delete_authorization_code(self, authorization_code: Code) -> None:
        del self.server.provider.codes[authorization_code.code]

    def authenticate_user(self, authorization_code: Code) -> Person | None:
        person: Person | None = self.server.provider.person
        return person

    def create_token_response(self) -> Any:
        nonce = self.request.authorization_code.nonce
        status, token, headers = super().create_token_response()
        return status, {**token, "id_token": self.server.provider.id_token(nonce)}, headers


def unsigned(claims: Mapping[str, Any]) -> str:
    """A token with the algorithm `none`."""
    return f"{_part({'alg': 'none'})}.{_part(claims)}."


def signed_with_public_key(provider: OidcProvider) -> Callable[[Mapping[str, Any]], str]:
    """Tokens whose secret is the published key: whoever lets the token choose the algorithm believes them."""

    def forge(claims: Mapping[str, Any]) -> str:
        key = provider.keys[-1]
        text = f"{_part({'alg': 'HS256', 'kid': key.kid})}.{_part(claims)}"
        digest = hmac.digest(key.as_pem(private=False), text.encode(), hashlib.sha256)
        return f"{text}.{_encoded(digest)}"

    return forge


def _part(content: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(dict(content)).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def oidc_provider() -> Iterator[OidcProvider]:
    """On a free port of this machine."""
    provider = OidcProvider()
    server = uvicorn.Server(uvicorn.Config(provider.app(), port=0, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        provider.issuer = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield provider
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()
