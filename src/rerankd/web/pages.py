"""Renders pages and static files as responses, with the headers that isolate a page."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from rerankd.version import __version__
from rerankd.web.formatting import FILTERS

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.sessions import Session

SECURITY = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Page:
    """The variables of one template: a subclass for each."""

    template: ClassVar[str]


@dataclass(frozen=True, slots=True)
class ProblemPage(Page):
    """Says why a page cannot be shown."""

    template: ClassVar[str] = "problem.html"
    problem: str


class Pages:
    """Renders the templates of this package.

    Args:
        shared: variables of every template.
        private: whether pages hold personal data, so that no cache may store them.
    """

    def __init__(self, shared: Mapping[str, Any], *, private: bool) -> None:
        self._environment = Environment(
            loader=PackageLoader("rerankd.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update({**shared, "version": __version__})
        self._environment.filters.update(FILTERS)
        self._headers = {**SECURITY, "cache-control": "no-store" if private else "no-cache"}

    def render(self, page: Page, request: Request, session: Session | None = None, status: int = 200) -> Response:
        """One page. session: of the signed-in visitor."""
        values = {one.name: getattr(page, one.name) for one in fields(page)}
        html = self._environment.get_template(page.template).render(
            path=request.url.path,
            root=root_of(request),
            static=partial(static_url, root_of(request)),
            session=session,
            **values,
        )
        return HTMLResponse(html, status, self._headers)

    def csv(self, text: str | Iterator[str], name: str) -> Response:
        """A CSV file for a download, whole or in parts. name: of the file."""
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        kind = "text/csv; charset=utf-8"
        if isinstance(text, str):
            return self.guard(Response(text, 200, headers, kind))
        return self.guard(StreamingResponse(text, 200, headers, kind))

    def guard(self, response: Response) -> Response:
        """Adds the pages' headers to another response."""
        response.headers.update(self._headers)
        return response


def root_of(request: Request) -> str:
    """The path prefix under which a proxy serves us: the start of every link, and the path of cookies."""
    root: str = request.scope.get("root_path", "")
    return root


@cache
def _files() -> Mapping[str, tuple[bytes, str]]:
    """The content and ETag of each static file, by name: only listed names are served, so no path leads out."""
    found = (file for file in files("rerankd.web").joinpath("static").iterdir() if file.is_file())
    contents = {file.name: file.read_bytes() for file in found}
    return {name: (content, f'"{hashlib.sha256(content).hexdigest()[:32]}"') for name, content in contents.items()}


@cache
def _tag() -> str:
    """Changes with the content of any static file."""
    return hashlib.sha256("".join(tag for _, tag in _files().values()).encode()).hexdigest()[:12]


def static_url(root: str, name: str) -> str:
    """The address of a static file, which browsers keep: it changes with the files."""
    assert name in _files(), f"This is a bug: there is no static file {name}."
    return f"{root}/static/{_tag()}/{name}"


def static_file(name: str, request: Request, tag: str | None = None) -> Response:
    """A style sheet, script or picture. Browsers keep it under its tag; else they revalidate it on each use."""
    found = _files().get(name)
    if found is None:
        return Response("There is no such file.", 404, SECURITY, "text/plain")
    content, etag = found
    kept = "public, max-age=31536000, immutable" if tag == _tag() else "no-cache"
    headers = {**SECURITY, "etag": etag, "cache-control": kept}
    if request.headers.get("if-none-match") == etag:
        return Response(None, 304, headers)
    return Response(content, 200, headers, mimetypes.guess_type(name)[0])
