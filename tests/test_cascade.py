"""A cascade: a small model scores every document, a large one the best of them; in a program and in the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd import Passages, Reranker
from rerankd.accounts.store import Store
from rerankd.cascade import choose, merge
from rerankd.cli.served import make_models
from rerankd.config import ServerSettings
from rerankd.errors import SettingsError
from rerankd.server.models import Cascade, Models
from rerankd.server.served import ServedModel
from rerankd.testing import INFO, FakeModel
from rerankd.types import Prompt, Ranking, RerankRequest, Score, Usage, sigmoid
from support.fakes import scorer_of
from support.server import StartServer
from support.serving import serving_model
from support.surfaces import ALL, NATIVE, RERANK, Surface

SMALL, LARGE = replace(INFO, name="small"), replace(INFO, name="large")
DOCUMENTS = ["3", "1", "-2", "-4"]
numbers = st.floats(-20, 20, width=32)


def run_of(values: list[float]) -> Ranking:
    scores = tuple(Score(index, sigmoid(value), value) for index, value in enumerate(values))
    return Ranking(tuple(sorted(scores, key=lambda one: -one.raw_score)), Usage(4, 2), ("warned",), "m", scores)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12), st.integers(1, 14), st.integers(1, 14))
def test_order_and_logits_are_those_of_two_runs(pairs: list[tuple[float, float]], top: int, top_n: int) -> None:
    small, large = [one for one, _ in pairs], [two for _, two in pairs]
    request = RerankRequest(("q",), tuple(map(str, range(len(pairs)))))
    first = run_of(small)
    chosen = choose(request, first, top)
    assert chosen.request.documents == tuple(map(str, chosen.indices))
    then = run_of([large[index] for index in chosen.indices])
    found = merge(first, chosen, then, (SMALL, LARGE), None)
    best = sorted(range(len(pairs)), key=lambda index: (-small[index], index))
    head = sorted(best[:top], key=lambda index: (-large[index], best.index(index)))
    assert [score.index for score in found.ranked] == [*head, *best[top:]]
    assert [score.logit for score in found.ranked] == [large[i] for i in head] + [small[i] for i in best[top:]]
    assert [score.stage for score in found.ranked] == [2] * len(head) + [1] * len(best[top:])
    scores, raw = [one.score for one in found.ranked], [one.raw_score for one in found.ranked]
    assert scores == sorted(scores, reverse=True) and raw == sorted(raw, reverse=True)
    assert all(above > below for above, below in zip(raw[len(head) - 1 :], raw[len(head) :], strict=False))
    assert [score.index for score in found.scores] == list(range(len(pairs)))
    assert found.usage == Usage(8, 4) and found.warnings == ("warned",) and found.model == "large"
    assert merge(first, chosen, then, (SMALL, LARGE), top_n).ranked == found.ranked[:top_n]


def test_each_pair_has_its_own_query() -> None:
    request = RerankRequest(("a", "b", "c"), ("1", "2", "3"))
    assert choose(request, run_of([0.0, 2.0, 1.0]), 2).request.queries == ("b", "c")


# The server


def number(prompt: Prompt) -> float:
    return float(prompt.document)


@contextmanager
def two_models(
    large: Callable[[Prompt], float] = lambda prompt: -number(prompt), required: bool = False, **options: Any
) -> Iterator[tuple[httpx2.Client, FakeModel, FakeModel]]:
    """A server whose second model scores the two best documents; by default it reverses the order."""
    one, two = FakeModel(number, info=SMALL), FakeModel(large, info=LARGE)
    first, second = (ServedModel(lambda _, model=model: scorer_of(model)) for model in (one, two))  # type: ignore[misc]
    with serving_model(Models(first, second, cascade=Cascade(second, 2, required)), **options) as client:
        yield client, one, two


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[httpx2.Client, FakeModel, FakeModel]]:
    with two_models() as both:
        yield both


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_every_api_has_a_ranking_whose_scores_never_rise(
    surface: Surface, both: tuple[httpx2.Client, FakeModel, FakeModel]
) -> None:
    client, _, large = both
    before = len(large.requests)
    body = surface.body(documents=["7.5", "5.5", "-2", "-4"])
    scores = dict(surface.scores(client.post(surface.path, json=body)))
    order = sorted(scores, key=lambda index: -scores[index])
    assert order == [1, 0, 2, 3]
    [request] = large.requests[before:]
    assert request.documents == ("7.5", "5.5")


def test_explain_names_the_stage_and_its_model(both: tuple[httpx2.Client, FakeModel, FakeModel]) -> None:
    client, _, _ = both
    body = {"query": "q", "documents": DOCUMENTS, "explain": {"prompt": 0}}
    response = client.post("/v1/rerank", json=body)
    explained = [one["explain"] for one in response.json()["results"]]
    assert [(one["stage"], one["model"]) for one in explained] == [(2, "large")] * 2 + [(1, "small")] * 2
    assert [one["logit"] for one in explained] == [-1, -3, -2, -4]
    assert "prompt" in explained[1] and response.headers["x-rerankd-model"] == "large"


@pytest.mark.parametrize(("asked", "scored"), [(False, 0), (0, 0), (1, 1), (3, 3), (99, 4), (True, 2), (None, 2)])
def test_a_call_chooses_how_many(asked: Any, scored: int, both: tuple[httpx2.Client, FakeModel, FakeModel]) -> None:
    client, _, large = both
    before = len(large.requests)
    reply = client.post("/v1/rerank", json={"query": "q", "documents": DOCUMENTS, "cascade": asked}).json()
    assert sum(len(one.documents) for one in large.requests[before:]) == scored
    assert reply["usage"]["total_tokens"] == client.post(
        "/v1/rerank", json={"query": "q", "documents": DOCUMENTS, "cascade": False}
    ).json()["usage"]["total_tokens"] / 4 * (4 + scored)


def test_another_model_has_no_second_stage(both: tuple[httpx2.Client, FakeModel, FakeModel]) -> None:
    client, small, _ = both
    before = len(small.requests)
    response = client.post("/v1/rerank", json={"model": "large", "query": "q", "documents": DOCUMENTS, "cascade": 2})
    assert "cascade ignored" in response.headers["x-rerankd-warning"] and len(small.requests) == before
    body = NATIVE.body(documents=DOCUMENTS)
    body["parameters"] = {**body.get("parameters", {}), "cascade": False}
    assert NATIVE.scores(client.post(NATIVE.path, json=body))[0][0] == 0


@pytest.mark.parametrize("wrong", [-1, "all", 2.5])
def test_a_wrong_number_is_named(wrong: Any, both: tuple[httpx2.Client, FakeModel, FakeModel]) -> None:
    told = RERANK.error(both[0].post(RERANK.path, json=RERANK.body(cascade=wrong)), 400)
    assert "cascade" in told and "constrained" not in told


def broken(prompt: Prompt) -> float:
    raise RuntimeError("no memory")


def test_the_first_model_answers_where_the_second_one_fails() -> None:
    with two_models(broken) as (client, _, _):
        response = client.post("/v1/rerank", json={"query": "q", "documents": DOCUMENTS})
        assert [one["index"] for one in response.json()["results"]] == [0, 1, 2, 3]
        assert "large failed (InferenceError): small alone scored" in response.headers["x-rerankd-warning"]
        assert response.headers["x-rerankd-model"] != "large"


def test_the_second_model_answers_where_the_first_one_fails() -> None:
    with two_models() as (client, small, _):
        small._logit = broken
        response = client.post("/v1/rerank", json={"query": "q", "documents": DOCUMENTS, "explain": True})
        assert [one["index"] for one in response.json()["results"]] == [3, 2, 1, 0]
        assert "small failed (InferenceError): large alone scored" in response.headers["x-rerankd-warning"]
        assert response.headers["x-rerankd-model"] == "large"
        body = RERANK.body(documents=DOCUMENTS, cascade=False)
        assert RERANK.error(client.post(RERANK.path, json=body), 500)


def test_a_failure_is_an_error_where_the_operator_says_so() -> None:
    with two_models(broken, required=True) as (client, small, large):
        assert RERANK.error(client.post(RERANK.path, json=RERANK.body(documents=DOCUMENTS)), 500)
        small._logit, large._logit = broken, number
        assert RERANK.error(client.post(RERANK.path, json=RERANK.body(documents=DOCUMENTS)), 500)


def test_each_stage_is_charged_by_its_card(store: Store, tmp_path: Path) -> None:
    card = tmp_path / "rerankd.toml"
    card.write_text("[rates.small]\ninput_price = 100_000\n[rates.large]\ninput_price = 1_000_000\n")
    account = store.accounts.create("team@example.org")
    store.ledger.add_credits(account.id, 1_000_000_000)
    _, key = store.keys.create(account.id, "test")
    with two_models(store=store, accounts=True, config=card) as (client, _, _):
        client.headers["authorization"] = f"Bearer {key}"
        response = client.post("/v1/rerank", json={"query": "q", "documents": DOCUMENTS})
        assert response.status_code == 200, response.text
        # 4 documents of 2 tokens at 0.1 a token, 2 documents of 2 tokens at 1 a token, in millionths
        assert response.headers["x-rerankd-cost"] == "4800000"
        assert response.headers["x-rerankd-tokens"] == "12"
    found = store.accounts.by_id(account.id)
    assert found is not None and (found.balance, found.reserved) == (1_000_000_000 - 4_800_000, 0)


def test_the_metrics_count_the_second_stage(both: tuple[httpx2.Client, FakeModel, FakeModel]) -> None:
    client, _, _ = both
    client.post("/v1/rerank", json={"query": "q", "documents": DOCUMENTS})
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("rerankd_cascade_documents")]
    assert sum(float(line.rpartition(" ")[2]) for line in lines) >= 2


def test_the_command_serves_two_models(make_checkpoint: Callable[..., Path], start_server: StartServer) -> None:
    one, two = make_checkpoint(), make_checkpoint(seed=1)
    server = start_server("--model", str(one), "--then", str(two), "--then-top", "1", "--skip-self-test")
    reply = server.post("/v1/rerank", {"query": "q", "documents": ["a", "b", "c"], "explain": True}, "none").json()
    assert [each["explain"]["model"] for each in reply["results"]] == [two.name, one.name, one.name]
    with pytest.raises(SettingsError, match="is a --model, too"):
        make_models(ServerSettings(model=("embedded",), then="embedded"))
    with pytest.raises(SettingsError, match="--then needs a first model"):
        make_models(ServerSettings(upstream=("http://127.0.0.1:1",), then="embedded"))


def test_warnings_of_the_second_stage_name_documents_as_the_caller_does() -> None:
    long = (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen. "
    )
    with two_models(lambda prompt: 0.0) as (client, small, _):
        small._logit = lambda prompt: float(prompt.document.startswith("one"))
        body = {"query": "q", "documents": ["a", "b", "c", long * 3], "passages": {"max_tokens": 16, "max_per_doc": 1}}
        warnings = client.post("/v1/rerank", json=body).json()["meta"]["warnings"]
    told = [one for one in warnings if "read only to their last passage" in one]
    assert len(told) == 2 and all("(document 3: " in one for one in told)


# A program


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reranker, Clock]]:
    """Two models in a program; while the second one scores, the deadline comes."""
    clock = Clock()
    first = scorer_of(FakeModel(number, info=SMALL), clock=clock)
    then = scorer_of(FakeModel(lambda prompt: -number(prompt), info=LARGE), clock=clock)
    monkeypatch.setattr("rerankd.local._start", lambda name, *how: {"small": first, "large": then}[name])
    with Reranker("small", then="large", then_top=2) as reranker:
        yield reranker, clock


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


def test_a_deadline_between_the_stages_leaves_the_first_ranking(program: tuple[Reranker, Clock]) -> None:
    reranker, clock = program
    assert [score.index for score in reranker.rank("q", DOCUMENTS, deadline_s=3000)] == [1, 0, 2, 3]

    def jump(done: int) -> None:
        clock.ahead += 10_000

    ranking = reranker.rank("q", DOCUMENTS, deadline_s=3000, progress=jump)
    assert [score.index for score in ranking] == [0, 1, 2, 3]
    assert ranking.warnings == ("large scored nothing in time: small alone scored",)
    clock.ahead = 0.0


def test_a_program_has_the_first_ranking_where_the_second_model_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    models = {"small": scorer_of(FakeModel(number, info=SMALL)), "large": scorer_of(FakeModel(broken, info=LARGE))}
    monkeypatch.setattr("rerankd.local._start", lambda name, *how: models[name])
    with Reranker("small", then="large", then_top=2) as reranker:
        for ranking in (reranker.rank("q", DOCUMENTS), asyncio.run(reranker.arank("q", DOCUMENTS))):
            assert [score.index for score in ranking] == [0, 1, 2, 3]
            assert ranking.warnings == ("large failed (InferenceError): small alone scored",)


def test_one_model_scores_the_sentences_of_a_program(program: tuple[Reranker, Clock]) -> None:
    reranker, _ = program
    ranking = reranker.rank("q", DOCUMENTS, passages=Passages(highlight=True))
    assert [score.index for score in ranking] == [0, 1, 2, 3] and "cascade ignored" in ranking.warnings[0]
    assert all(score.passages[0].sentences for score in ranking)


@pytest.mark.parametrize("top", [0, -1, 2.5, True])
def test_a_second_model_has_a_number_of_documents(top: Any) -> None:
    with pytest.raises(SettingsError, match="then_top is"):
        Reranker("./nowhere", then="embedded", then_top=top)


def test_a_program_ranks_with_two_models() -> None:
    documents = ["Paris is in France.", "Beijing is the capital of China.", "Bread is baked.", "China is large."]
    with Reranker("embedded", then="embedded", then_top=2) as both, Reranker("embedded") as one:
        found, plain = (
            both.rank("What is the capital of China?", documents),
            one.rank("What is the capital of China?", documents),
        )
        assert [score.index for score in found.ranked] == [score.index for score in plain.ranked]
        assert [score.stage for score in found.ranked] == [2, 2, 1, 1]
        assert "capital" in both.prompt_of(found.ranked[0])
