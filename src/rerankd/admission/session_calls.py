"""Calls of the playground by a visitor who is signed in: which of them a browser may send, and for which session.

The cookie of the session is not enough: a browser sends it for the scripts of every page. Only a page of this server
knows the token of its session, and only a page of this origin may send it in a header.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

SESSION_COOKIE = "rerankd-session"

CSRF_HEADER = "x-rerankd-csrf"


def session_of_call(request: Request) -> tuple[str, str] | None:
    """(the session's secret, the token of its pages), as a call without a key sends them.

    Returns:
        None for a call that a page of this server did not send: not a POST, no cookie, no token, or of another origin.
    """
    secret, token = request.cookies.get(SESSION_COOKIE), request.headers.get(CSRF_HEADER)
    if request.method != "POST" or not secret or not token or not _is_of_our_origin(request):
        return None
    return secret, token


def _is_of_our_origin(request: Request) -> bool:
    """By Sec-Fetch-Site, which browsers send over https and to this machine; elsewhere by Origin."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
