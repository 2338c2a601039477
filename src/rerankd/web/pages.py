"""Templates and files → responses, with the headers that keep a page to itself."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from rerankd.version import __version__
from rerankd.web import words

SECURITY = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Pages:
    """Renders the templates of this package.

    Args:
        shared: what every template sees.
        private: whether the pages hold what belongs to one person.
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
        self._environment.filters.update(words.FILTERS)
        self._headers = {**SECURITY, "cache-control": "no-store" if private else "no-cache"}

    def render(self, template: str, request: Request, status: int = 200, **values: Any) -> Response:
        """One page."""
        where = {"path": request.url.path, "root": root_of(request)}
        html = self._environment.get_template(template).render(**where, **values)
        return HTMLResponse(html, status, self._headers)

    def guard(self, response: Response) -> Response:
        """Another response with the same headers."""
        response.headers.update(self._headers)
        return response


def root_of(request: Request) -> str:
    """The path under which a proxy serves us: what goes before every link, and what a cookie is for."""
    root: str = request.scope.get("root_path", "")
    return root


@cache
def _files() -> Mapping[str, tuple[bytes, str]]:
    """The content and the tag of each static file, by the names in the package, so that no path leads out."""
    found = (file for file in files("rerankd.web").joinpath("static").iterdir() if file.is_file())
    contents = {file.name: file.read_bytes() for file in found}
    return {name: (content, f'"{hashlib.sha256(content).hexdigest()[:32]}"') for name, content in contents.items()}


def static_file(name: str, request: Request) -> Response:
    """A style sheet, script or picture. Browsers keep it, and ask each time whether it is still the same."""
    found = _files().get(name)
    if found is None:
        return Response("There is no such file.", 404, SECURITY, "text/plain")
    content, tag = found
    headers = {**SECURITY, "etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    return Response(content, 200, headers, mimetypes.guess_type(name)[0])
