"""Calls that a server finds too large, and calls with a deadline that are several requests."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd import Passages
from rerankd.client.errors import RemoteRefused, RemoteTimeout, RemoteUnavailable
from rerankd.errors import NothingInTime
from support.fake_server import BOTH, Answer, Ask, StandIn, ranking_of, score_of

REFUSALS = {
    "TEI": (413, {"error": "batch size 40 > maximum allowed batch size 3", "error_type": "Validation"}),
    "rerankd, documents": (400, {"message": "There are 40 documents; from 1 to 3 are allowed: send them in several."}),
    "rerankd, tokens": (400, {"message": "The request has 999 tokens (query_tokens × documents); the limit is 9."}),
    "pydantic": (422, {"detail": [{"loc": ["body", "documents"], "msg": "documents: at most 3 items are allowed"}]}),
    "Cohere": (400, {"message": "too many documents, maximum is 3"}),
    "nginx": (413, b"<html><title>413 Request Entity Too Large</title></html>"),
    "rerankd, body": (413, {"message": "The body has more than 2 MB; the limit is 2 MB."}),
}


def refusing(at_most: int, status: int, body: Any) -> Any:
    def answer(asked: dict[str, Any]) -> Answer:
        return ranking_of(asked) if len(asked["documents"]) <= at_most else Answer(status, body)

    return answer


@pytest.mark.parametrize("who", REFUSALS)
@pytest.mark.parametrize("ask", BOTH)
def test_a_request_with_too_many_documents_is_sent_as_two(ask: Ask, who: str) -> None:
    documents = [f"text {number}" for number in range(40)]
    progress: list[int] = []
    with StandIn(answer=refusing(3, *REFUSALS[who])) as server:
        ranking = ask(server.url, documents=documents, progress=progress.append)
        sizes = [len(request.body["documents"]) for request in server.requests]
    assert [score.document for score in ranking.scores] == documents
    assert [score.score for score in ranking.scores] == [score_of(text) for text in documents]
    assert sum(size for size in sizes if size <= 3) == 40, "none is scored twice"
    assert progress == [40] and len(sizes) < 40


@settings(max_examples=30, deadline=None)
@given(number=st.integers(1, 30), at_most=st.integers(1, 30), top_n=st.none() | st.integers(1, 9))
def test_any_limit_gives_the_whole_ranking(number: int, at_most: int, top_n: int | None) -> None:
    documents = [f"text {place}" for place in range(number)]
    with StandIn() as server:
        whole = BOTH[0](server.url, documents=documents, top_n=top_n)
    for ask in BOTH:
        with StandIn(answer=refusing(at_most, *REFUSALS["TEI"])) as server:
            assert ask(server.url, documents=documents, top_n=top_n).ranked == whole.ranked


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "The prompt for document 3 has at least 9000 tokens: the model reads 8192 tokens."),
        (413, "inputs must have less than 512 tokens. Given: 1000"),
        (400, "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."),
        (422, "query: Field required"),
        (401, "too many documents"),
    ],
)
@pytest.mark.parametrize("ask", BOTH)
def test_other_refusals_are_raised_at_once(ask: Ask, status: int, message: str) -> None:
    with StandIn(answer=lambda _: Answer(status, {"message": message})) as server:
        with pytest.raises(RemoteRefused):
            ask(server.url, documents=["a", "b", "c", "d"])
        assert len(server.requests) == 1


@pytest.mark.parametrize("ask", BOTH)
def test_a_single_document_that_is_too_large_is_an_error(ask: Ask) -> None:
    with StandIn(answer=refusing(0, *REFUSALS["TEI"])) as server:
        with pytest.raises(RemoteRefused, match="batch size"):
            ask(server.url, documents=["a", "b", "c", "d"])
        assert [len(request.body["documents"]) for request in server.requests] == [4, 2, 1]


def given_ms(headers: dict[str, Any]) -> int:
    return int(headers["x-rerankd-deadline-ms"])


@pytest.mark.parametrize("ask", BOTH)
def test_each_request_has_the_time_that_is_left(ask: Ask) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        began = time.monotonic()
        while time.monotonic() < began + 0.02:
            time.sleep(0.001)
        return ranking_of(body)

    with StandIn(answer=answer) as server:
        ask(server.url, client={"max_documents": 1}, documents=list("abcdefghij"), deadline_s=1000)
        left = [given_ms(request.headers) for request in server.requests]
        assert all("deadline_ms" not in request.body for request in server.requests)
    assert 0 < min(left) and max(left) <= 1_000_000
    assert min(left) < max(left) - 38, "of four at a time, one at least is the third in a row"


@pytest.mark.parametrize("ask", BOTH)
def test_a_retry_has_the_time_that_is_left(ask: Ask) -> None:
    with StandIn([Answer(503, {"detail": "busy"}, {"retry-after": "0.02"})]) as server:
        ask(server.url, documents=["a"], deadline_s=1000)
        first, second = (given_ms(request.headers) for request in server.requests)
    assert second < first - 18


def nothing_in_time(documents: set[str]) -> Any:
    """Busy for the requests with one of these documents."""

    def answer(body: dict[str, Any]) -> Answer:
        if documents & set(body["documents"]):
            return Answer(503, {"detail": NothingInTime.MESSAGE}, {"retry-after": "50"})
        return ranking_of(body)

    return answer


@pytest.mark.parametrize("ask", BOTH)
def test_what_one_request_did_not_score_in_time_comes_last(ask: Ask) -> None:
    with StandIn(answer=nothing_in_time({"b", "e"})) as server:
        ranking = ask(server.url, client={"max_documents": 1}, documents=list("abcdef"), deadline_s=40)
        assert len(server.requests) <= 6, "a retry would come too late"
    assert [score.index for score in ranking if not score.scored] == [1, 4]
    assert [score.scored for score in ranking] == [True] * 4 + [False] * 2
    scores = [score.score for score in ranking]
    assert scores == sorted(scores, reverse=True) and [score.document for score in ranking.scores] == list("abcdef")
    assert "documents from 4 on: 1 of 1 documents were not scored before the deadline" in ranking.warnings


@pytest.mark.parametrize("ask", BOTH)
def test_nothing_in_time_is_the_server_s_error(ask: Ask) -> None:
    with StandIn(answer=nothing_in_time({"a", "b"})) as server:
        for size in (1, 2):
            with pytest.raises(RemoteUnavailable, match="No document was scored before the deadline"):
                ask(server.url, client={"max_documents": size}, documents=["a", "b"], deadline_s=40)


@pytest.mark.parametrize("ask", BOTH)
def test_after_the_deadline_no_request_is_sent(ask: Ask) -> None:
    with StandIn() as server:
        with pytest.raises(RemoteTimeout, match="was not asked in time"):
            ask(server.url, documents=["a"], deadline_s=1e-9)
        assert not server.requests


def longest_of(body: dict[str, Any]) -> int:
    return max(len(text.split()) for text in body["documents"])


def by_words(at_most: int) -> Any:
    """A server whose model reads so many words; a text has the score of the share of `cloves` in it."""

    def answer(body: dict[str, Any]) -> Answer:
        if (words := longest_of(body)) > at_most:
            said = f"This model's maximum context length is {at_most} tokens. However, you requested {words} tokens."
            return Answer(400, {"message": said})
        scores = [text.count("cloves") / len(text.split()) for text in body["documents"]]
        return Answer(
            body={"results": [{"index": at, "relevance_score": score} for at, score in enumerate(scores)]},
        )

    return answer


FILLER = "The harbour town ships nutmeg in wooden boats to many places. "
LONG = FILLER * 40 + "On Pemba grow cloves, cloves and cloves. " + FILLER * 20


@pytest.mark.parametrize("ask", BOTH)
@pytest.mark.parametrize(("passages", "at_a_time"), [(True, None), (Passages(40), None), (Passages(40), 3)])
def test_a_document_that_is_too_long_for_the_server_is_split_here(
    ask: Ask, passages: bool | Passages, at_a_time: int | None
) -> None:
    documents = ["cloves are dear", LONG, "boats"]
    client = {"max_documents": at_a_time} if at_a_time else {}
    with StandIn(answer=by_words(100)) as server:
        ranking = ask(server.url, client=client, documents=documents, passages=passages, top_n=2)
        asked = [request.body for request in server.requests]
    answered = [body for body in asked if longest_of(body) <= 100]
    assert all("passages" not in body and len(body["documents"]) <= (at_a_time or 999) for body in answered)
    assert [score.index for score in ranking] == [0, 1]
    long = ranking.scores[1]
    best = long.passages[0]
    assert "grow cloves" in LONG[best.start : best.end] == long.best_text and long.score == best.score
    assert long.num_passages == len(long.passages) > 3
    assert sorted((one.start, one.end) for one in long.passages)[0][0] == 0
    assert max(one.end for one in long.passages) == len(LONG)
    assert any("documents were split by the client" in warning for warning in ranking.warnings)
    assert not any("ignored" in warning for warning in ranking.warnings if "passages" in warning)


@pytest.mark.parametrize("ask", BOTH)
def test_without_passages_too_long_is_an_error(ask: Ask) -> None:
    with StandIn(answer=by_words(100)) as server:
        with pytest.raises(RemoteRefused, match="maximum context length"):
            ask(server.url, documents=["a", LONG])
        assert len(server.requests) == 1


@pytest.mark.parametrize("ask", BOTH)
def test_what_cannot_be_shorter_ends_with_the_server_s_words(ask: Ask) -> None:
    """The query, for example, is too long."""
    with StandIn(answer=by_words(0)) as server:
        with pytest.raises(RemoteRefused, match="maximum context length"):
            ask(server.url, documents=["a", LONG], passages=True)
        assert len(server.requests) < 12
