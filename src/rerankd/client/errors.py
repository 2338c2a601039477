"""The errors of `Client` and `AsyncClient`. Standard library only: catching one of them loads no HTTP library.

RerankdError
└── RemoteError                  the server sent no ranking
    ├── RemoteUnreachable        the connection failed or broke
    │   └── RemoteTimeout        the server did not answer in time
    ├── RemoteRefused            the server found a mistake in the request
    │   ├── RemoteUnauthorized   the key is missing, invalid, or not allowed to make this call
    │   ├── RemoteOutOfCredit    the account cannot pay for the call
    │   └── RemoteModelNotFound  the server has no such model, or no such path
    ├── RemoteUnavailable        the server cannot answer now: has `retry_after_s`
    │   └── RemoteRateLimited    the caller is over its rate limit
    └── RemoteReplyInvalid       the reply is not a ranking
"""

from __future__ import annotations

from rerankd.errors import RerankdError


class RemoteError(RerankdError):
    """The server sent no ranking. The message ends with the server's own words.

    Attributes:
        status: the HTTP status, None without a response.
        request_id: the server's id of the request, if it sent one.
        reason: the message without the server's address; the server's own words, where it answered.
    """

    def __init__(
        self, message: str, status: int | None = None, request_id: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id
        self.reason = message if reason is None else reason


class RemoteUnreachable(RemoteError):
    """The connection failed, or broke before the response."""


class RemoteTimeout(RemoteUnreachable):
    """The server did not answer in time."""


class RemoteRefused(RemoteError):
    """The server found a mistake in the request."""


class RemoteUnauthorized(RemoteRefused):
    """The key is missing, invalid, or not allowed to make this call."""


class RemoteOutOfCredit(RemoteRefused):
    """The account cannot pay for the call, or has used up its quota: a later attempt fails as well."""


class RemoteModelNotFound(RemoteRefused):
    """The server has no such model, or no such path (404)."""


class RemoteUnavailable(RemoteError):
    """The server cannot answer now, and the retries failed as well.

    Attributes:
        retry_after_s: the server's `Retry-After`, None if it sent none.
    """

    def __init__(
        self,
        message: str,
        status: int,
        request_id: str | None,
        retry_after_s: float | None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, status, request_id, reason)
        self.retry_after_s = retry_after_s


class RemoteRateLimited(RemoteUnavailable):
    """The caller is over its rate limit."""


class RemoteReplyInvalid(RemoteError):
    """The reply is not a ranking."""
