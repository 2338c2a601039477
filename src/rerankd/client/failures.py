"""The `RemoteError` for each failed attempt. Knows no API and no retry policy."""

from __future__ import annotations

import httpx2

from rerankd.client.errors import (
    RemoteError,
    RemoteRateLimited,
    RemoteRefused,
    RemoteReplyInvalid,
    RemoteTimeout,
    RemoteUnauthorized,
    RemoteUnavailable,
    RemoteUnreachable,
)
from rerankd.client.reply import error_message, request_id
from rerankd.client.retry import is_retryable


def connection_error(name: str, cause: httpx2.HTTPError) -> RemoteError:
    """The error for a request without a response. name: of the server, for the message."""
    reason = str(cause) or type(cause).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        reason += ". If its authority is your own, give its file: Client(verify='ca.pem'), or SSL_CERT_FILE"
    if isinstance(cause, httpx2.TimeoutException) and not isinstance(cause, httpx2.ConnectTimeout):
        error: RemoteError = RemoteTimeout(f"{name} did not answer in time: {reason}")
    elif isinstance(cause, httpx2.DecodingError):
        error = RemoteReplyInvalid(f"{name} answered something else than a ranking: {reason}")
    else:
        error = RemoteUnreachable(f"{name} cannot be reached: {reason}")
    error.__cause__ = cause
    return error


def response_error(name: str, response: httpx2.Response, retry_after_s: float | None) -> RemoteError:
    """The error for a response without success."""
    status = response.status_code
    reason = error_message(response)
    if response.has_redirect_location:
        reason = f"it redirects to {_target(response)}: give that address"
    message, request = f"{name} answered {status}: {reason}", request_id(response)
    if status == 429 and is_retryable(response):
        return RemoteRateLimited(message, status, request, retry_after_s)
    if status >= 500 or is_retryable(response):
        return RemoteUnavailable(message, status, request, retry_after_s)
    if status in (401, 403):
        return RemoteUnauthorized(message, status, request)
    kind = RemoteRefused if status >= 400 else RemoteReplyInvalid
    return kind(message, status, request)


def reply_error(name: str, response: httpx2.Response, reason: ValueError) -> RemoteReplyInvalid:
    """The error for a successful response that is no ranking."""
    message = f"{name} answered something else than a ranking ({reason}): {error_message(response)}"
    return RemoteReplyInvalid(message, response.status_code, request_id(response))


def _target(response: httpx2.Response) -> str:
    target = response.headers["location"]
    try:
        return without_secrets(response.url.join(target))
    except httpx2.InvalidURL:
        return repr(target)


def without_secrets(url: httpx2.URL) -> str:
    """The address without user, password and query."""
    return str(url.copy_with(userinfo=b"", query=None))
