"""Who looks at a page: sessions, forms, and what protects both."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any, Protocol
from urllib.parse import parse_qs, urlencode

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.accounts import Role
from rerankd.accounts.sessions import SESSION_LIFETIME, Session, Sessions
from rerankd.errors import InvalidRequest, Unavailable
from rerankd.web.pages import Pages, root_of

SESSION_COOKIE = "rerankd-session"
FORM_COOKIE = "rerankd-form"
"""What the forms of those carry who are not signed in."""

MAX_FORM_BYTES = 64 * 1024
MAX_FORM_FIELDS = 200
FORM_TIMEOUT_S = 30

PASSWORDS_AT_ONCE = 2
"""Hashing one takes 64 MiB and much of a core."""


class Form:
    """What was typed into a form. A field that is missing is empty."""

    def __init__(self, fields: Mapping[str, list[str]] | None = None) -> None:
        self._fields = fields or {}

    def __getitem__(self, name: str) -> str:
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Of boxes with one name, those that are ticked."""
        return self._fields.get(name, [])

    def number(self, name: str) -> int | None:
        """None where it is empty.

        Raises:
            InvalidRequest: not a whole number.
        """
        text = self[name].strip()
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InvalidRequest(f"{name.replace('_', ' ').capitalize()}: “{text[:40]}” is not a whole number.")
        return int(text)


class Show(Protocol):
    """A page for somebody who is signed in. `told`: what it says beside its usual content; `status`: of HTTP."""

    def __call__(self, request: Request, session: Session, /, **told: Any) -> Response: ...


Act = Callable[[Request, Session, Form], Response]


class Visitors:
    """The doors to the pages of one person or of administrators.

    Every page is shown, and every form is read, on a thread: both ask the database.
    """

    def __init__(self, sessions: Sessions, pages: Pages) -> None:
        self._sessions = sessions
        self._pages = pages
        self._hashing = CapacityLimiter(PASSWORDS_AT_ONCE)

    def session(self, request: Request) -> Session | None:
        """Who is signed in, if anybody."""
        token = request.cookies.get(SESSION_COOKIE)
        return self._sessions.find(token) if token else None

    def glance(self, request: Request) -> Session | None:
        """The same for pages that everybody may see, which are shown even when the database does not answer."""
        try:
            return self.session(request)
        except Unavailable:
            return None

    def show(self, router: APIRouter, path: str, page: Show, *, role: Role = "user") -> None:
        """A page for the signed in, or for administrators only."""

        def guarded(request: Request) -> Response:
            return self._guarded(request, role, lambda session: page(request, session))

        router.add_api_route(path, guarded, methods=["GET"], response_model=None)

    def act(
        self, router: APIRouter, path: str, act: Act, back: Show, *, role: Role = "user", hashes: bool = False
    ) -> None:
        """What the signed in, or administrators only, may do with a form.

        Args:
            back: the page with the form, shown again when the form is refused.
            hashes: passwords are checked or set.
        """

        def guarded(request: Request, form: Form) -> Response:
            def checked(session: Session) -> Response:
                if not compare_digest(form["csrf"].encode(), session.csrf.encode()):
                    return self.refused(request, session=session)
                try:
                    return act(request, session, form)
                except InvalidRequest as error:
                    return back(request, session, problem=str(error), typed=form, status=400)

            return self._guarded(request, role, checked)

        self._post(router, path, guarded, hashes)

    def act_anonymously(self, router: APIRouter, path: str, act: Callable[[Request, Form], Response]) -> None:
        """The same for those who are not signed in: they hold a token in a cookie, and send it in the form."""

        def guarded(request: Request, form: Form) -> Response:
            held = request.cookies.get(FORM_COOKIE, "")
            if not held or not compare_digest(form["csrf"].encode(), held.encode()):
                return self.refused(request)
            try:
                return act(request, form)
            except Unavailable as error:
                return self._unavailable(request, error)

        self._post(router, path, guarded, hashes=True)

    def refused(self, request: Request, session: Session | None = None) -> Response:
        """For a form that did not come from our page, or from one that is too old."""
        problem = "This form is too old, or it was not sent from this server's own page. Go back, and send it again."
        return self._pages.render("problem.html", request, 403, session=session, problem=problem)

    def _guarded(self, request: Request, role: Role, then: Callable[[Session], Response]) -> Response:
        try:
            session = self.session(request)
            if session is None:
                after = {"next": request.url.path.removeprefix(root_of(request))} if request.method == "GET" else {}
                return RedirectResponse(f"/sign-in?{urlencode(after)}".rstrip("?"), 303)
            if role == "admin" and session.account.role != "admin":
                problem = "This page is for administrators."
                return self._pages.render("problem.html", request, 403, session=session, problem=problem)
            return then(session)
        except Unavailable as error:
            return self._unavailable(request, error)

    def _unavailable(self, request: Request, error: Unavailable) -> Response:
        response = self._pages.render("problem.html", request, 503, session=None, problem=str(error))
        response.headers["retry-after"] = str(error.retry_after_s)
        return response

    def _post(self, router: APIRouter, path: str, act: Callable[[Request, Form], Response], hashes: bool) -> None:
        async def endpoint(request: Request) -> Response:
            if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return await to_thread.run_sync(self.refused, request)
            form = await _read(request)
            return await to_thread.run_sync(act, request, form, limiter=self._hashing if hashes else None)

        router.add_api_route(path, endpoint, methods=["POST"], response_model=None)


async def _read(request: Request) -> Form:
    """Raises HTTPException for what no form of ours sends."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A form is expected.")
    raw = bytearray()
    try:
        async with asyncio.timeout(FORM_TIMEOUT_S):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > MAX_FORM_BYTES:
                    raise HTTPException(413, "The form is too large.", {"connection": "close"})
    except (ClientDisconnect, TimeoutError):
        raise HTTPException(408, "The form did not arrive.", {"connection": "close"}) from None
    try:
        return Form(parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError:  # also of decode
        raise HTTPException(400, "The form cannot be read.") from None


def set_session(response: Response, request: Request, token: str) -> Response:
    """Signs the browser in."""
    _set_cookie(response, request, SESSION_COOKIE, token, int(SESSION_LIFETIME.total_seconds()))
    return response


def form_token(request: Request) -> str:
    """What the forms on a page for somebody who is not signed in carry."""
    return request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)


def keep_form_token(response: Response, request: Request, token: str) -> Response:
    """Has the browser hold that token."""
    if request.cookies.get(FORM_COOKIE) != token:
        _set_cookie(response, request, FORM_COOKIE, token, None)
    return response


def _set_cookie(response: Response, request: Request, name: str, value: str, max_age: int | None) -> None:
    secure = request.url.scheme == "https"
    path = root_of(request) or "/"
    response.set_cookie(name, value, max_age, path=path, httponly=True, samesite="lax", secure=secure)
