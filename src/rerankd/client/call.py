"""One rerank call without its input and output: the requests it takes, what each outcome means, and their sum.

`Client` and `AsyncClient` send what this plans and ask it what to do next; they decide nothing themselves.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import httpx2

from rerankd.arguments import Documents, checked
from rerankd.client.address import read_address
from rerankd.client.connections import Route
from rerankd.client.dialects import DIALECTS, endpoint, num_tokens_about
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
from rerankd.client.ranking import RemoteRanking, RemoteScore, RemoteUsage
from rerankd.client.reply import Reply, error_message, read_reply, request_id
from rerankd.client.retry import LONGEST_WAIT_S, is_broken_connection, is_passing, retry_after_s, wait_s
from rerankd.client.settings import ClientSettings
from rerankd.surrogates import surrogate_warnings, without_surrogates

logger = logging.getLogger(__name__)


MAX_REDIRECTS = 3
REDIRECTIONS = frozenset({301, 302, 307, 308})
"""Not 303: it says that the answer is elsewhere, to be fetched with GET."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked, checked and in texts that can be written.

    sent: the indices of the documents that are sent: all but those that the API would refuse the call for. warnings:
    what this side has to say before anything is sent.
    """

    query: str
    documents: tuple[str, ...]
    sent: tuple[int, ...]
    top_n: int | None
    instruct: str | None
    with_documents: bool
    model: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of a call's documents, as many as go into one request; content: the request's body."""

    indices: Sequence[int]
    content: bytes


class Progress:
    """Counts the documents of a call that are done, and tells the caller."""

    def __init__(self, call: Call, callback: Callable[[int], None] | None) -> None:
        self._done = len(call.documents) - len(call.sent)
        self._callback = callback

    def add(self, part: Part) -> None:
        """This part is answered. A callback that fails is not called again: the ranking is worth more."""
        self._done += len(part.indices)
        try:
            if self._callback:
                self._callback(self._done)
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self._callback = None


