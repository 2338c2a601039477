"""What another server can do instead of sending a ranking.

    RerankdError
    └── RemoteError                  another server gave no ranking
        ├── RemoteUnreachable        it cannot be connected to, or hung up
        │   └── RemoteTimeout        it did not answer in time
        ├── RemoteRefused            it found a mistake in the request
        │   └── RemoteUnauthorized   no key, a wrong one, or one that may not do this
        ├── RemoteUnavailable        it cannot answer now: carries `retry_after_s`
        │   └── RemoteRateLimited    this caller sent more than its share
        └── RemoteReplyInvalid       it answered something else than a ranking

Standard library only: catching one of them loads no HTTP library.
"""

from __future__ import annotations

from rerankd.errors import RerankdError


class RemoteError(RerankdError):
    """Another server gave no ranking; the message ends in its own words.

    `status` is the HTTP status, None where there was no answer; `request_id` its name for the request, if it gave one.
    """

    def __init__(self, message: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class RemoteUnreachable(RemoteError):
    """The server cannot be connected to, or hung up before it answered."""


class RemoteTimeout(RemoteUnreachable):
    """The server did not answer in time."""


class RemoteRefused(RemoteError):
    """The server found a mistake in the request."""


class RemoteUnauthorized(RemoteRefused):
    """No key, a wrong one, or one that may not do this."""


class RemoteUnavailable(RemoteError):
    """The server cannot answer now, and could not when it was asked again.

    `retry_after_s`: seconds after which it wants to be asked, None if it does not say.
    """

    def __init__(self, message: str, status: int, request_id: str | None, retry_after_s: float | None) -> None:
        super().__init__(message, status, request_id)
        self.retry_after_s = retry_after_s


class RemoteRateLimited(RemoteUnavailable):
    """This caller sent more than the server allows it."""


class RemoteReplyInvalid(RemoteError):
    """The server answered something else than a ranking."""
