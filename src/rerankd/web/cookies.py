"""The cookies of the pages: a session, the CSRF token of visitors without one, and values for minutes."""

from __future__ import annotations

import secrets
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.responses import Response

from rerankd.accounts.sessions import SESSION_LIFETIME
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.web.pages import root_of

FORM_COOKIE = "rerankd-form"
ATTEMPT_COOKIE = "rerankd-attempt"
CONFIRMATION_COOKIE = "rerankd-confirm"
INVITE_COOKIE = "rerankd-invite"
SHOWN_COOKIE = "rerankd-shown"

SHORT_LIFETIME_S = 600
SHOWN_LIFETIME_S = 60


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


def set_short_cookie(
    response: Response, request: Request, name: str, value: str, lifetime_s: int = SHORT_LIFETIME_S
) -> Response:
    """Stores a value for ten minutes, or for another time."""
    _set_cookie(response, request, name, quote(value, safe=""), lifetime_s)
    return response


def short_cookie(request: Request, name: str) -> str:
    """That value; empty without one."""
    return unquote(request.cookies.get(name, ""))


def delete_short_cookie(response: Response, request: Request, name: str) -> Response:
    """Removes that value, if there is one."""
    if name in request.cookies:
        response.delete_cookie(name, path=root_of(request) or "/")
    return response


def show_once(response: Response, request: Request, page: str, text: str) -> Response:
    """Has the next page show a text that is not stored. A reload of that page does not show it again.

    Args:
        page: the path of the page, without a prefix.
    """
    return set_short_cookie(response, request, SHOWN_COOKIE, f"{page} {text}", SHOWN_LIFETIME_S)


def to_show(request: Request, page: str) -> str:
    """That text; empty without one."""
    path, _, text = short_cookie(request, SHOWN_COOKIE).partition(" ")
    return text if path == page else ""


def end_show(response: Response, request: Request, page: str) -> Response:
    """Ends it, once the page was shown."""
    return delete_short_cookie(response, request, SHOWN_COOKIE) if to_show(request, page) else response


def _set_cookie(response: Response, request: Request, name: str, value: str, max_age: int | None) -> None:
    secure = request.url.scheme == "https"
    path = root_of(request) or "/"
    response.set_cookie(name, value, max_age, path=path, httponly=True, samesite="lax", secure=secure)
