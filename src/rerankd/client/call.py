"""One rerank call without its input and output: the requests it takes, what each outcome means, and their sum.

`Client` and `AsyncClient` send what this plans and ask it what to do next; they decide nothing themselves.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import httpx

from rerankd.client.dialects import DIALECTS, DialectName, endpoint, num_tokens_about
from rerankd.client.ranking import RemoteRanking, RemoteScore, RemoteUsage
from rerankd.client.reply import Reply, error_message, read_reply, request_id
from rerankd.client.retry import LONGEST_WAIT_S, is_broken_connection, is_passing, retry_after_s, wait_s
from rerankd.errors import (
    InvalidRequest,
    RemoteError,
    RemoteRateLimited,
    RemoteRefused,
    RemoteReplyInvalid,
    RemoteTimeout,
    RemoteUnauthorized,
    RemoteUnavailable,
    RemoteUnreachable,
    SettingsError,
)
from rerankd.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked. top_n: >= 1, None for all; instruct, model: None for the server's own."""

    query: str
    documents: Sequence[str]
    top_n: int | None
    instruct: str | None
    with_documents: bool
    model: str | None

    def __post_init__(self) -> None:
        if isinstance(self.documents, str):
            raise InvalidRequest("The documents are one string: send a list of strings.")
        if not self.documents:
            raise InvalidRequest("There are no documents: send at least one.")
        if self.top_n is not None and self.top_n < 1:
            raise InvalidRequest(f"top_n must be at least 1, or left out for all; it is {self.top_n}.")


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a call's documents, as many as go into one request; content: the request's body."""

    start: int
    num_documents: int
    content: bytes


class Endpoint:
    """A server, how it is asked, and what its answers mean.

    Args:
        base_url, dialect: see `dialects.endpoint`.
        model: the name that calls without one ask for.
        max_retries: further attempts at a request.
        max_documents: of one request; None for what the dialect documents.

    Raises:
        SettingsError: one of them makes no sense.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        dialect: DialectName,
        model: str | None,
        max_retries: int,
        max_documents: int | None,
    ) -> None:
        self.name, self.url = endpoint(base_url, dialect)
        self.headers = {"content-type": "application/json", "user-agent": f"rerankd/{__version__}"}
        if api_key:
            self.headers["authorization"] = f"Bearer {_sendable(api_key)}"
        if max_documents is not None and max_documents < 1:
            raise SettingsError(f"max_documents must be at least 1; it is {max_documents}.")
        self._dialect = DIALECTS[self.name]
        self._model = model
        self._max_retries = max_retries
        self._max_documents = max_documents or self._dialect.max_documents
        self._shown = str(self.url.copy_with(userinfo=b"", query=None))  # no secrets in a message

    def parts(self, call: Call) -> list[Part]:
        """The requests that a call takes.

        Raises:
            InvalidRequest: a text cannot be written as UTF-8.
        """
        return [self._part(call, start, end) for start, end in pairwise(self._cuts(call))]

    def verdict(self, part: Part, outcome: httpx.Response | httpx.HTTPError, attempt: int) -> Reply | float:
        """What came of an attempt (the first is 0): its reply, or the seconds after which to try again.

        Raises:
            RemoteError: it failed, and another attempt makes no sense or is not allowed any more.
        """
        asked_s: float | None = None
        if isinstance(outcome, httpx.HTTPError):
            error, is_worth_it = self._without_answer(outcome), is_broken_connection(outcome)
        elif outcome.is_success:
            return self._reply(part, outcome)
        else:
            asked_s = retry_after_s(outcome.headers)
            error = self._refusal(outcome, asked_s)
            is_worth_it = is_passing(outcome) and (asked_s or 0) <= LONGEST_WAIT_S
        if attempt >= self._max_retries or not is_worth_it:
            raise error
        pause_s = wait_s(attempt, asked_s)
        logger.info("%s; asked again in %.1f s", error, pause_s)
        return pause_s

    def ranking(self, call: Call, parts: Sequence[Part], replies: Sequence[Reply]) -> RemoteRanking:
        """The replies to the parts as one: a pair's score does not depend on the others of its request."""
        scores = [
            RemoteScore(
                part.start + index,
                score,
                _logit(score) if reply.by_rerankd else None,
                call.documents[part.start + index] if call.with_documents else None,
            )
            for part, reply in zip(parts, replies, strict=True)
            for index, score in reply.scores
        ]
        scores.sort(key=lambda score: (-score.score, score.index))
        return RemoteRanking(
            tuple(scores[: call.top_n]),
            _sum([reply.usage for reply in replies]),
            replies[0].model,
            (*self._warnings(call, parts, replies), *_said(parts, replies)),
            tuple(reply.request_id for reply in replies if reply.request_id),
        )

    def _cuts(self, call: Call) -> Iterator[int]:
        """The indices at which a new request begins, and the end."""
        max_documents = self._max_documents or len(call.documents)
        max_tokens = self._dialect.max_tokens
        query_tokens = num_tokens_about(call.query) if max_tokens else 0
        start, tokens = 0, 0
        yield start
        for index, document in enumerate(call.documents):
            more = query_tokens + num_tokens_about(document) if max_tokens else 0
            if index > start and (index - start == max_documents or tokens + more > (max_tokens or math.inf)):
                start, tokens = index, 0
                yield start
            tokens += more
        yield len(call.documents)

    def _part(self, call: Call, start: int, end: int) -> Part:
        body = self._dialect.body(
            call.query,
            call.documents[start:end],
            top_n=call.top_n,
            instruct=call.instruct,
            model=call.model or self._model,
        )
        try:
            content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        except UnicodeEncodeError:
            raise InvalidRequest("A text holds a lone surrogate, half a character: it cannot be sent.") from None
        return Part(start, end - start, content)

    def _reply(self, part: Part, response: httpx.Response) -> Reply:
        try:
            return read_reply(response, part.num_documents)
        except ValueError as error:
            raise RemoteReplyInvalid(
                f"{self._shown} answered something else than a ranking ({error}): {error_message(response)}",
                response.status_code,
                request_id(response),
            ) from error

    def _refusal(self, response: httpx.Response, asked_s: float | None) -> RemoteError:
        status = response.status_code
        told = f"{self._shown} answered {status}: {error_message(response)}", status, request_id(response)
        if status == 429 and is_passing(response):
            return RemoteRateLimited(*told, asked_s)
        if status >= 500 or is_passing(response):
            return RemoteUnavailable(*told, asked_s)
        if status in (401, 403):
            return RemoteUnauthorized(*told)
        return RemoteRefused(*told) if status >= 400 else RemoteReplyInvalid(*told)

    def _without_answer(self, cause: httpx.HTTPError) -> RemoteError:
        reason = str(cause) or type(cause).__name__
        if isinstance(cause, httpx.TimeoutException) and not isinstance(cause, httpx.ConnectTimeout):
            error: RemoteError = RemoteTimeout(f"{self._shown} did not answer in time: {reason}")
        elif isinstance(cause, httpx.DecodingError):
            error = RemoteReplyInvalid(f"{self._shown} answered something else than a ranking: {reason}")
        else:
            error = RemoteUnreachable(f"{self._shown} cannot be reached: {reason}")
        error.__cause__ = cause
        return error

    def _warnings(self, call: Call, parts: Sequence[Part], replies: Sequence[Reply]) -> Iterator[str]:
        """What this side has to say."""
        if call.instruct is not None and self._dialect.instruct is None and not replies[0].by_rerankd:
            yield f"instruct may have been ignored: the dialect {self.name} documents none"
        for part, reply in zip(parts, replies, strict=True):
            expected = min(call.top_n or part.num_documents, part.num_documents)
            if len(reply.scores) < expected:
                yield f"the server sent {len(reply.scores)} results where {expected} were asked for"


def _said(parts: Sequence[Part], replies: Sequence[Reply]) -> Iterator[str]:
    """The servers' warnings: what holds for every part once, of the others which part; indices count from its start."""
    first = replies[0].warnings
    common = [warning for warning in first if all(warning in reply.warnings for reply in replies)]
    yield from common
    for part, reply in zip(parts, replies, strict=True):
        yield from (
            f"part from document {part.start} on: {warning}" for warning in reply.warnings if warning not in common
        )


def _sum(usages: Sequence[RemoteUsage]) -> RemoteUsage:
    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return RemoteUsage(total([usage.total_tokens for usage in usages]), total([usage.search_units for usage in usages]))


def _logit(score: float) -> float | None:
    """The inverse of the sigmoid; exact to 1e-6 for scores up to those of a logit of 22."""
    return math.log(score) - math.log1p(-score) if 0 < score < 1 else None


def _sendable(api_key: str) -> str:
    key = api_key.strip()  # one from a file ends in a line feed
    if not key.isascii() or not key.isprintable():
        raise SettingsError("The API key holds characters that a header cannot carry.")
    return key
