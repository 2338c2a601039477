"""Passages, sentences, thresholds, a second model, deadlines, caches, clients and routers, in random combinations.

The models' logits are a function of the texts alone, so every number of every reply can be computed again.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerankd import Client, Passages
from rerankd.accounts.store import Store, open_store
from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.server.models import Cascade, Models
from rerankd.server.served import ServedModel
from rerankd.testing import INFO, FakeModel
from rerankd.types import Prompt, sigmoid
from support.routing import routing, upstream
from support.serving import serving_model
from support.surfaces import ALL, INFINITY, NIM, RERANK, Surface

Row = Mapping[str, Any]

AN_HOUR_MS = 3_600_000
LATER_S = 4_000.0
"""Less than an hour for a batch, in the mean of several."""
QUERY = "where do cloves grow"
ALL_PASSAGES = 100
NUMBERS = count()


def logit_of(model: str, text: str) -> float:
    """Exact in float32."""
    return (zlib.crc32(f"{model} {text}".encode()) % 1024 - 512) / 64


def num_words(text: str) -> int:
    return len(text.split())


@dataclass
class Clock:
    """Jumps past any deadline while a model computes the prompt after so many."""

    left: int | None = None
    ahead: float = 0.0
    engines: list[Engine] = field(default_factory=list)

    def __call__(self) -> float:
        return time.monotonic() + self.ahead

    def count(self) -> None:
        left = self.left
        self.left = None if left is None else left - 1  # before a reply leaves, and the test goes on
        if left == 0:
            self.ahead += LATER_S
            for engine in self.engines:
                engine.end_late()


class Model(FakeModel):
    """Each prompt fills a batch."""

    def __init__(self, name: str, clock: Clock) -> None:
        super().__init__(self._score, _full_batch, replace(INFO, name=name))
        self._name, self._clock = name, clock

    def _score(self, prompt: Prompt) -> float:
        self._clock.count()
        return logit_of(self._name, prompt.document)


def _full_batch(query: str, document: str) -> Sequence[int]:
    first = zlib.crc32(document.encode()) % 1_000_000
    return range(first, first + MAX_BATCH_TOKENS)


@dataclass
class Served:
    """A server with accounts, and the account that calls it. A token costs one."""

    client: httpx2.Client
    store: Store
    account_id: int
    clock: Clock = field(default_factory=Clock)

    @property
    def money(self) -> tuple[int, int]:
        account = self.store.accounts.by_id(self.account_id)
        assert account is not None
        return account.balance // 1_000_000, account.reserved

    def post(self, surface: Surface, body: Any, request_id: str = "") -> tuple[list[dict[str, Any]], int]:
        """The results, and the charged tokens."""
        before, _ = self.money
        headers = {"x-request-id": request_id or f"call-{next(NUMBERS)}"}
        answer = self.client.post(surface.path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        tokens = before - self.money[0]
        assert self.money[1] == 0 and int(answer.headers["x-rerankd-cost"]) == tokens * 1_000_000
        return surface.rows(answer.json()), tokens


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('combinations') / 'accounts.db'}")
    yield opened
    assert opened.ledger.check() == []
    opened.database.close()


def served(until: ExitStack, store: Store, folder: Any, *, cache: int, two: bool) -> Served:
    card = folder / "rerankd.toml"
    card.write_text("[rates.small]\ninput_price = 1_000_000\n[rates.large]\ninput_price = 1_000_000\n")
    account = store.accounts.create(f"team-{next(NUMBERS)}@example.org")
    store.ledger.add_credits(account.id, 900_000_000_000_000)
    _, key = store.keys.create(account.id, "test")
    clock = Clock()

    def start(name: str) -> EngineScorer:
        model = Model(name, clock)
        clock.engines.append(Engine(model, clock=clock, score_cache_bytes=cache))
        return EngineScorer(clock.engines[-1], model)

    one, other = (ServedModel(lambda _, name=name: start(name)) for name in ("small", "large"))  # type: ignore[misc]
    models = Models(one, other, cascade=Cascade(other, 2, False)) if two else Models(one)
    client = until.enter_context(serving_model(models, store=store, accounts=True, config=card, max_passages=64))
    client.headers["authorization"] = f"Bearer {key}"
    return Served(client, store, account.id, clock)


@pytest.fixture(scope="module")
def both(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two models, and a cache of scores."""
    with ExitStack() as until:
        yield served(until, store, tmp_path_factory.mktemp("both"), cache=1_000_000, two=True)


