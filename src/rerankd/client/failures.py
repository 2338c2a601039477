"""The `RemoteError` for each failed attempt. Knows no API and no retry policy."""

from __future__ import annotations

import re

import httpx2

from rerankd.client.errors import (
    RemoteError,
    RemoteModelNotFound,
    RemoteOutOfCredit,
    RemoteRateLimited,
    RemoteRefused,
    RemoteReplyInvalid,
    RemoteTimeout,
    RemoteUnauthorized,
    RemoteUnavailable,
    RemoteUnreachable,
)
from rerankd.client.reply import error_codes, error_message, is_page, request_id
from rerankd.client.retry import is_retryable

NO_CREDIT_CODES = frozenset({"arrearage", "insufficient_quota", "authz_insufficient_balance"})
"""Codes and types of errors, in lower case, of DashScope, OpenAI's API and Jina, whatever the status is."""

NO_MODEL_CODES = frozenset({"modelnotfound", "model_not_found"})

TOO_MUCH = re.compile(
    r"batch size|request entity|payload|\bbody\b.*\b(large|bytes|MB)\b|request has \d+ tokens|total (number of )?tokens"
    r"|\b(too many|at most|maximum|max|limit|exceeds?|up to|1 to)\b.{0,40}\b(documents|texts|items|passages|pairs)\b"
    r"|\b(documents|texts|items|passages|pairs)\b.{0,60}\b(at most|maximum|max|limit|exceeds?|less than|allowed)\b",
    re.IGNORECASE,
)
"""Words about a request as a whole, for which half of its documents may be few enough."""

TOO_LONG = re.compile(
    r"context (length|window)|max_model_len|\btoo long\b|must have less than \d+ tokens|has at least \d+ tokens"
    r"|tokens.{0,40}\b(exceeds?|limit|maximum)\b|\b(exceeds?|longer than)\b.{0,40}tokens",
    re.IGNORECASE,
)
"""Words about one text."""

REFUSALS = frozenset({400, 413, 422})


def as_http_error(error: httpx2.HTTPError | AttributeError) -> httpx2.HTTPError:
    """The error of a request, where uvloop has lost its connection while it was made: anyio reads the address of a
    socket that is gone. Raises any other AttributeError again.
    """
    if isinstance(error, httpx2.HTTPError):
        return error
    if (error.name, error.obj) != ("getpeername", None):
        raise error
    return httpx2.ConnectError("The connection was reset while it was made.")


def connection_error(name: str, cause: httpx2.HTTPError) -> RemoteError:
    """The error for a request without a response. name: of the server, for the message."""
    reason = str(cause) or type(cause).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        reason += ". If its authority is your own, give its file: Client(verify='ca.pem'), or SSL_CERT_FILE"
    if isinstance(cause, httpx2.TimeoutException) and not isinstance(cause, httpx2.ConnectTimeout):
        error: RemoteError = RemoteTimeout(f"{name} did not answer in time: {reason}", reason=reason)
    elif isinstance(cause, httpx2.DecodingError):
        error = RemoteReplyInvalid(f"{name} did not answer with a ranking: {reason}", reason=reason)
    else:
        error = RemoteUnreachable(f"{name} cannot be reached: {reason}", reason=reason)
    error.__cause__ = cause
    return error


def response_error(name: str, response: httpx2.Response, retry_after_s: float | None) -> RemoteError:
    """The error for a response without success."""
    status = response.status_code
    reason = error_message(response)
    if response.has_redirect_location:
        reason = f"it redirects to {_target(response)}: give that address"
    message, request = f"{name} answered {status}: {reason}", request_id(response)
    if refused := _refusal(response):
        return refused(message, status, request, reason)
    if status == 429:
        return RemoteRateLimited(message, status, request, retry_after_s, reason)
    if status >= 500 or is_retryable(response):
        return RemoteUnavailable(message, status, request, retry_after_s, reason)
    kind = RemoteRefused if status >= 400 else RemoteReplyInvalid
    return kind(message, status, request, reason)


def _refusal(response: httpx2.Response) -> type[RemoteRefused] | None:
    """The kind of refusal that the status or the error's code names."""
    status, codes = response.status_code, error_codes(response)
    if not 400 <= status < 500:
        return None
    if status == 402 or codes & NO_CREDIT_CODES or (status == 429 and not is_retryable(response)):
        return RemoteOutOfCredit
    if status == 401 or (status == 403 and not is_page(response)):
        return RemoteUnauthorized
    return RemoteModelNotFound if status == 404 or codes & NO_MODEL_CODES else None


def reply_error(name: str, response: httpx2.Response, reason: ValueError) -> RemoteReplyInvalid:
    """The error for a successful response that is not a ranking."""
    message = f"{name} did not answer with a ranking ({reason}): {error_message(response)}"
    return RemoteReplyInvalid(message, response.status_code, request_id(response), str(reason))


def _target(response: httpx2.Response) -> str:
    target = response.headers["location"]
    try:
        return without_secrets(response.url.join(target))
    except httpx2.InvalidURL:
        return repr(target)


def is_too_much(error: RemoteError) -> bool:
    """Whether a server refused the number of documents of a request, or its size as a whole."""
    return _is_refusal(error) and TOO_MUCH.search(error.reason) is not None


def is_too_long(error: RemoteError) -> bool:
    """Whether a server refused a text as longer than its model reads."""
    return _is_refusal(error) and TOO_LONG.search(error.reason) is not None


def _is_refusal(error: RemoteError) -> bool:
    return type(error) is RemoteRefused and error.status in REFUSALS


def without_secrets(url: httpx2.URL) -> str:
    """The address without user, password and query."""
    return str(url.copy_with(userinfo=b"", query=None))
