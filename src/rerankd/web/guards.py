"""Access to pages and forms: sessions, roles, and CSRF protection."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import Literal, Protocol
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.memberships import Right
from rerankd.accounts.sessions import Session, Sessions
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.errors import InvalidRequest, Unavailable
from rerankd.web.cookies import FORM_COOKIE
from rerankd.web.forms import NO_REFUSAL, Form, Refusal, read_form
from rerankd.web.pages import Pages, ProblemPage, root_of

Access = Right | Literal["admin"]
"""Who may use a route: people with this role in their account or a higher one, or administrators of the server."""

HASHES_AT_ONCE = 2
"""Hashing a password takes 64 MiB and much of a core."""


class PageHandler(Protocol):
    """Shows a page to a signed-in account, or shows it again after its form was refused."""

    def __call__(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response: ...


FormHandler = Callable[[Request, Session, Form], Response]
AnonymousHandler = Callable[[Request], Response]
AnonymousFormHandler = Callable[[Request, Form], Response]


class _Denied(Exception):
    """The visitor may not do this. Carries the response."""

    def __init__(self, response: Response) -> None:
        self.response = response


class Guards:
    """Adds routes that check who calls them. Handlers run on threads, since they query the database.

    Attributes:
        hashing: the limiter for forms whose handler hashes a password.
    """

    def __init__(self, sessions: Sessions, pages: Pages) -> None:
        self._sessions = sessions
        self._pages = pages
        self.hashing = CapacityLimiter(HASHES_AT_ONCE)

    def page(self, router: APIRouter, path: str, handler: PageHandler, access: Access = "viewer") -> None:
        """Adds a page. A new one is for everybody who is signed in, unless it says otherwise."""

        def endpoint(request: Request) -> Response:
            return self._show(request, handler, access)

        router.add_api_route(path, endpoint, methods=["GET"], response_model=None)

    def form(
        self,
        router: APIRouter,
        path: str,
        handler: FormHandler,
        page: PageHandler,
        access: Access = "owner",
        limiter: CapacityLimiter | None = None,
    ) -> None:
        """Adds a form. A new one is for the owners of an account only, unless it says otherwise.

        Args:
            page: shows the form again if it is refused.
            limiter: limits how many handlers run at once.
        """

        async def endpoint(request: Request) -> Response:
            return await self._receive(
                request, lambda form: self._submit(request, form, handler, page, access), limiter
            )

        router.add_api_route(path, endpoint, methods=["POST"], response_model=None)

    def anonymous_form(self, router: APIRouter, path: str, handler: AnonymousFormHandler) -> None:
        """Adds a form for visitors without a session. Its handler hashes a password."""

        async def endpoint(request: Request) -> Response:
            return await self._receive(
                request, lambda form: self._submit_anonymously(request, form, handler), self.hashing
            )

        router.add_api_route(path, endpoint, methods=["POST"], response_model=None)

    def anonymous_page(
        self, router: APIRouter, path: str, handler: AnonymousHandler, limiter: CapacityLimiter | None = None
    ) -> None:
        """Adds a page for visitors without a session. limiter: limits how many handlers run at once."""

        async def endpoint(request: Request) -> Response:
            return await to_thread.run_sync(self._show_anonymously, request, handler, limiter=limiter)

        router.add_api_route(path, endpoint, methods=["GET"], response_model=None)

    def session(self, request: Request) -> Session | None:
        """The session of a signed-in visitor."""
        token = request.cookies.get(SESSION_COOKIE)
        return self._sessions.find(token) if token else None

    def session_or_none(self, request: Request) -> Session | None:
        """The same for public pages, which are shown even while the database does not answer."""
        try:
            return self.session(request)
        except Unavailable:
            return None

    def _show(self, request: Request, handler: PageHandler, access: Access) -> Response:
        try:
            return handler(request, self._authorize(request, access))
        except _Denied as denied:
            return denied.response
        except Unavailable as error:
            return self._unavailable(request, error)

    def _show_anonymously(self, request: Request, handler: AnonymousHandler) -> Response:
        try:
            return handler(request)
        except Unavailable as error:
            return self._unavailable(request, error)

    async def _receive(
        self, request: Request, submit: Callable[[Form], Response], limiter: CapacityLimiter | None
    ) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return await to_thread.run_sync(self._forged, request, None)
        form = await read_form(request)
        return await to_thread.run_sync(submit, form, limiter=limiter)

    def _submit(
        self, request: Request, form: Form, handler: FormHandler, page: PageHandler, access: Access
    ) -> Response:
        try:
            session = self._authorize(request, access)
            if not compare_digest(form["csrf"].encode(), session.csrf.encode()):
                return self._forged(request, session)
            try:
                return handler(request, session, form)
            except InvalidRequest as error:
                return page(request, session, Refusal(str(error), form))
        except _Denied as denied:
            return denied.response
        except Unavailable as error:
            return self._unavailable(request, error)

    def _submit_anonymously(self, request: Request, form: Form, handler: AnonymousFormHandler) -> Response:
        token = request.cookies.get(FORM_COOKIE, "")
        if not token or not compare_digest(form["csrf"].encode(), token.encode()):
            return self._forged(request, None)
        try:
            return handler(request, form)
        except Unavailable as error:
            return self._unavailable(request, error)

    def _authorize(self, request: Request, access: Access) -> Session:
        """Raises _Denied."""
        session = self.session(request)
        if session is None:
            after = {"next": request.url.path.removeprefix(root_of(request))} if request.method == "GET" else {}
            raise _Denied(RedirectResponse(f"/sign-in?{urlencode(after)}".rstrip("?"), 303))
        if refused := _refused(session, access):
            raise _Denied(self._pages.render(ProblemPage(refused), request, session, 403))
        return session

    def _forged(self, request: Request, session: Session | None) -> Response:
        """For a form that was not submitted from our page, or from one that is too old."""
        page = ProblemPage(
            "This form is too old, or it was not sent from this server's own page. Go back, reload, and send it again."
        )
        return self._pages.render(page, request, session, 403)

    def _unavailable(self, request: Request, error: Unavailable) -> Response:
        response = self._pages.render(ProblemPage(str(error)), request, None, 503)
        response.headers["retry-after"] = str(error.retry_after_s)
        return response


def _refused(session: Session, access: Access) -> str:
    """Why a person may not use a route; empty if the person may."""
    if access == "admin":
        return "" if session.account.role == "admin" else "This page is for administrators."
    if session.may(access):
        return ""
    who = "an owner" if access == "owner" else "a member or an owner"
    return f"Your role in this account is {session.role}: only {who} may do this."