@pytest.fixture(scope="module")
def alone(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One model, and no cache."""
    with ExitStack() as until:
        yield served(until, store, tmp_path_factory.mktemp("alone"), cache=0, two=False)


WORDS = st.sampled_from(["cloves", "grow", "on", "Pemba", "🌴 palms", "面包", "town", "ships", "nutmeg", "e\u0301tat"])
SENTENCES = st.builds(lambda words: f"{' '.join(words)}. ", st.lists(WORDS, min_size=1, max_size=12))
DOCUMENTS = st.builds(lambda sentences: "".join(sentences), st.lists(SENTENCES, min_size=1, max_size=14))
LISTS = st.lists(DOCUMENTS, min_size=1, max_size=6)
PASSAGES = st.fixed_dictionaries(
    {"max_tokens": st.integers(16, 50), "overlap_tokens": st.integers(0, 20), "max_per_doc": st.integers(1, 8)}
)
MOST = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def body_of(surface: Surface, documents: Sequence[str], **options: Any) -> Any:
    if surface is NIM and "passages" in options:
        options["passage_options"] = options.pop("passages")
    options = {name: value for name, value in options.items() if value is not None}
    return surface.body(QUERY, list(documents), **options)


def check_texts(row: Row, documents: Sequence[str], model: str = "small") -> None:
    """Every passage and sentence has the logit of its text, and the result that of its best passage."""
    text, passages = documents[row["index"]], row["passages"]
    for passage in passages:
        part = text[passage["start"] : passage["end"]]
        assert passage["logit"] == logit_of(model, part) and passage["score"] == sigmoid(passage["logit"])
        for sentence in passage.get("sentences") or ():
            assert passage["start"] <= sentence["start"] < sentence["end"] <= passage["end"]
            assert sentence["logit"] == logit_of(model, text[sentence["start"] : sentence["end"]])
    logits = [passage["logit"] for passage in passages]
    assert logits == sorted(logits, reverse=True) and row["num_passages"] >= len(passages)
    if "explain" in row:
        assert row["explain"]["logit"] == logits[0]


def billed(rows: Sequence[Row], documents: Sequence[str]) -> int:
    """Query × texts + Σ texts, of all passages and sentences in the rows."""
    texts = [documents[row["index"]][one["start"] : one["end"]] for row in rows for one in parts_of(row)]
    return sum(num_words(QUERY) + num_words(text) for text in texts)


def parts_of(row: Row) -> list[Row]:
    return [part for passage in row["passages"] for part in (passage, *(passage.get("sentences") or ()))]


@MOST
@given(
    documents=LISTS,
    options=PASSAGES,
    surface=st.sampled_from(ALL),
    cascade=st.sampled_from([False, None, 1, 3]),
    highlight=st.booleans(),
    top_n=st.none() | st.integers(1, 7),
    min_score=st.none() | st.floats(0, 1),
    return_documents=st.sampled_from([None, True, False]),
    explain=st.booleans(),
)
def test_any_options_on_any_path(
    documents: list[str],
    options: dict[str, Any],
    surface: Surface,
    cascade: bool | int | None,
    highlight: bool,
    top_n: int | None,
    min_score: float | None,
    return_documents: bool | None,
    explain: bool,
    both: Served,
) -> None:
    whole = {**options, "top_n": ALL_PASSAGES}
    stages = False if highlight else cascade
    every, tokens = both.post(RERANK, body_of(RERANK, documents, passages=whole, explain=True, cascade=stages))
    for row in every:
        check_texts(row, documents, row["explain"].get("model") or "small")
        spans = sorted((passage["start"], passage["end"]) for passage in row["passages"])
        assert len(spans) == row["num_passages"] <= options["max_per_doc"] and spans[0][0] == 0
        assert all(start <= end for (_, end), (start, _) in zip(spans[1:], spans, strict=False))
    scores = [row["relevance_score"] for row in every]
    assert scores == sorted(scores, reverse=True) and len(every) == len(documents)
    second = [row for row in every if row["explain"].get("stage") == 2]
    assert tokens == billed(every, documents) + billed(second, documents)

    options = {**whole, "highlight": highlight}
    own = {"passages": options, "cascade": stages, "min_score": min_score, "explain": explain or None}
    if surface.api not in ("vllm-score",):
        own["top_n"] = top_n
    if surface.api in ("vllm-rerank", "cohere-v1", "jina", "voyage", "infinity"):
        own["return_documents"] = return_documents
    found, asked_tokens = both.post(surface, body_of(surface, documents, **own))
    stripped = [text.strip() for text in documents] if surface is INFINITY else documents
    kept = [row for row in every[:top_n] if min_score is None or row["relevance_score"] >= min_score]
    if surface.api == "vllm-score":
        kept = every
    if surface is not INFINITY:  # which cuts other texts
        assert {row["index"] for row in found} == {row["index"] for row in kept} or surface.api == "tei"
        of_plain = {row["index"]: row for row in every}
        assert asked_tokens - tokens == sum(
            num_words(QUERY) + num_words(documents[row["index"]][one["start"] : one["end"]])
            for row in found
            for one in row["passages"][0].get("sentences") or ()
        )
        for row in found:
            plain = [{**one, "sentences": None} for one in of_plain[row["index"]]["passages"]]
            assert [{**one, "sentences": None} for one in row["passages"]] == plain
    for row in found:
        model = "large" if row["index"] in {one["index"] for one in second} and surface is not INFINITY else "small"
        if surface is not INFINITY or stages is False:
            check_texts(row, stripped if surface is INFINITY else documents, model)
        passes = surface is INFINITY or min_score is None or row["passages"][0]["score"] >= min_score  # or is not paid
        assert bool(row["passages"][0].get("sentences")) is (highlight and passes)
    assert both.post(surface, body_of(surface, documents, **own))[1] == asked_tokens, "known scores cost the same"


@MOST
@given(documents=LISTS, options=PASSAGES, scored=st.integers(1, 20), min_score=st.none() | st.floats(0, 1))
def test_a_deadline_at_any_passage(
    documents: list[str], options: dict[str, Any], scored: int, min_score: float | None, alone: Served
) -> None:
    asked = {"passages": {**options, "top_n": ALL_PASSAGES}, "deadline_ms": AN_HOUR_MS}
    alone.clock.left, alone.clock.ahead = None, 0.0
    every, whole = alone.post(RERANK, body_of(RERANK, documents, **asked))  # the engine learns its speed again
    name = f"again-{next(NUMBERS)}"
    alone.clock.left = scored
    found, tokens = alone.post(RERANK, body_of(RERANK, documents, **asked, min_score=min_score), name)
    alone.clock.left, alone.clock.ahead = None, 0.0
    done = [row for row in found if row.get("scored", True)]
    for row in done:
        check_texts(row, documents)
    if min_score is None:
        num_passages = sum(row["num_passages"] for row in every)
        assert sum(row["num_passages"] for row in done) >= min(scored, num_passages)
    assert all(row in found[len(done) :] for row in found if row not in done)
    scores = [row["relevance_score"] for row in found]
    assert scores == sorted(scores, reverse=True)
    if min_score is None:
        assert sorted(row["index"] for row in found) == list(range(len(documents)))
        assert tokens == billed(done, documents) <= whole
    else:
        assert done == found and min(scores, default=1.0) >= min_score
    again, more = alone.post(RERANK, body_of(RERANK, documents, **asked, min_score=min_score), name)
    assert more == (0 if tokens == whole else whole), "only a call that was scored in full makes its repeat free"
    assert len(again) == sum(min_score is None or row["relevance_score"] >= min_score for row in every)


@MOST
@given(
    documents=LISTS,
    options=PASSAGES,
    dialect=st.sampled_from(["rerankd", "vllm", "dashscope", "cohere", "jina", "voyage", "tei", "nim", "xinference"]),
    at_a_time=st.integers(1, 6),
    top_n=st.none() | st.integers(1, 7),
    min_score=st.none() | st.floats(0, 1),
)
def test_a_client_that_splits_the_call(
    documents: list[str],
    options: dict[str, Any],
    dialect: Any,
    at_a_time: int,
    top_n: int | None,
    min_score: float | None,
    alone: Served,
) -> None:
    every, _ = alone.post(RERANK, body_of(RERANK, documents, passages={**options, "top_n": 1}))
    key = alone.client.headers["authorization"].removeprefix("Bearer ")
    with Client(
        str(alone.client.base_url), dialect=dialect, api_key=key, max_documents=at_a_time, model="small"
    ) as client:
        ranking = client.rank(QUERY, documents, top_n=top_n, min_score=min_score, passages=Passages(**options))
    kept = [row for row in every[:top_n] if min_score is None or row["relevance_score"] >= min_score]
    if len({row["relevance_score"] for row in every}) == len(every):
        assert [score.index for score in ranking] == [row["index"] for row in kept]
    by_index = {row["index"]: row for row in every}
    for score in ranking:
        [best] = by_index[score.index]["passages"]
        assert (score.passages[0].start, score.passages[0].end) == (best["start"], best["end"])
        assert score.num_passages == by_index[score.index]["num_passages"]
        assert score.score == pytest.approx(best["score"], abs=1e-8)


@pytest.fixture(scope="module")
def routed(alone: Served) -> Iterator[httpx2.Client]:
    """A router in front of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKER_KEY", alone.client.headers["authorization"].removeprefix("Bearer "))
        worker = upstream("worker", str(alone.client.base_url), api_key="env:WORKER_KEY", skip_self_test=True)
        with routing({**worker, "dialect": "rerankd", "model": "small"}) as router:
            yield router.client


@MOST
@given(
    documents=LISTS,
    options=PASSAGES,
    surface=st.sampled_from([one for one in ALL if one is not INFINITY]),
    min_score=st.none() | st.floats(0, 1),
)
def test_a_router_in_front(
    documents: list[str], options: dict[str, Any], surface: Surface, min_score: float | None, routed: httpx2.Client
) -> None:
    options = {**options, "top_n": ALL_PASSAGES}
    body = body_of(surface, documents, passages=options, min_score=min_score)
    body |= {"model": "qwen3-rerank"} if "model" in body else {}
    answer = routed.post(surface.path, json=body)
    assert answer.status_code == 200, answer.text
    for row in surface.rows(answer.json()):
        text = documents[row["index"]]
        for passage in row["passages"]:
            assert passage["logit"] == pytest.approx(
                logit_of("small", text[passage["start"] : passage["end"]]), abs=1e-6
            )
        assert surface.api == "vllm-score" or min_score is None or row["passages"][0]["score"] >= min_score
