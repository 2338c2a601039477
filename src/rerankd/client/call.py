"""One rerank call without I/O: its requests, the next step after each response, and the merged ranking.

`Client` and `AsyncClient` send the requests and follow these decisions; they make none themselves.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import httpx2

from rerankd.arguments import Documents, checked
from rerankd.calibration.apply import Cut, Named, min_score_of
from rerankd.client.address import read_address
from rerankd.client.connections import Route
from rerankd.client.dialects import DIALECTS, endpoint, num_tokens_about
from rerankd.client.errors import RemoteError, RemoteRefused, RemoteTimeout, RemoteUnavailable
from rerankd.client.failures import (
    connection_error,
    is_too_long,
    is_too_much,
    reply_error,
    response_error,
    without_secrets,
)
from rerankd.client.late import Late, deadline_header, seconds_left, unscored, without_rises
from rerankd.client.reply import Reply, Scored, read_reply
from rerankd.client.requests import Answered, Call, Chunk, Divided
from rerankd.client.retry import LONGEST_WAIT_S, is_connection_failure, is_retryable, retry_after_s, wait_s
from rerankd.client.settings import ClientSettings
from rerankd.client.shorter import about_parts, of_documents, shorter
from rerankd.surrogates import without_surrogates
from rerankd.types import Passage, Passages, Ranking, Score, Usage

logger = logging.getLogger(__name__)


MAX_REDIRECTS = 3
REDIRECTIONS = frozenset({301, 302, 307, 308})
"""Without 303, which asks for a GET of another address."""


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
            None if given.deadline_s is None else time.monotonic() + given.deadline_s,
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

    def headers_of(self, call: Call) -> dict[str, str]:
        """Those of a request that is sent now."""
        return deadline_header(call.deadline)

    def late(self, call: Call) -> Late | None:
        """Whether the deadline has come, so that a request is not sent."""
        if seconds_left(call.deadline) > 0:
            return None
        return Late(RemoteTimeout(f"{self._name} was not asked in time: the deadline had come."))

    def verdict(
        self, call: Call, chunk: Chunk, outcome: httpx2.Response | httpx2.HTTPError, attempt: int
    ) -> Reply | Late | Divided | float:
        """The reply, what follows in its place, or the seconds to wait before the next attempt. The first one is 0.

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
        if chunks := self._divided(call, chunk, error):
            logger.info("%s; the request is divided", error)
            return Divided(chunks)
        pause_s = wait_s(attempt, wanted_s)
        if pause_s >= seconds_left(call.deadline) and isinstance(error, RemoteUnavailable):
            return Late(error)
        if attempt >= self._max_retries or not retryable:
            raise error
        logger.info("%s; next attempt in %.1f s", error, pause_s)
        return pause_s

    def ranking(self, call: Call, answers: Sequence[Answered]) -> Ranking:
        """Merges what came of a call's requests. A document's score does not depend on the rest of its request.

        Raises:
            RemoteError: the call has a deadline, and no request was answered before it.
        """
        answered = [(chunk, reply) for chunk, reply in answers if isinstance(reply, Reply)]
        late = [(chunk, reply) for chunk, reply in answers if isinstance(reply, Late)]
        if late and not answered:
            raise late[0][1].error
        scores = [self._score(call, chunk, scored) for chunk, reply in answered for scored in reply.scores]
        scores += [
            one
            for chunk, _ in late
            for one in unscored(chunk.indices, [self._shown(call, index) for index in chunk.indices])
        ]
        scores = of_documents(scores)
        scores.sort(key=_place)
        scores = without_rises(scores)
        scores += _blank_scores(call, min([0.0, *(result.score for result in scores)]))
        ranking = Ranking(
            ranked=tuple(scores[: call.top_n]),
            usage=sum_of([reply.usage for _, reply in answered]),
            warnings=(
                *call.warnings,
                *about_parts(call, [chunk for chunk, _ in answers]),
                *self._client_warnings(call, answered),
                *_all_warnings(call, answered, late),
            ),
            model=answered[0][1].model if answered else None,
            scores=tuple(sorted(scores, key=lambda result: result.index)),
            request_ids=tuple(reply.request_id for _, reply in answered if reply.request_id),
        )
        if call.calibration is None:
            return Cut(call.min_score).of(ranking, None, "")
        nothing = bool(answered) and all(reply.nothing_relevant for _, reply in answered)
        left_out = sum(chunk.num_results - len(reply.scores) for chunk, reply in answered)
        return replace(ranking, nothing_relevant=nothing, left_out=left_out if call.min_score is not None else 0)

    def _score(self, call: Call, chunk: Chunk, scored: Scored) -> Score:
        passages, num_passages = scored.passages, scored.num_passages
        if chunk.spans:
            passages, num_passages = (Passage(*chunk.spans[scored.index], scored.score, scored.logit),), 1
        return Score(
            chunk.indices[scored.index],
            scored.score,
            scored.logit if call.calibration is None or self.name == "rerankd" else None,
            self._shown(call, chunk.indices[scored.index]),
            passages=passages,
            num_passages=num_passages,
            explanation=scored.explanation,
            scored=scored.scored,
        )

    def _shown(self, call: Call, index: int) -> str | None:
        return call.documents[index] if call.with_documents else None

    def _divided(self, call: Call, chunk: Chunk, error: RemoteError) -> list[Chunk]:
        """The requests in place of one that was refused as too much or too long; empty if it was not."""
        if len(chunk.indices) > 1 and is_too_much(error):
            middle = len(chunk.indices) // 2
            halves = slice(middle), slice(middle, None)
            return [self._chunk(call, chunk.indices[half], chunk.spans[half]) for half in halves]
        if call.passages is None or not is_too_long(error):
            return []
        parts = shorter(call, chunk)
        size = self._max_documents or len(parts)
        groups = [parts[start : start + size] for start in range(0, len(parts), size)] if parts else []
        return [self._chunk(call, [part[0] for part in some], [part[1:] for part in some]) for some in groups]

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

    def _chunk(self, call: Call, indices: Sequence[int], spans: Sequence[tuple[int, int]] = ()) -> Chunk:
        texts = [call.documents[index] for index in indices]
        if spans:
            texts = [text[start:end] for text, (start, end) in zip(texts, spans, strict=True)]
        passages, top_n = (None, None) if spans else (call.passages, call.top_n)
        body = self._dialect.body(
            call.query,
            texts,
            top_n=top_n,
            instruct=call.instruct,
            model=call.model or self._model,
            passages=passages,
        )
        content = json.dumps(body | call.own_fields, ensure_ascii=False, separators=(",", ":")).encode()
        num_passages = passages.max_per_doc if passages else 0
        cut = call.calibration is not None and call.min_score is not None
        return Chunk(indices, content, min(top_n or len(indices), len(indices)), num_passages, cut, spans)

    def _reply(self, chunk: Chunk, response: httpx2.Response) -> Reply:
        try:
            reply = read_reply(response, len(chunk.indices))
            if self._complete and not chunk.may_be_fewer and len(reply.scores) < chunk.num_results:
                raise ValueError(f"it has {len(reply.scores)} results where {chunk.num_results} were asked for")
        except ValueError as error:
            raise reply_error(self._name, response, error) from error
        return reply

    def _client_warnings(self, call: Call, answered: Sequence[tuple[Chunk, Reply]]) -> Iterator[str]:
        """The client's own warnings about the replies."""
        by_rerankd = all(reply.by_rerankd for _, reply in answered)
        ignored = call.instruct is not None and self._dialect.instruct is None
        if ignored and not by_rerankd:
            yield f"instruct may have been ignored: the dialect {self.name} documents none"
        if call.passages and not all(reply.by_rerankd or chunk.spans for chunk, reply in answered):
            yield "passages may have been ignored: no rerankd answered"
        if call.deadline is not None and not by_rerankd:
            yield "deadline_s may have been ignored: no rerankd answered"
        for chunk, reply in answered:
            if len(reply.scores) < chunk.num_results and not chunk.may_be_fewer:
                yield f"the server sent {len(reply.scores)} results where {chunk.num_results} were asked for"


