"""The meaning of a failed attempt: for the upstream, for the next attempt, and for the caller. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from rerankd.client.errors import (
    RemoteError,
    RemoteRateLimited,
    RemoteRefused,
    RemoteReplyInvalid,
    RemoteTimeout,
    RemoteUnavailable,
    RemoteUnreachable,
)
from rerankd.errors import Busy, InvalidRequest, NothingInTime, Stopping

Kind = Literal["unreachable", "timeout", "error", "invalid_reply", "full", "refused", "caller", "loop"]
"""unreachable, timeout, error, invalid_reply: failures. full: asks to come later. refused: our key, bill or model.
caller: the caller's mistake. loop: the call came back to a server that had passed it on."""

KINDS: tuple[Kind, ...] = (*("unreachable", "timeout", "error", "invalid_reply", "full", "refused", "caller", "loop"),)

FAILURES: frozenset[Kind] = frozenset({"unreachable", "timeout", "error", "invalid_reply"})

WORDS: Mapping[Kind, str] = {
    "unreachable": "cannot be reached",
    "timeout": "did not answer in time",
    "error": "answered with an error of its own",
    "invalid_reply": "did not answer with a ranking",
    "full": "is full",
    "refused": "refused this server's key, credit or model name",
}
"""For a caller: which kind, never the upstream's address or words."""

CALLERS_STATUSES = frozenset({400, 413, 422})

FAILURE_STATUSES = frozenset({424, 499})
"""A failure of its own despite the status: TEI's model failed; a proxy before it gave up. One text that makes a
model fail must not close a server for all callers, as a refusal of our key does."""

NOT_FULL = re.compile(r"arrearage|insufficient.?(quota|balance)", re.IGNORECASE)

ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]*://\S+"
    r"|\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b"
    r"|\b(localhost|[\w-]+(\.[\w-]+)+):\d{2,5}\b",
    re.IGNORECASE,
)

KEY = re.compile(
    r"(bearer\s+)?\b(sk|pa|jina|gsk|hf|key|api)[-_][\w-]{6,}|\b[A-Za-z0-9_+/=-]{32,}|[\w-]*\*{3,}[\w-]*",
    re.IGNORECASE,
)
"""Texts that look like a key, whole or masked."""


def kind_of(error: Exception) -> Kind:
    """The meaning of an attempt's error."""
    kinds: tuple[tuple[bool, Kind], ...] = (
        (isinstance(error, TimeoutError | RemoteTimeout) or _scored_nothing(error), "timeout"),
        (isinstance(error, RemoteUnreachable), "unreachable"),
        (isinstance(error, RemoteReplyInvalid), "invalid_reply"),
        (isinstance(error, InvalidRequest), "caller"),
        (isinstance(error, Busy | Stopping), "full"),
        (not isinstance(error, RemoteError), "error"),
    )
    return next((kind for is_it, kind in kinds if is_it), None) or _kind_of_reply(error)


def _scored_nothing(error: Exception) -> bool:
    """Whether the caller's deadline was too short for it: it is not full for others."""
    said = isinstance(error, RemoteUnavailable) and NothingInTime.MESSAGE in error.reason
    return said or isinstance(error, NothingInTime)


def _kind_of_reply(error: Exception) -> Kind:
    assert isinstance(error, RemoteError)
    if error.status == 508:
        return "loop"
    if isinstance(error, RemoteRateLimited):
        return "refused" if NOT_FULL.search(str(error)) else "full"
    if isinstance(error, RemoteUnavailable):
        return "full" if error.status == 503 else "error"
    if error.status in FAILURE_STATUSES or (error.status == 403 and type(error) is RemoteRefused):
        return "error"  # 403 without a reason of the API's: a firewall before it refused this text
    if isinstance(error, RemoteRefused) and error.status in CALLERS_STATUSES and type(error) is RemoteRefused:
        return "refused" if NOT_FULL.search(str(error)) else "caller"
    return "refused"


def wanted_pause_s(error: Exception) -> float | None:
    """The seconds after which an upstream that is full wants to be asked again; None if it does not say."""
    if isinstance(error, RemoteUnavailable | Busy):
        return error.retry_after_s
    return None


def words_for_caller(error: Exception, hidden: Collection[str] = ()) -> str:
    """An upstream's words about a text, without addresses and without what looks like a key.

    Args:
        hidden: further texts that must not be in it.
    """
    text = getattr(error, "reason", None) or re.sub(r"^.*? answered \d{3}: ", "", str(error), count=1)
    for secret in filter(None, hidden):
        text = text.replace(secret, "***")
    return KEY.sub("***", ADDRESS.sub("…", text))


def short_error(error: Exception) -> str:
    """For the log and the page of the administrators: the kind, the status, and no words of the upstream's."""
    status = getattr(error, "status", None)
    return f"{kind_of(error)} ({type(error).__name__}{f', {status}' if status else ''})"
