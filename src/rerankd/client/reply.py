"""Reads the replies and errors of every rerank API. They put things in different places and never contradict."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import httpx2

from rerankd.apis.explained import read_explanation
from rerankd.types import Explanation, Passage, Sentence, Usage, sigmoid

MAX_COUNT = 2**63
"""The largest count of tokens or searches that is read: JSON's numbers have no bound."""

MAX_MESSAGE = 500
"""Characters of a server's error message in ours."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One document's result.

    Attributes:
        index: its place in the request.
        logit: None if it is not known.
        passages: those that were sent.
        num_passages: how many were scored.
        scored: False if the deadline came first.
        explanation: of a rerankd that was asked for it.
    """

    index: int
    score: float
    logit: float | None
    passages: tuple[Passage, ...] = ()
    num_passages: int = 0
    scored: bool = True
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply.

    Attributes:
        scores: in the reply's order.
        by_rerankd: whether a rerankd answered: it reads `instruct` on every path, and its score is sigmoid(logit).
    """

    scores: tuple[Scored, ...]
    usage: Usage
    model: str | None
    warnings: tuple[str, ...]
    request_id: str | None
    by_rerankd: bool
    nothing_relevant: bool = False


def read_reply(response: httpx2.Response, num_documents: int) -> Reply:
    """Reads a ranking of `num_documents` documents. Raises ValueError, with the reason, for anything else."""
    try:
        body = response.json()
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    scored_by = response.headers.get("x-rerankd-model")
    scores = tuple(_scored(entry, num_documents, scored_by is not None) for entry in _results(body))
    if len({scored.index for scored in scores}) < len(scores):
        raise ValueError("a document has two results")
    return Reply(
        scores,
        _usage(body, response.headers),
        scored_by or _text(body, "model"),
        _warnings(body, response.headers),
        request_id(response),
        scored_by is not None,
        "x-rerankd-nothing-relevant" in response.headers,
    )


def request_id(response: httpx2.Response) -> str | None:
    """The server's id of the request, from its header or its body."""
    if found := response.headers.get("x-request-id"):
        return str(found)
    body = _json(response)
    return _text(body, "request_id") or _text(body, "id")


def error_message(response: httpx2.Response) -> str:
    """The message in an error's body of any shape; else the body's first characters, or the status in words."""
    message = next(_messages(_json(response)), "") or response.text.strip() or response.reason_phrase
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} …"


def error_codes(response: httpx2.Response) -> frozenset[str]:
    """The codes and types in an error's body, in lower case: at the top, under `error`, or under `detail`."""
    body = _json(response)
    holders = [body, *(_object(body, key) for key in ("error", "detail"))]
    found = [holder.get(key) for holder in holders if isinstance(holder, dict) for key in ("code", "type")]
    return frozenset(code.lower() for code in found if isinstance(code, str))


def is_page(response: httpx2.Response) -> bool:
    """Whether the body is HTML: of a proxy or a firewall, not of a rerank API."""
    return response.headers.get("content-type", "").startswith("text/html") or response.text.lstrip().startswith("<")


def _messages(body: Any, depth: int = 3) -> Iterator[str]:
    """`{"error": {"message"}}`, `{"error": "…"}`, `{"message"}`, `{"detail"}` as text, object, or FastAPI's list."""
    if isinstance(body, str) and body:
        yield body
    elif isinstance(body, dict) and depth:
        for key in ("error", "message", "detail", "msg"):
            yield from _messages(body.get(key), depth - 1)
    elif isinstance(body, list):
        if problems := [_problem(entry) for entry in body if isinstance(entry, dict)]:
            yield "; ".join(problems)


def _problem(entry: dict[str, Any]) -> str:
    """One of FastAPI's validation errors: where, and what."""
    place = entry.get("loc")
    where = ".".join(map(str, place)) + ": " if isinstance(place, list) else ""
    return f"{where}{entry.get('msg')}"


def _results(body: Any) -> list[Any]:
    """`output.results`, `results`, `data`, NIM's `rankings`, or the body itself."""
    if isinstance(body, dict):
        output = body.get("output")
        body = output if isinstance(output, dict) else body
        body = body.get("results", body.get("data", body.get("rankings")))
    if not isinstance(body, list):
        raise ValueError("there is no list of results")
    return body


