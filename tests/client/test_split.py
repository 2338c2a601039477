"""Calls that are more than one request: what is sent, and that the merged answer is that of one."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd import AsyncClient, Client, Usage
from rerankd.client.base import CONCURRENT_CHUNKS
from rerankd.client.dialects import DialectName
from rerankd.client.errors import RemoteRefused, RemoteReplyInvalid
from rerankd.errors import RerankdError
from support.fake_server import BOTH, QUERY, Answer, Ask, StandIn, ask_async, ask_sync, ranking_of, score_of
from support.server import Server


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=40),
    max_documents=st.integers(1, 41),
    top_n=st.none() | st.integers(1, 50),
)
def test_split_and_merged_is_unsplit(
    server: StandIn, documents: list[str], max_documents: int, top_n: int | None
) -> None:
    call: dict[str, Any] = {"documents": documents, "top_n": top_n}
    whole = ask_sync(server.url, **call)
    expected = sorted(range(len(documents)), key=lambda index: (-score_of(documents[index]), index))[:top_n]
    assert [result.index for result in whole.ranked] == expected
    for ask in BOTH:
        split = ask(server.url, client={"max_documents": max_documents}, **call)
        assert (split.ranked, split.usage, split.model, split.warnings) == (
            whole.ranked,
            whole.usage,
            whole.model,
            whole.warnings,
        )
        assert len(split.request_ids) == -(-len(documents) // max_documents)


@pytest.mark.parametrize("ask", BOTH)
def test_the_real_server_gives_the_same_scores_split_and_whole(ask: Ask, embedded_server: Server) -> None:
    documents = [f"Beijing is place {number} of {number % 7}." for number in range(540)]
    whole = ask(embedded_server.url, embedded_server.key, documents=documents, top_n=30)
    client = {"dialect": "dashscope", "model": "qwen3-rerank"}  # takes 500
    split = ask(embedded_server.url, embedded_server.key, client, documents=documents, top_n=30)
    assert (len(whole.request_ids), len(split.request_ids)) == (1, 2)
    assert [result.index for result in split.ranked] == [result.index for result in whole.ranked]
    assert [result.score for result in split.ranked] == pytest.approx([result.score for result in whole.ranked])


@pytest.mark.parametrize(
    ("dialect", "num_documents", "sizes"),
    [
        ("vllm", 5000, [5000]),
        ("dashscope-compatible", 500, [500]),
        ("dashscope-compatible", 1001, [500, 500, 1]),
        ("cohere", 1001, [1000, 1]),
        ("voyage", 1001, [1000, 1]),
        ("tei", 33, [32, 1]),
        ("infinity", 2049, [2048, 1]),
    ],
)
@pytest.mark.parametrize("ask", BOTH)
def test_the_documented_limits_are_kept_to(
    ask: Ask, dialect: DialectName, num_documents: int, sizes: list[int]
) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        return ranking_of({"documents": body.get("texts") or body["documents"]})

    with StandIn(answer=answer) as server:
        ask(server.url, client={"dialect": dialect}, documents=["a"] * num_documents)
        bodies = [request.body for request in server.requests]
    assert sorted((len(body.get("texts") or body["documents"]) for body in bodies), reverse=True) == sizes


@pytest.mark.parametrize("ask", BOTH)
def test_dashscope_s_limit_of_tokens_is_kept_to(ask: Ask, qwen_server: Server) -> None:
    documents = [f"Document {number}: " + "Beijing is the capital of China. " * 60 for number in range(300)]
    with StandIn() as server:
        ask(server.url, client={"dialect": "dashscope-compatible"}, documents=documents)
        parts = [request.body["documents"] for request in server.requests]
    assert sum(map(len, parts)) == 300
    # The real server counts with the model's own tokenizer, and has the same limit.
    texts = [QUERY, documents[299]]
    lengths = [
        qwen_server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["count"] for text in texts
    ]
    sizes = sorted((sum(lengths) * len(part) for part in parts), reverse=True)
    assert len(sizes) > 1
    assert all(50_000 < size <= 120_000 for size in sizes[:-1])


@pytest.mark.parametrize("ask", BOTH)
def test_only_some_requests_are_under_way_at_a_time(ask: Ask) -> None:
    two = Barrier(2)

    def answer(body: dict[str, Any]) -> Answer:
        two.wait(60)  # each has another one beside it
        time.sleep(0.01)
        return ranking_of(body)

    with StandIn(answer=answer) as stand_in:
        ask(stand_in.url, client={"max_documents": 1}, documents=list("abcdefghijklmnop"))
        assert len(stand_in.requests) == 16
        assert 1 < stand_in.most_at_once <= CONCURRENT_CHUNKS


@pytest.mark.parametrize("ask", BOTH)
def test_the_first_error_ends_the_call(ask: Ask) -> None:
    end = Event()

    def answer(body: dict[str, Any]) -> Answer:
        if body["documents"] == ["bad"]:
            while len(stand_in.requests) < CONCURRENT_CHUNKS:
                time.sleep(0.001)
            return Answer(400, {"message": "a bad document"})
        end.wait(60)
        return ranking_of(body)

    with StandIn(answer=answer) as stand_in:
        with pytest.raises(RemoteRefused, match="a bad document"):
            ask(stand_in.url, client={"max_documents": 1}, documents=["a", "bad", *"cdefghijklmnop"])
        assert not end.is_set()  # the others were not waited for
        assert len(stand_in.requests) <= CONCURRENT_CHUNKS + 1  # and no more were sent
        end.set()


def test_after_an_error_no_further_part_is_sent() -> None:
    end = Event()

    def answer(body: dict[str, Any]) -> Answer:
        if body["documents"] == ["bad"]:
            while len(stand_in.requests) < CONCURRENT_CHUNKS:
                time.sleep(0.001)
            return Answer(400, {"message": "a bad document"})
        end.wait(60)
        return ranking_of(body)

    with StandIn(answer=answer) as stand_in, Client(stand_in.url, max_documents=1) as client:
        with pytest.raises(RemoteRefused, match="a bad document"):
            client.rank(QUERY, ["bad", *"bcdefghijklmnop"])
        end.set()  # now the threads of the call go on
        time.sleep(0.2)
        assert len(stand_in.requests) <= CONCURRENT_CHUNKS + 1
        assert len(client.rank(QUERY, ["a", "b"]).ranked) == 2


@pytest.mark.parametrize("ask", BOTH)
def test_an_error_wins_over_parts_that_wait_to_be_asked_again(ask: Ask) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        if body["documents"] == ["bad"]:
            while len(stand_in.requests) < CONCURRENT_CHUNKS:
                time.sleep(0.001)
            return Answer(400, {"message": "a bad document"})
        return Answer(503, headers={"retry-after": "30"})

    with StandIn(answer=answer) as stand_in, pytest.raises(RemoteRefused, match="a bad document"):
        ask(stand_in.url, client={"max_documents": 1}, documents=["a", "b", "c", "bad", "e"])


@pytest.mark.parametrize("ask", BOTH)
def test_no_part_is_asked_for_more_than_it_holds(ask: Ask) -> None:
    with StandIn() as stand_in:
        assert len(ask(stand_in.url, client={"max_documents": 2}, documents=["a", "b", "c"], top_n=5).ranked) == 3
        assert sorted(request.body["top_n"] for request in stand_in.requests) == [1, 2]


@pytest.mark.parametrize("ask", BOTH)
def test_progress_counts_the_documents_of_each_part(ask: Ask) -> None:
    done: list[int] = []
    with StandIn() as stand_in:
        ask(stand_in.url, client={"max_documents": 2}, documents=list("abcde"), progress=done.append)
    assert len(done) == 3 and done == sorted(done) and done[-1] == 5


@pytest.mark.parametrize("ask", BOTH)
def test_a_part_that_fails_for_a_while_is_asked_again(ask: Ask) -> None:
    with StandIn([Answer(503, headers={"retry-after": "0"})] * 3) as stand_in:
        ranking = ask(stand_in.url, client={"max_documents": 2, "max_retries": 3}, documents=list("abcdef"))
    assert len(ranking.ranked) == 6
    assert len(stand_in.requests) == 6


@pytest.mark.parametrize("ask", BOTH)
def test_warnings_name_their_part_and_common_ones_come_once(ask: Ask) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        reply = ranking_of(body)
        cut = ["document 1 truncated"] if "long" in body["documents"] else []
        return Answer(body={**reply.body, "meta": {"warnings": ["small model", *cut]}})

    with StandIn(answer=answer) as stand_in:
        ranking = ask(stand_in.url, client={"max_documents": 2}, documents=["a", "b", "c", "long", "e"])
    assert ranking.warnings == ("small model", "documents from 2 on: document 1 truncated")


@pytest.mark.parametrize("ask", BOTH)
def test_usage_is_the_sum_or_unknown(ask: Ask) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        units = {"billed_units": {"search_units": 1}} if "b" in body["documents"] else {}
        return Answer(body={**ranking_of(body).body, "meta": units})

    with StandIn(answer=answer) as stand_in:
        ranking = ask(stand_in.url, client={"max_documents": 1}, documents=["a", "b", "b"])
    assert ranking.usage == Usage(total_tokens=3, search_units=None)


def test_an_async_call_that_is_cancelled_ends_its_requests() -> None:
    end = Event()
    asked = Event()

    def answer(body: dict[str, Any]) -> Answer:
        asked.set()
        end.wait(60)
        return ranking_of(body)

    async def call(url: str) -> None:
        async with AsyncClient(url, max_documents=1) as client:
            task = asyncio.create_task(client.rank(QUERY, list("abcdefgh")))
            await asyncio.to_thread(asked.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with StandIn(answer=answer) as stand_in:
        asyncio.run(call(stand_in.url))
        assert len(stand_in.requests) <= CONCURRENT_CHUNKS
        end.set()


def test_connections_are_used_again() -> None:
    async def ask_twice(url: str) -> None:
        async with AsyncClient(url) as client:
            await client.rank(QUERY, ["a"])
            await client.rank(QUERY, ["b"])

    with StandIn() as stand_in:
        with Client(stand_in.url) as client:
            client.rank(QUERY, ["a"])
            client.rank(QUERY, ["b"])
        assert stand_in.num_connections == 1
        asyncio.run(ask_twice(stand_in.url))
        assert stand_in.num_connections == 2


def test_one_client_serves_many_threads(server: StandIn) -> None:
    texts = [[f"text {number} of {caller}" for number in range(7)] for caller in range(12)]
    with Client(server.url, max_documents=3) as client, ThreadPoolExecutor(12) as pool:
        rankings = list(pool.map(lambda documents: client.rank(QUERY, documents), texts))
    for documents, ranking in zip(texts, rankings, strict=True):
        assert {result.document for result in ranking.ranked} == set(documents)


CASES: dict[str, Callable[[], list[Answer]]] = {
    "good": lambda: [],
    "busy, then good": lambda: [Answer(503, {"detail": "busy"}, {"retry-after": "0"})] * 2,
    "busy": lambda: [Answer(429, {"detail": "busy"}, {"retry-after": "0", "x-request-id": "1"})] * 3,
    "long pause": lambda: [Answer(429, {"detail": "busy"}, {"retry-after": "999"})],
    "refused": lambda: [Answer(422, {"detail": "no"})],
    "wrong key": lambda: [Answer(401, b"")],
    "broken": lambda: [Answer(500, b"oh")] * 3,
    "no ranking": lambda: [Answer(200, {"results": 1})],
    "hangs up": lambda: [Answer(hang_up=True)] * 3,
}


@pytest.mark.parametrize("case", CASES)
def test_sync_and_async_come_to_the_same(case: str) -> None:
    """The same answer or the same error, in the same words, after the same requests."""

    def outcome(ask: Ask) -> tuple[object, ...]:
        with StandIn(CASES[case]()) as stand_in:
            seen: tuple[object, ...]
            try:
                seen = (ask(stand_in.url, "key", top_n=2),)
            except RerankdError as error:
                seen = (type(error), str(error).replace(stand_in.url, ""), vars(error))
            return *seen, [(request.path, request.body) for request in stand_in.requests]

    assert outcome(ask_sync) == outcome(ask_async)


def test_the_two_have_the_same_arguments() -> None:
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)
    assert inspect.signature(Client.rank) == inspect.signature(Client.arank)
    shared = [one for one in inspect.signature(AsyncClient.rank).parameters.values() if one.name != "slots"]
    assert list(inspect.signature(Client.rank).parameters.values()) == shared
    assert AsyncClient.rank is AsyncClient.arank


def test_a_reply_to_a_part_may_not_name_documents_of_another(server: StandIn) -> None:
    beyond = Answer(body={"results": [{"index": 2, "relevance_score": 0.5}]})
    with (
        StandIn([beyond, beyond]) as stand_in,
        pytest.raises(RemoteReplyInvalid, match="index 2; there are 2 documents"),
    ):
        ask_sync(stand_in.url, client={"max_documents": 2}, documents=list("abcd"))
