"""One rerank call without I/O: its requests, the next step after each response, and the merged ranking.

`Client` and `AsyncClient` send the requests and follow these decisions; they make none themselves.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import httpx2

from rerankd.arguments import Documents, checked
from rerankd.calibration.apply import Cut, Named, min_score_of
from rerankd.client.address import read_address
from rerankd.client.bounded import max_reply_bytes
from rerankd.client.connections import Route
from rerankd.client.dialects import DIALECTS, endpoint, num_tokens_about
from rerankd.client.errors import RemoteRefused
from rerankd.client.failures import connection_error, reply_error, response_error, without_secrets
from rerankd.client.reply import Reply, read_reply
from rerankd.client.retry import LONGEST_WAIT_S, is_connection_failure, is_retryable, retry_after_s, wait_s
from rerankd.client.settings import ClientSettings
from rerankd.surrogates import without_surrogates
from rerankd.types import Passages, Ranking, Score, Usage

logger = logging.getLogger(__name__)


MAX_REDIRECTS = 3
REDIRECTIONS = frozenset({301, 302, 307, 308})
"""Without 303, which asks for a GET of another address."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call's arguments, checked, in texts that UTF-8 can encode.

    Attributes:
        sent: the indices of the documents to send. Blank documents are left out if the API refuses calls with them.
        warnings: those that are known before anything is sent.
    """

    query: str
    documents: tuple[str, ...]
    sent: tuple[int, ...]
    top_n: int | None
    instruct: str | None
    with_documents: bool
    model: str | None
    warnings: tuple[str, ...]
    passages: Passages | None = None
    min_score: float | Named | None = None
    calibration: str | None = None
    deadline_s: float | None = None

    @property
    def own_fields(self) -> dict[str, object]:
        """The options that only rerankd reads; a plain threshold needs no server."""
        if self.calibration is None:
            return {}
        given = {"min_score": self.min_score, "calibration": self.calibration}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Chunk:
    """The documents of one request.

    Attributes:
        indices: their places in the call.
        content: the request's body.
        num_results: how many are asked for.
        num_passages: of each result, at most.
        may_be_fewer: the server leaves out results under a threshold.
    """

    indices: Sequence[int]
    content: bytes
    num_results: int
    num_passages: int = 0
    may_be_fewer: bool = False

    @property
    def max_reply_bytes(self) -> int:
        """The size of the largest reply to the request."""
        return max_reply_bytes(len(self.indices) * (1 + self.num_passages))


class Progress:
    """Counts the scored documents of a call and reports the number to the caller."""

    def __init__(self, call: Call, callback: Callable[[int], None] | None) -> None:
        self._done = len(call.documents) - len(call.sent)
        self._callback = callback

    def add(self, chunk: Chunk) -> None:
        """Counts an answered chunk. A callback that fails is not called again, and the call continues."""
        self._done += len(chunk.indices)
        try:
            if self._callback:
                self._callback(self._done)
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self._callback = None


class Endpoint:
    """A server's address and API: builds requests for it and interprets the responses.

    Args:
        settings: see `Client`.

    Raises:
        SettingsError: a setting is invalid.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.name, self.url = endpoint(settings.base_url, settings.dialect)
        self.headers = settings.sent_headers
        address = read_address(settings.base_url)
        self.route = Route(address, settings.verify)
        self._dialect = DIALECTS[self.name]
        self._model = settings.model
        self._max_retries = settings.max_retries
        self._complete = settings.complete
        self._max_documents = settings.max_documents or self._dialect.max_documents
        self.shown = f"unix:{address.socket}:{self.url.path}" if address.socket else without_secrets(self.url)
        proxy = self.route.proxy
        self._name = f"{self.shown} (through the proxy {proxy.shown} of {proxy.variable})" if proxy else self.shown

    def call(
        self,
        query: str,
        documents: Documents,
        top_n: int | None,
        instruct: str | None,
        with_documents: bool,
        model: str | None,
        passages: bool | Passages = False,
        min_score: float | Named | None = None,
        calibration: str | None = None,
        deadline_s: float | None = None,
    ) -> Call:
        """Checks a call's arguments.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
        """
        given = checked(query, documents, top_n, instruct, passages, deadline_s)
        min_score = min_score_of(min_score)
        if calibration is None:
            Cut(min_score)  # refuses the name of a threshold
        texts = given.documents
        sent = tuple(index for index, text in enumerate(texts) if self._dialect.takes_blank or text.strip())
        warnings = given.warnings
        if num_blank := len(texts) - len(sent):
            warnings += (f"empty documents were not sent ({self.name} refuses them) and come last: {num_blank}",)
        return Call(
            given.query,
            texts,
            sent,
            given.top_n,
            given.instruct,
            with_documents,
            without_surrogates(model) if isinstance(model, str) else None,
            warnings,
            given.passages,
            min_score,
            calibration,
            given.deadline_s,
        )

    def chunks(self, call: Call) -> list[Chunk]:
        """Splits a call into the requests it takes."""
        return [self._chunk(call, call.sent[start:end]) for start, end in pairwise(self._boundaries(call))]

    def redirection(self, response: httpx2.Response) -> httpx2.URL | None:
        """The address to send the same request to, if the server redirects it to itself; else None."""
        if response.status_code not in REDIRECTIONS or not response.has_redirect_location:
            return None
        try:
            url = response.url.join(response.headers["location"])
        except httpx2.InvalidURL:
            return None
        return url if (url.scheme, url.host, url.port) == (self.url.scheme, self.url.host, self.url.port) else None

    def verdict(self, chunk: Chunk, outcome: httpx2.Response | httpx2.HTTPError, attempt: int) -> Reply | float:
        """The reply, or the seconds to wait before the next attempt. The first attempt is 0.

        Raises:
            RemoteError: the attempt failed, and it is the last one or a retry would not help.
        """
        wanted_s: float | None = None
        if isinstance(outcome, httpx2.HTTPError):
            error, retryable = connection_error(self._name, outcome), is_connection_failure(outcome)
        elif outcome.is_success:
            return self._reply(chunk, outcome)
        else:
            wanted_s = retry_after_s(outcome.headers)
            error = response_error(self._name, outcome, wanted_s)
            refused = isinstance(error, RemoteRefused)
            retryable = is_retryable(outcome) and not refused and (wanted_s or 0) <= LONGEST_WAIT_S
        if attempt >= self._max_retries or not retryable:
            raise error
        pause_s = wait_s(attempt, wanted_s)
        logger.info("%s; next attempt in %.1f s", error, pause_s)
        return pause_s

    def ranking(self, call: Call, chunks: Sequence[Chunk], replies: Sequence[Reply]) -> Ranking:
        """Merges the replies to a call's chunks. A document's score does not depend on the rest of its request."""
        scores = [
            Score(
                chunk.indices[scored.index],
                scored.score,
                scored.logit if call.calibration is None or self.name == "rerankd" else None,
                call.documents[chunk.indices[scored.index]] if call.with_documents else None,
                passages=scored.passages,
                num_passages=scored.num_passages,
                explanation=scored.explanation,
                scored=scored.scored,
            )
            for chunk, reply in zip(chunks, replies, strict=True)
            for scored in reply.scores
        ]
        scores.sort(key=lambda result: (not result.scored, -result.score, -(result.logit or 0), result.index))
        scores = _without_rises(scores)
        scores += _blank_scores(call, min([0.0, *(result.score for result in scores)]))
        ranking = Ranking(
            ranked=tuple(scores[: call.top_n]),
            usage=_sum([reply.usage for reply in replies]),
            warnings=(
                *call.warnings,
                *self._client_warnings(call, chunks, replies),
                *_server_warnings(call, chunks, replies),
            ),
            model=replies[0].model if replies else None,
            scores=tuple(sorted(scores, key=lambda result: result.index)),
            request_ids=tuple(reply.request_id for reply in replies if reply.request_id),
        )
        if call.calibration is None:
            return Cut(call.min_score).of(ranking, None, "")
        nothing = bool(replies) and all(reply.nothing_relevant for reply in replies)
        left_out = sum(chunk.num_results - len(reply.scores) for chunk, reply in zip(chunks, replies, strict=True))
        return replace(ranking, nothing_relevant=nothing, left_out=left_out if call.min_score is not None else 0)

    def _boundaries(self, call: Call) -> Iterator[int]:
        """The place in `call.sent` where each request begins, and the end of the last one."""
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

    def _chunk(self, call: Call, indices: Sequence[int]) -> Chunk:
        body = self._dialect.body(
            call.query,
            [call.documents[index] for index in indices],
            top_n=call.top_n,
            instruct=call.instruct,
            model=call.model or self._model,
            passages=call.passages,
            deadline_s=call.deadline_s,
        )
        content = json.dumps(body | call.own_fields, ensure_ascii=False, separators=(",", ":")).encode()
        num_passages = call.passages.max_per_doc if call.passages else 0
        cut = call.calibration is not None and call.min_score is not None
        return Chunk(indices, content, min(call.top_n or len(indices), len(indices)), num_passages, cut)

    def _reply(self, chunk: Chunk, response: httpx2.Response) -> Reply:
        try:
            reply = read_reply(response, len(chunk.indices))
            if self._complete and not chunk.may_be_fewer and len(reply.scores) < chunk.num_results:
                raise ValueError(f"it has {len(reply.scores)} results where {chunk.num_results} were asked for")
        except ValueError as error:
            raise reply_error(self._name, response, error) from error
        return reply

    def _client_warnings(self, call: Call, chunks: Sequence[Chunk], replies: Sequence[Reply]) -> Iterator[str]:
        """The client's own warnings about the replies."""
        ignored = call.instruct is not None and self._dialect.instruct is None
        if ignored and not all(reply.by_rerankd for reply in replies):
            yield f"instruct may have been ignored: the dialect {self.name} documents none"
        if call.passages and not all(reply.by_rerankd for reply in replies):
            yield "passages may have been ignored: no rerankd answered"
        if call.deadline_s and not all(reply.by_rerankd for reply in replies):
            yield "deadline_s may have been ignored: no rerankd answered"
        for chunk, reply in zip(chunks, replies, strict=True):
            if len(reply.scores) < chunk.num_results and not chunk.may_be_fewer:
                yield f"the server sent {len(reply.scores)} results where {chunk.num_results} were asked for"


