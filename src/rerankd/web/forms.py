"""Reads submitted forms, in bounded time and size. Knows no page and no session."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from rerankd.accounts.accounts import Role
from rerankd.errors import InvalidRequest

MAX_FORM_BYTES = 64 * 1024
MAX_FORM_FIELDS = 200
FORM_TIMEOUT_S = 30


class Form:
    """The values of a submitted form. A missing field is empty."""

    def __init__(self, fields: Mapping[str, list[str]] | None = None) -> None:
        self._fields = fields or {}

    def __getitem__(self, name: str) -> str:
        return self._fields.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """The values of all ticked boxes with this name."""
        return self._fields.get(name, [])

    def number(self, name: str) -> int | None:
        """None if the field is empty.

        Raises:
            InvalidRequest: not a whole number.
        """
        text = self[name].strip()
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise InvalidRequest(f"{name.replace('_', ' ').capitalize()}: “{text[:40]}” is not a whole number.")
        return int(text)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refused form. The page shows the problem, and the form as it was submitted."""

    problem: str = ""
    typed: Form = field(default_factory=Form)

    @property
    def status(self) -> int:
        return 400 if self.problem else 200


NO_REFUSAL = Refusal()


def check_repeated(form: Form) -> None:
    """Checks a new password, which was typed twice. Raises InvalidRequest."""
    if form["new"] != form["again"]:
        raise InvalidRequest("The two passwords are not the same.")


def role_of(form: Form) -> Role:
    """The role that a form chooses."""
    return "admin" if form["role"] == "admin" else "user"


async def read_form(request: Request) -> Form:
    """Raises HTTPException for a body that no page of this server submits."""
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