def _all_warnings(
    call: Call, answered: Sequence[tuple[Chunk, Reply]], late: Sequence[tuple[Chunk, Late]]
) -> Iterator[str]:
    """The servers' warnings: common ones once, the others with their chunk, from whose start their indices count."""
    first = answered[0][1].warnings if answered else ()
    common = [
        warning
        for warning in first
        if not (late and "document" in warning) and all(warning in reply.warnings for _, reply in answered)
    ]
    counted = " (counted without the empty ones)" if len(call.sent) < len(call.documents) else ""
    for warning in common:
        yield f"{warning}{counted}" if "document" in warning else warning
    for chunk, reply in answered:
        yield from (
            f"documents from {chunk.indices[0]} on: {warning}{counted}"
            for warning in reply.warnings
            if warning not in common
        )
    for chunk, _ in late:
        number, first_index = len(chunk.indices), chunk.indices[0]
        yield f"documents from {first_index} on: {number} of {number} documents were not scored before the deadline"


def _place(result: Score) -> tuple[bool, float, float, int]:
    """In a ranking; those without a score of their own come in the call's order."""
    if not result.scored:
        return True, 0.0, 0.0, result.index
    return False, -result.score, -(result.logit or 0.0), result.index


def _blank_scores(call: Call, score: float) -> list[Score]:
    """The scores of the documents that were not sent."""
    unsent = sorted(set(range(len(call.documents))) - set(call.sent))
    return [Score(index, score, None, call.documents[index] if call.with_documents else None) for index in unsent]


def sum_of(usages: Sequence[Usage]) -> Usage:
    """The usage of several replies. A count that one of them lacks is unknown."""

    def total(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return Usage(
        total_tokens=total([usage.total_tokens for usage in usages]),
        search_units=total([usage.search_units for usage in usages]),
    )