def _server_warnings(call: Call, chunks: Sequence[Chunk], replies: Sequence[Reply]) -> Iterator[str]:
    """The server's warnings: common ones once, the others with their chunk, from whose start their indices count."""
    first = replies[0].warnings if replies else ()
    common = [warning for warning in first if all(warning in reply.warnings for reply in replies)]
    counted = " (counted without the empty ones)" if len(call.sent) < len(call.documents) else ""
    for warning in common:
        yield f"{warning}{counted}" if "document" in warning else warning
    for chunk, reply in zip(chunks, replies, strict=True):
        yield from (
            f"documents from {chunk.indices[0]} on: {warning}{counted}"
            for warning in reply.warnings
            if warning not in common
        )


def _without_rises(scores: Sequence[Score]) -> list[Score]:
    """A deadline of one request may leave documents whose stand-in is over the lowest score of another request."""
    lowest = min((result for result in scores if result.scored), key=lambda result: result.score, default=None)
    if lowest is None:
        return list(scores)
    return [
        result
        if result.scored or result.score < lowest.score
        else replace(result, score=lowest.score, logit=lowest.logit)
        for result in scores
    ]


def _blank_scores(call: Call, score: float) -> list[Score]:
    """The scores of the documents that were not sent."""
    unsent = sorted(set(range(len(call.documents))) - set(call.sent))
    return [Score(index, score, None, call.documents[index] if call.with_documents else None) for index in unsent]


def _sum(usages: Sequence[Usage]) -> Usage:
    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return Usage(
        total_tokens=total([usage.total_tokens for usage in usages]),
        search_units=total([usage.search_units for usage in usages]),
    )