class Endpoint:
    """A server, how it is asked, and what its answers mean.

    Args:
        settings: see `Client`.

    Raises:
        SettingsError: one of them makes no sense.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.name, self.url = endpoint(settings.base_url, settings.dialect)
        self.headers = settings.sent_headers
        address = read_address(settings.base_url)
        self.route = Route(address, settings.verify)
        self._dialect = DIALECTS[self.name]
        self._model = settings.model
        self._max_retries = settings.max_retries
        self._max_documents = settings.max_documents or self._dialect.max_documents
        self.shown = f"unix:{address.socket}:{self.url.path}" if address.socket else _without_secrets(self.url)
        proxy = self.route.proxy
        self._place = f"{self.shown} (through the proxy {proxy.shown} of {proxy.variable})" if proxy else self.shown

    def call(
        self,
        query: str,
        documents: Documents,
        top_n: int | None,
        instruct: str | None,
        with_documents: bool,
        model: str | None,
    ) -> Call:
        """A call's arguments, checked.

        Raises:
            InvalidRequest: one is of the wrong kind or out of range.
        """
        asked = checked(query, documents, top_n, instruct)
        texts = tuple(map(without_surrogates, asked.documents))
        sent = tuple(index for index, text in enumerate(texts) if self._dialect.takes_blank or text.strip())
        warnings = [*asked.warnings, *surrogate_warnings(asked.query, asked.instruct, asked.documents)]
        if num_blank := len(texts) - len(sent):
            warnings.append(f"empty documents were not sent ({self.name} refuses them) and come last: {num_blank}")
        return Call(
            without_surrogates(asked.query),
            texts,
            sent,
            asked.top_n,
            None if asked.instruct is None else without_surrogates(asked.instruct),
            with_documents,
            without_surrogates(model) if isinstance(model, str) else None,
            tuple(warnings),
        )

    def parts(self, call: Call) -> list[Part]:
        """The requests that a call takes."""
        return [self._part(call, call.sent[start:end]) for start, end in pairwise(self._cuts(call))]

    def redirection(self, response: httpx2.Response) -> httpx2.URL | None:
        """Where to send the request again, with all that it holds: to the same server only."""
        if response.status_code not in REDIRECTIONS or not response.has_redirect_location:
            return None
        try:
            url = response.url.join(response.headers["location"])
        except httpx2.InvalidURL:
            return None
        return url if (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port) else None

    def verdict(self, part: Part, outcome: httpx2.Response | httpx2.HTTPError, attempt: int) -> Reply | float:
        """What came of an attempt (the first is 0): its reply, or the seconds after which to try again.

        Raises:
            RemoteError: it failed, and another attempt makes no sense or is not allowed any more.
        """
        asked_s: float | None = None
        if isinstance(outcome, httpx2.HTTPError):
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
                part.indices[scored.index],
                scored.score,
                scored.logit,
                call.documents[part.indices[scored.index]] if call.with_documents else None,
            )
            for part, reply in zip(parts, replies, strict=True)
            for scored in reply.scores
        ]
        scores.sort(key=lambda result: (-result.score, -(result.logit or 0), result.index))
        scores += _blank_scores(call, min([0.0, *(result.score for result in scores)]))
        return RemoteRanking(
            tuple(scores[: call.top_n]),
            _sum([reply.usage for reply in replies]),
            replies[0].model if replies else None,
            (*call.warnings, *self._warnings(call, parts, replies), *_said(call, parts, replies)),
            tuple(reply.request_id for reply in replies if reply.request_id),
        )

    def _cuts(self, call: Call) -> Iterator[int]:
        """The places among the documents that are sent at which a new request begins, and the end."""
        if not call.sent:
            return
        max_documents = self._max_documents or len(call.sent)
        max_tokens = self._dialect.max_tokens
        query_tokens = num_tokens_about(call.query) if max_tokens else 0
        start, tokens = 0, 0
        yield start
        for place, index in enumerate(call.sent):
            more = query_tokens + num_tokens_about(call.documents[index]) if max_tokens else 0
            if place > start and (place - start == max_documents or tokens + more > (max_tokens or math.inf)):
                start, tokens = place, 0
                yield start
            tokens += more
        yield len(call.sent)

    def _part(self, call: Call, indices: Sequence[int]) -> Part:
        body = self._dialect.body(
            call.query,
            [call.documents[index] for index in indices],
            top_n=call.top_n,
            instruct=call.instruct,
            model=call.model or self._model,
        )
        return Part(indices, json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())

    def _reply(self, part: Part, response: httpx2.Response) -> Reply:
        try:
            return read_reply(response, len(part.indices))
        except ValueError as error:
            raise RemoteReplyInvalid(
                f"{self._place} answered something else than a ranking ({error}): {error_message(response)}",
                response.status_code,
                request_id(response),
            ) from error

    def _refusal(self, response: httpx2.Response, asked_s: float | None) -> RemoteError:
        status = response.status_code
        message = error_message(response)
        if response.has_redirect_location:
            message = f"it redirects to {_target(response)}: give that address"
        told = f"{self._place} answered {status}: {message}", status, request_id(response)
        if status == 429 and is_passing(response):
            return RemoteRateLimited(*told, asked_s)
        if status >= 500 or is_passing(response):
            return RemoteUnavailable(*told, asked_s)
        if status in (401, 403):
            return RemoteUnauthorized(*told)
        return RemoteRefused(*told) if status >= 400 else RemoteReplyInvalid(*told)

    def _without_answer(self, cause: httpx2.HTTPError) -> RemoteError:
        reason = str(cause) or type(cause).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            reason += ". If its authority is your own, give its file: Client(verify='ca.pem'), or SSL_CERT_FILE"
        if isinstance(cause, httpx2.TimeoutException) and not isinstance(cause, httpx2.ConnectTimeout):
            error: RemoteError = RemoteTimeout(f"{self._place} did not answer in time: {reason}")
        elif isinstance(cause, httpx2.DecodingError):
            error = RemoteReplyInvalid(f"{self._place} answered something else than a ranking: {reason}")
        else:
            error = RemoteUnreachable(f"{self._place} cannot be reached: {reason}")
        error.__cause__ = cause
        return error

    def _warnings(self, call: Call, parts: Sequence[Part], replies: Sequence[Reply]) -> Iterator[str]:
        """What this side has to say."""
        ignored = call.instruct is not None and self._dialect.instruct is None
        if ignored and not all(reply.by_rerankd for reply in replies):
            yield f"instruct may have been ignored: the dialect {self.name} documents none"
        for part, reply in zip(parts, replies, strict=True):
            expected = min(call.top_n or len(part.indices), len(part.indices))
            if len(reply.scores) < expected:
                yield f"the server sent {len(reply.scores)} results where {expected} were asked for"


def _said(call: Call, parts: Sequence[Part], replies: Sequence[Reply]) -> Iterator[str]:
    """The servers' warnings: what holds for every part once, of the others which part; indices count from its start."""
    first = replies[0].warnings if replies else ()
    common = [warning for warning in first if all(warning in reply.warnings for reply in replies)]
    counted = " (counted without the empty ones)" if len(call.sent) < len(call.documents) else ""
    for warning in common:
        yield f"{warning}{counted}" if "document" in warning else warning
    for part, reply in zip(parts, replies, strict=True):
        yield from (
            f"part from document {part.indices[0]} on: {warning}{counted}"
            for warning in reply.warnings
            if warning not in common
        )


def _blank_scores(call: Call, score: float) -> list[RemoteScore]:
    """Of the documents that were not sent."""
    left = sorted(set(range(len(call.documents))) - set(call.sent))
    return [RemoteScore(index, score, None, call.documents[index] if call.with_documents else None) for index in left]


def _sum(usages: Sequence[RemoteUsage]) -> RemoteUsage:
    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return RemoteUsage(total([usage.total_tokens for usage in usages]), total([usage.search_units for usage in usages]))


def _target(response: httpx2.Response) -> str:
    """Where a redirection points, in words."""
    target = response.headers["location"]
    try:
        return _without_secrets(response.url.join(target))
    except httpx2.InvalidURL:
        return repr(target)


def _without_secrets(url: httpx2.URL) -> str:
    return str(url.copy_with(userinfo=b"", query=None))
