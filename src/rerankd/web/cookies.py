"""The pages' two cookies: the session of a signed-in account, and the CSRF token of visitors without one."""

from __future__ import annotations

import secrets

from starlette.requests import Request
from starlette.responses import Response

from rerankd.accounts.sessions import SESSION_LIFETIME
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.web.pages import root_of

FORM_COOKIE = "rerankd-form"


def set_session(response: Response, request: Request, token: str) -> Response:
    """Signs the browser in."""
    _set_cookie(response, request, SESSION_COOKIE, token, int(SESSION_LIFETIME.total_seconds()))
    return response


def delete_session(response: Response, request: Request) -> Response:
    """Signs the browser out."""
    response.delete_cookie(SESSION_COOKIE, path=root_of(request) or "/")
    return response


def form_token(request: Request) -> str:
    """The CSRF token for the forms of a visitor without a session."""
    return request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)


def set_form_token(response: Response, request: Request, token: str) -> Response:
    """Stores that token in the browser."""
    if request.cookies.get(FORM_COOKIE) != token:
        _set_cookie(response, request, FORM_COOKIE, token, None)
    return response


def _set_cookie(response: Response, request: Request, name: str, value: str, max_age: int | None) -> None:
    secure = request.url.scheme == "https"
    path = root_of(request) or "/"
    response.set_cookie(name, value, max_age, path=path, httponly=True, samesite="lax", secure=secure)