def _scored(entry: Any, num_documents: int, by_rerankd: bool) -> Scored:
    if not isinstance(entry, dict):
        raise ValueError("a result is not an object")
    index, score = entry.get("index"), entry.get("relevance_score", entry.get("score"))
    if type(index) is not int or not 0 <= index < num_documents:
        raise ValueError(f"a result has the index {index!r}; there are {num_documents} documents")
    logit = entry.get("logit")
    if score is None and _is_number(logit):  # NIM's
        return Scored(index, sigmoid(logit), float(logit), *(_own(entry) if by_rerankd else ()))
    if not _is_number(score):
        raise ValueError(f"document {index} has the score {score!r}")
    if not by_rerankd:
        return Scored(index, float(score), None)
    own = *_own(entry), read_explanation(entry.get("explain"))
    return Scored(index, float(score), _logit(entry, score), *own)


def _own(entry: dict[str, Any]) -> tuple[tuple[Passage, ...], int, bool]:
    """The fields of rerankd only: passages, the number of scored ones, and whether it scored the document."""
    listed = entry.get("passages")
    found = tuple(map(_passage, listed)) if isinstance(listed, list) else ()
    return found, _count(entry, "num_passages") or len(found), entry.get("scored") is not False


def _passage(sent: Any) -> Passage:
    start, end, score, logit, tokens = (
        sent.get(name) if isinstance(sent, dict) else None for name in ("start", "end", "score", "logit", "tokens")
    )
    if not (type(start) is int and type(end) is int and 0 <= start <= end and _is_number(score)):
        raise ValueError(f"a passage is {str(sent)[:100]}")
    try:
        listed = sent.get("sentences") or ()
        sentences = tuple(Sentence(one["start"], one["end"], float(one["score"]), one.get("logit")) for one in listed)
    except (TypeError, LookupError, AttributeError, OverflowError):
        raise ValueError(f"the sentences of a passage are {str(listed)[:100]}") from None
    return Passage(start, end, float(score), float(logit) if _is_number(logit) else None, tokens, sentences)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _logit(entry: dict[str, Any], score: float) -> float | None:
    """rerankd's explanation has the logit; else the inverse of the sigmoid, exact to 1e-6 up to a logit of 22."""
    logit = _object(entry, "explain").get("logit")
    if _is_number(logit):
        return float(logit)
    return math.log(score) - math.log1p(-score) if 0 < score < 1 else None


def _usage(body: Any, headers: httpx2.Headers) -> Usage:
    """`usage`; Cohere's `meta`; TEI's header."""
    usage, meta = _object(body, "usage"), _object(body, "meta")
    counted = headers.get("x-compute-tokens", "")
    total_tokens = [
        _count(usage, "total_tokens"),
        _count(usage, "prompt_tokens"),
        _count(_object(meta, "tokens"), "input_tokens"),
        int(counted) if counted.isascii() and counted.isdigit() else None,
    ]
    search_units = [_count(usage, "search_units"), _count(_object(meta, "billed_units"), "search_units")]
    return Usage(total_tokens=_first(total_tokens), search_units=_first(search_units))


def _first(counts: list[int | None]) -> int | None:
    return next((count for count in counts if count is not None), None)


def _warnings(body: Any, headers: httpx2.Headers) -> tuple[str, ...]:
    listed = _object(body, "meta").get("warnings")
    if isinstance(listed, list) and listed:
        return tuple(map(str, listed))
    header = headers.get("x-rerankd-warning")  # many become one line there
    return (header,) if header else ()


def _json(response: httpx2.Response) -> Any:
    """None if the body is no JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _object(body: Any, key: str) -> dict[str, Any]:
    value = body.get(key) if isinstance(body, dict) else None
    return value if isinstance(value, dict) else {}


def _text(body: Any, key: str) -> str | None:
    value = body.get(key) if isinstance(body, dict) else None
    return value if isinstance(value, str) and value else None


def _count(of: dict[str, Any], key: str) -> int | None:
    """A whole number that can be a count; Cohere writes some as 1.0."""
    value = of.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < MAX_COUNT:
        return None
    return int(value) if value == value // 1 else None
