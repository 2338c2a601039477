"""How the clients are used: copies, pickles, forks, event loops, the environment, redirects, texts of every kind."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import pickle
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rerankd
from rerankd import AsyncClient, AsyncRanker, Client, Ranker, Ranking, Score, Usage
from rerankd.client.dialects import DialectName
from rerankd.client.errors import RemoteReplyInvalid
from rerankd.errors import Closed, SettingsError
from support.fake_server import BOTH, DOCUMENTS, QUERY, Answer, Ask, StandIn, ask_sync, ranking_of, score_of

both = pytest.mark.parametrize("ask", BOTH)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn() as server:
        yield server


# Texts


@both
def test_half_a_character_is_replaced_wherever_it_is(ask: Ask, server: StandIn) -> None:
    ranking = ask(
        server.url,
        query="half \ud83d",
        documents=["pdf \udcaf text", {"text": "a\ud800", "id": "\udfff"}, "whole"],
        instruct="\udcaf",
        model="m\udcaf",
    )
    body = server.requests[0].body
    assert body["query"] == "half \ufffd" and body["documents"] == ["pdf \ufffd text", "a\ufffd", "whole"]
    assert body["instruction"] == "\ufffd" and body["model"] == "m\ufffd"
    places = "the query, the instruct, document 0, document 1"
    assert ranking.warnings == (f"lone surrogates were replaced by U+FFFD in {places}",)
    assert sorted(result.document or "" for result in ranking) == ["a\ufffd", "pdf \ufffd text", "whole"]


@both
def test_what_holds_texts_is_taken(ask: Ask, server: StandIn) -> None:
    for documents in (np.array(["a", "b"]), (text for text in "ab"), [{"text": "a"}, {"text": "b"}], ("a", "b")):
        assert len(ask(server.url, documents=documents, top_n=np.int64(1))) == 1
    assert [request.body["documents"] for request in server.requests] == [["a", "b"]] * 4


@both
def test_nothing_is_sent_for_no_documents(ask: Ask, server: StandIn) -> None:
    ranking = ask(server.url, documents=[])
    assert (len(ranking), ranking.model, ranking.warnings, server.requests) == (0, None, (), [])


@both
def test_an_empty_query_is_warned_of(ask: Ask, server: StandIn) -> None:
    assert ask(server.url, query=" ").warnings == ("the query is empty: the scores mean little",)


@both
@pytest.mark.parametrize("dialect", ["cohere", "voyage", "sglang", "nim"])
def test_empty_texts_come_last_where_an_api_refuses_them(ask: Ask, dialect: DialectName) -> None:
    def answer(body: dict[str, Any]) -> Answer:
        texts = body.get("documents") or [passage["text"] for passage in body["passages"]]
        return ranking_of({"documents": texts})

    with StandIn(answer=answer) as server:
        done: list[int] = []
        ranking = ask(server.url, client={"dialect": dialect}, documents=["", "a", " \n", "b"], progress=done.append)
        assert len(server.requests) == 1
        assert [result.index for result in ranking][2:] == [0, 2]
        assert [result.score for result in ranking][2:] == [0.0, 0.0]
        assert {result.index: result.score for result in ranking if result.score} == {
            1: score_of("a"),
            3: score_of("b"),
        }
        assert f"empty documents were not sent ({dialect} refuses them) and come last: 2" in ranking.warnings
        assert done == [4]
        assert [result.index for result in ask(server.url, client={"dialect": dialect}, documents=["", ""])] == [0, 1]
        assert len(server.requests) == 1


@both
def test_elsewhere_they_are_scored(ask: Ask, server: StandIn) -> None:
    assert ask(server.url, documents=["", "a"]).warnings == ()
    assert server.requests[0].body["documents"] == ["", "a"]


@both
def test_a_nim_is_asked_in_its_words_and_its_logits_are_scores(ask: Ask) -> None:
    rankings = [{"index": 2, "logit": 50.5}, {"index": 1, "logit": 60.0}, {"index": 0, "logit": 0}]
    with StandIn([Answer(body={"rankings": rankings})]) as server:
        ranking = ask(f"{server.url}/v1/ranking", model="nvidia/rerank-qa")
    assert server.requests[0].path == "/v1/ranking"
    assert server.requests[0].body == {
        "model": "nvidia/rerank-qa",
        "query": {"text": QUERY},
        "passages": [{"text": text} for text in DOCUMENTS],
        "truncate": "END",
    }
    assert [(result.index, result.logit) for result in ranking] == [(1, 60.0), (2, 50.5), (0, 0.0)]
    assert ranking[2].score == 0.5


# Settings


@both
def test_without_an_address_that_of_the_environment_is_asked(
    ask: Ask, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere: Any = None
    monkeypatch.setenv("RERANKD_URL", "")
    with pytest.raises(SettingsError, match="set RERANKD_URL"):
        ask(nowhere)
    monkeypatch.setenv("RERANKD_URL", server.url)
    monkeypatch.setenv("RERANKD_API_KEY", "its-key")
    ask(nowhere)
    ask(nowhere, "another")
    ask(server.url)  # the key of the environment belongs to the address of the environment
    assert [request.headers.get("authorization") for request in server.requests] == [
        "Bearer its-key",
        "Bearer another",
        None,
    ]


@both
def test_headers_are_sent_and_take_the_place_of_ours(ask: Ask, server: StandIn) -> None:
    ask(server.url, "key", client={"headers": {"Api-Key": "k", "Authorization": "Basic x", "User-Agent": "me"}})
    headers = server.requests[0].headers
    assert (headers["api-key"], headers["authorization"], headers["user-agent"]) == ("k", "Basic x", "me")


# Redirects


@both
def test_headers_of_one_call_take_the_place_of_the_client_s(ask: Ask, server: StandIn) -> None:
    own = {"headers": {"x-team": "a", "x-other": "b"}}
    ask(server.url, "secret", own, headers={"X-Team": "c", "authorization": "Bearer another"})
    with pytest.raises(SettingsError, match="header 'x-team' holds characters") as refused:
        ask(server.url, "secret", own, headers={"x-team": "a\nb"})
    assert "a\nb" not in str(refused.value)
    [request] = server.requests
    sent = {name: request.headers[name] for name in ("x-team", "x-other", "authorization")}
    assert sent == {"x-team": "c", "x-other": "b", "authorization": "Bearer another"}


@both
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirection_on_the_same_server_is_followed(ask: Ask, status: int) -> None:
    with StandIn([Answer(status, b"", {"location": "/v1/rerank/"})]) as server:
        assert len(ask(server.url, "key")) == 3
    first, second = server.requests
    assert (second.path, second.body) == ("/v1/rerank/", first.body)
    assert second.headers["authorization"] == "Bearer key"


@both
@pytest.mark.parametrize("target", ["https://elsewhere.example/v1/rerank?key=x", "http://127.0.0.1:1/"])
def test_a_redirection_elsewhere_is_an_error_and_no_key_goes_there(ask: Ask, target: str) -> None:
    with StandIn([Answer(307, b"", {"location": target})]) as server:
        with pytest.raises(RemoteReplyInvalid, match=f"redirects to {target.partition('?')[0]}: give that address"):
            ask(server.url, "key")
        assert len(server.requests) == 1


@both
def test_a_circle_is_left(ask: Ask) -> None:
    with StandIn(answer=lambda body: Answer(307, b"", {"location": "/v1/rerank"})) as server:
        with pytest.raises(RemoteReplyInvalid, match="answered 307: it redirects to"):
            ask(server.url)
        assert len(server.requests) == 4


# Copies, processes, loops

COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda client: pickle.loads(pickle.dumps(client))]


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_has_the_settings_and_connections_of_its_own(copied: Callable[[Any], Any], server: StandIn) -> None:
    with Client(server.url, "a-key", model="m", headers={"x": "y"}) as client:
        client.rank(QUERY, ["a"])
        other = copied(client)
        assert repr(other) == repr(client) == f"Client('{server.url}/v1/rerank', dialect='vllm')"
    with other:  # although the first one is closed
        other.rank(QUERY, ["a"])
    assert server.requests[0].body == server.requests[1].body
    assert server.requests[0].headers == server.requests[1].headers
    assert server.num_connections == 2


@pytest.mark.parametrize("copied", COPIES)
def test_so_has_a_copy_for_asyncio(copied: Callable[[Any], Any], server: StandIn) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, "a-key") as client:
            await client.rank(QUERY, ["a"])
            async with copied(client) as other:
                await other.rank(QUERY, ["a"])

    asyncio.run(main())
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer a-key"] * 2


def test_a_copy_shares_a_context_of_certificates() -> None:
    context = ssl.create_default_context()
    assert copy.deepcopy(Client("https://rerank.corp", verify=context))._settings.verify is context


def test_no_key_is_shown() -> None:
    client = Client("http://user:secret@rerank.corp?token=secret", "secret", headers={"x": "secret"})
    assert "secret" not in repr(client) + str(client)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: this process has threads
@pytest.mark.parametrize("is_async", [False, True])
def test_a_forked_process_has_connections_of_its_own(is_async: bool, server: StandIn) -> None:
    client: Any = (AsyncClient if is_async else Client)(server.url)

    def asked() -> int:
        return len(asyncio.run(client.rank(QUERY, ["a"])) if is_async else client.rank(QUERY, ["a"]))

    if not is_async:
        client.rank(QUERY, ["a"])
    connections = server.num_connections
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(asked()))
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        assert receiver.recv() == 1
        child.join(60)
    finally:
        child.kill()
    assert server.num_connections == connections + 1
    if not is_async:
        client.rank(QUERY, ["a"])
        assert server.num_connections == connections + 1  # the parent's is as it was
        client.close()


def test_an_async_client_outlives_an_event_loop() -> None:
    answers = [Answer(body=ranking_of({"documents": ["a"]}).body, headers={"connection": "close"}) for _ in range(2)]
    with StandIn(answers) as server:
        client = AsyncClient(server.url)
        for _ in range(2):
            assert len(asyncio.run(client.rank(QUERY, ["a"]))) == 1
        assert len(server.requests) == 2


def test_a_closed_client_says_so(server: StandIn) -> None:
    client = Client(server.url)
    client.rank(QUERY, ["a"])
    client.close()
    client.close()
    with pytest.raises(Closed, match="This Client is closed: make a new one"):
        client.rank(QUERY, ["a"])

    async def main() -> None:
        client = AsyncClient(server.url)
        await client.rank(QUERY, ["a"])
        await client.close()
        with pytest.raises(Closed, match="This AsyncClient is closed"):
            await client.rank(QUERY, ["a"])

    asyncio.run(main())


# One way for both


def best(ranker: Ranker) -> tuple[int, float, str | None]:
    """Code that knows neither `Reranker` nor `Client`."""
    ranking = ranker.rank("capital of China?", ["Gravity is a force.", "Beijing is the capital of China."], top_n=1)
    [result] = ranking
    return result.index, result.score, result.document


async def abest(ranker: AsyncRanker) -> int:
    [result] = await ranker.arank("capital of China?", ["Gravity.", "Beijing is the capital of China."], top_n=1)
    return result.index


def test_code_can_switch_between_a_model_and_a_server(embedded_server: Any) -> None:
    from rerankd import Reranker

    async def main(*rankers: AsyncRanker) -> list[int]:
        async with AsyncClient(embedded_server.url, embedded_server.key) as client:
            return [await abest(ranker) for ranker in (*rankers, client)]

    with Reranker("embedded") as reranker, Client(embedded_server.url, embedded_server.key) as client:
        here, there = best(reranker), best(client)
        assert here[::2] == there[::2] == (1, "Beijing is the capital of China.")
        assert here[1] == pytest.approx(there[1], abs=1e-4)
        assert asyncio.run(main(reranker, client)) == [1, 1, 1]


def test_the_remote_types_are_deprecated_names() -> None:
    for old, new in (("RemoteRanking", Ranking), ("RemoteScore", Score), ("RemoteUsage", Usage)):
        with pytest.warns(
            DeprecationWarning, match=f"rerankd.{old} is deprecated: use rerankd.{new.__name__}"
        ) as warned:
            assert getattr(rerankd, old) is new
        assert [warning.filename for warning in warned] == [__file__]


def test_rerank_is_a_deprecated_name_of_rank(server: StandIn) -> None:
    with Client(server.url) as client, pytest.warns(DeprecationWarning, match=r"Client\.rerank .*: use rank") as warned:
        assert client.rerank(QUERY, DOCUMENTS, top_n=1) == client.rank(QUERY, DOCUMENTS, top_n=1)
    assert [warning.filename for warning in warned] == [__file__]

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.warns(DeprecationWarning, match=r"AsyncClient\.rerank .*: use rank") as warned:
                assert await client.rerank(QUERY, DOCUMENTS, top_n=1) == await client.rank(QUERY, DOCUMENTS, top_n=1)
            assert [warning.filename for warning in warned] == [__file__]

    asyncio.run(main())


def test_progress_is_reported_for_a_call_that_is_not_split(server: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    ask_sync(server.url, progress=done.append)
    assert done == [3]
    assert len(ask_sync(server.url, progress=lambda number: 1 // 0)) == 3
    assert "A progress callback failed" in caplog.text
