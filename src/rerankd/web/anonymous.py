"""Pages and forms of visitors who are not signed in yet, and the session that they end with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.sessions import Sessions
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.web.cookies import form_token, set_form_token, set_session
from rerankd.web.formatting import duration
from rerankd.web.forms import Form
from rerankd.web.pages import Page, Pages

KEPT_INVITATION = "/join?kept"
"""Shows the invitation that the browser keeps."""

LINKED = "/account?done=linked"
"""Says that the provider is linked."""

AFTER_SIGN_IN = (
    *("/", "/keys", "/usage", "/statement", "/calls", "/account", "/account/email", "/members"),
    *("/admin", "/admin/server", KEPT_INVITATION, LINKED),
)
"""Where a sign-in may redirect to: never to another site."""


@dataclass(frozen=True, slots=True)
class AnonymousPage(Page):
    """A page with a form for visitors without a session."""

    csrf: str
    typed: Form
    problem: str


PageMaker = Callable[[str, Form, str], AnonymousPage]
"""Makes a page from a CSRF token, the form as it was submitted, and the problem."""


class AnonymousPages:
    """Shows such pages, and opens sessions."""

    def __init__(self, pages: Pages, sessions: Sessions) -> None:
        self._pages = pages
        self._sessions = sessions

    def show(self, page: PageMaker, request: Request, form: Form, problem: str = "", status: int = 200) -> Response:
        """A page, with the form as it was submitted."""
        token = form_token(request)
        response = self._pages.render(page(token, form, problem), request, status=status)
        return set_form_token(response, request, token)

    def too_many(self, page: PageMaker, request: Request, form: Form, wait: int) -> Response:
        """The page after too many attempts. wait: seconds."""
        response = self.show(page, request, form, f"Too many attempts. Try again in {duration(wait)}.", 429)
        response.headers["retry-after"] = str(wait)
        return response

    def open_session(self, request: Request, account_id: int, path: str) -> Response:
        """Signs the browser in, ends its session before, and leads to a page."""
        if before := request.cookies.get(SESSION_COOKIE):
            self._sessions.close(before)
        return set_session(RedirectResponse(path, 303), request, self._sessions.open(account_id))


def after_sign_in(path: str) -> str:
    """The page of ours that a sign-in leads to; for any other address the first page."""
    return path if path in AFTER_SIGN_IN else "/"


def address_of(request: Request) -> str:
    """The visitor's network address."""
    return request.client.host if request.client else ""
