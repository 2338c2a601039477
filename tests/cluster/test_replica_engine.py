"""The front's engine over replicas: what an engine in this process gives, whatever is lost on the way."""

from __future__ import annotations

import gc
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rerankd.cluster import engine as cluster_engine
from rerankd.cluster.engine import ClusterEngine
from rerankd.cluster.packed import pack, unpack
from rerankd.cluster.parts import cut, num_parts
from rerankd.cluster.settings import replicas_of
from rerankd.config import BatchSettings
from rerankd.engine.engine import Engine
from rerankd.engine.loading import processors
from rerankd.engine.loading.devices import Execution
from rerankd.engine.loading.open import Choice
from rerankd.engine.qwen3.loaded import Qwen3Model
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import Busy, InferenceError, Stopping
from rerankd.testing import INFO
from rerankd.types import Logits, Prompt, RerankRequest
from support.fakes import NumberedModel
from support.replicas import LocalReplicas
from support.serving import serving, wait_until
from support.surfaces import ALL, Surface

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"

WORDS = "the old bridge over a river in a small town is repaired by engineers who came from far away".split()


def documents(number: int, *lengths: int) -> tuple[str, ...]:
    return tuple(
        " ".join(WORDS[(i * 7 + j * j + number) % len(WORDS)] for j in range(n)) for i, n in enumerate(lengths)
    )


MIXES = {
    "short, one query": RerankRequest(("Which bridge?",), documents(1, *(5, 9, 30, 3) * 10)),
    "long ones": RerankRequest(("Which bridge?",), documents(2, 900, 700, 1300, 20, 400)),
    "a query for each": RerankRequest(documents(3, *(6,) * 30), documents(4, *(25, 60, 3) * 10)),
}


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Qwen3Model:
    execution = Execution(torch.device("cpu"), torch.float32, True)
    return Qwen3Model("tiny", tiny_checkpoint, execution, lambda done, in_all: None)


@pytest.mark.parametrize("batches", [1, 2, 8])
@pytest.mark.parametrize("mix", MIXES)
def test_r1_replicas_give_the_bits_of_one_engine(
    mix: str, batches: int, model: Qwen3Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rerankd.cluster.parts.BATCHES", batches)
    here = EngineScorer(Engine(model), model.prompts)
    replicas = LocalReplicas(*[lambda: EngineScorer(Engine(model), model.prompts)] * 2)
    there = EngineScorer(ClusterEngine(lambda: replicas), model.prompts)
    prepared = here.prepare(MIXES[mix])
    try:
        expected = here.submit(prepared).result()
        found = there.submit(prepared).result()
        assert found.values == expected.values
        assert prepared.finish(replace(found, queue_s=0)) == prepared.finish(replace(expected, queue_s=0))
    finally:
        here.close()
        there.close()
    if batches == 1:
        assert len(replicas.sent) > 1 and all(one.engine.stats.tokens_computed for one in scorers(replicas))


def scorers(replicas: LocalReplicas) -> list[EngineScorer]:
    return [replica._scorer for replica in replicas.replicas]


PROMPTS = st.lists(
    st.builds(
        lambda prefix, rest, counts: Prompt("q", "d", [*prefix, *rest], counts[0], counts[1], (), tuple(prefix)),
        st.lists(st.integers(0, 150_000), max_size=4),
        st.lists(st.integers(0, 150_000), max_size=5),
        st.tuples(st.integers(0, 99), st.integers(0, 99)),
    ),
    max_size=9,
)


@given(prompts=PROMPTS, with_texts=st.booleans())
def test_packed_prompts_are_the_same_prompts(prompts: Sequence[Prompt], with_texts: bool) -> None:
    found = unpack(pack(prompts, with_texts=with_texts))
    assert [(list(one.token_ids), one.prefix, one.query_tokens, one.document_tokens) for one in found] == [
        (one.token_ids, one.prefix, one.query_tokens, one.document_tokens) for one in prompts
    ]
    assert all((one.query, one.document) == (("q", "d") if with_texts else ("", "")) for one in found)


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=60), st.integers(1, 20))
def test_parts_hold_every_prompt_once_and_about_equal_work(costs: list[int], number: int) -> None:
    parts = list(cut(costs, number))
    assert [i for start, end in parts for i in range(start, end)] == list(range(len(costs)))
    assert len(parts) <= number
    assert all(sum(costs[start:end]) <= sum(costs) / number + max(costs) for start, end in parts)


def test_a_deadline_ends_a_call_with_the_known_logits() -> None:
    model = NumberedModel()
    model.gate.clear()
    replicas = LocalReplicas(lambda: EngineScorer(Engine(model), model))
    engine = ClusterEngine(lambda: replicas)
    try:
        prompts = model.encode(RerankRequest(("query",), ("1", "2")))
        assert sorted(engine.submit(prompts, deadline=time.monotonic()).result(60).unscored) == [0, 1]
    finally:
        model.gate.set()
        engine.close()


def test_a_large_call_uses_all_replicas_and_a_small_one_only_one() -> None:
    assert num_parts(900, 512, 8) == 1
    assert num_parts(16 * 512, 512, 8) == 8
    assert num_parts(800 * 512, 512, 8) == 100


ENCODER = replace(INFO, kind="cross-encoder")  # NumberedModel reads texts


@pytest.fixture
def numbered() -> Iterator[NumberedModel]:
    model = NumberedModel(info=ENCODER)
    yield model
    model.gate.set()


def over(model: NumberedModel, replicas: LocalReplicas, **options: int) -> EngineScorer:
    return EngineScorer(ClusterEngine(lambda: replicas, **options), model)


def started(model: NumberedModel, number: int = 2, **options: Callable[[int], bool]) -> LocalReplicas:
    return LocalReplicas(*[partial(_start, model)] * number, **options)


def _start(model: NumberedModel) -> EngineScorer:
    return EngineScorer(Engine(model), model)


def request(*numbers: int, priority: int = 0) -> RerankRequest:
    return RerankRequest(("q",), tuple(map(str, numbers)), priority=priority)


def test_a_call_with_a_deadline_is_sent_in_parts_of_one_batch(numbered: NumberedModel) -> None:
    """What a replica has not answered by then is lost, so it is little."""
    replicas = started(numbered)
    scorer = over(numbered, replicas)
    try:
        whole = scorer.submit(scorer.prepare(request(*range(16)))).result(60)
        in_large_parts = len(replicas.sent)
        asked = replace(request(*range(16)), deadline=time.monotonic() + 3600)
        assert scorer.submit(scorer.prepare(asked)).result(60).values == whole.values
        assert (in_large_parts, len(replicas.sent) - in_large_parts) == (2, 16)
    finally:
        scorer.close()


def test_a_call_that_ended_is_not_kept_until_its_deadline(numbered: NumberedModel) -> None:
    scorer = over(numbered, started(numbered))
    try:
        asked = replace(request(1, 2), deadline=time.monotonic() + 3600)
        future = scorer.submit(scorer.prepare(asked))
        assert future.result(60).values == [1, 2]
        gone = weakref.ref(future)
        del future
        wait_until(lambda: gc.collect() >= 0 and gone() is None)
    finally:
        scorer.close()


def test_a_lost_part_is_scored_by_another_replica(numbered: NumberedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_engine, "PAUSES_S", (0, 0))
    scorer = over(numbered, started(numbered, lose=lambda number: number in (1, 2)))
    try:
        found = [scorer.submit(scorer.prepare(request(*range(20 * i, 20 * i + 20)))) for i in range(5)]
        assert [one.result(60).values for one in found] == [[*range(20 * i, 20 * i + 20)] for i in range(5)]
    finally:
        scorer.close()


def test_a_part_that_ends_every_replica_fails_its_own_call_only(
    numbered: NumberedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_engine, "PAUSES_S", (0, 0))
    replicas = started(numbered)
    replicas._lose = lambda number: replicas.sent[number].texts[0][1] == "7"
    scorer = over(numbered, replicas)
    try:
        bad, good = (scorer.submit(scorer.prepare(request(number))) for number in (7, 8))
        with pytest.raises(InferenceError, match="3 replicas ended"):
            bad.result(60)
        assert good.result(60).values == [8]
    finally:
        scorer.close()


def test_a_failure_of_the_model_is_not_repeated() -> None:
    def fault(document: str) -> None:
        if document == "7":
            raise ValueError("it cannot read this")

    model = NumberedModel(fault, ENCODER)
    replicas = started(model)
    scorer = over(model, replicas)
    try:
        with pytest.raises(InferenceError, match="log has the cause"):
            scorer.submit(scorer.prepare(request(7))).result(60)
        assert len(replicas.sent) == 1
    finally:
        scorer.close()


def test_a_known_or_repeated_pair_is_not_sent(numbered: NumberedModel) -> None:
    replicas = started(numbered)
    scorer = over(numbered, replicas, score_cache_bytes=100_000)
    try:
        for numbers, cached in (((1, 2, 1), set[int]()), ((2, 3), {0})):
            found = scorer.submit(scorer.prepare(request(*numbers))).result(60)
            assert (found.values, found.cached) == ([*numbers], cached)
        assert [len(part.ends) for part in replicas.sent] == [2, 1]
        assert scorer.submit(scorer.prepare(request(3))).result(60) == Logits([3], {0})
        stats = scorer.engine.stats
        assert stats.score_cache.hits == 2 and stats.tokens_computed == 3 * 512
    finally:
        scorer.close()


def test_r5_a_full_queue_is_busy(numbered: NumberedModel) -> None:
    numbered.gate.clear()
    scorer = over(numbered, started(numbered), max_queue=3)
    try:
        waiting = [scorer.submit(scorer.prepare(request(number))) for number in range(3)]
        with pytest.raises(Busy, match="3 requests are waiting") as caught:
            scorer.submit(scorer.prepare(request(9)))
        assert caught.value.retry_after_s >= 1
        waiting[0].cancel()
        wait_until(lambda: scorer.engine.num_queued == 2)
        last = scorer.submit(scorer.prepare(request(9)))
        numbered.gate.set()
        assert last.result(60).values == [9]
    finally:
        numbered.gate.set()
        scorer.close()


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_r5_without_a_replica_every_api_says_when_to_come_back(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_engine, "WATCH_S", 0.01)
    monkeypatch.setattr(cluster_engine, "PATIENCE_S", 0.01)
    model = NumberedModel(info=ENCODER)
    model.gate.clear()
    replicas = started(model)
    body = surface.body(documents=["1", "2"])
    with serving(lambda progress: over(model, replicas)) as client:
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(client.post(surface.path, json=body).status_code))
        asking.start()
        assert model.entered.wait(60)
        replicas.running = 0
        asking.join(60)  # a call that waits ends too
        response = client.post(surface.path, json=body)
        surface.error(response, 503)
        assert answers == [response.status_code]
        assert int(response.headers["retry-after"]) >= 1
        assert client.get("/readyz").status_code == 503 and client.get("/livez").status_code == 200
        model.gate.set()
        replicas.running = 2
        wait_until(lambda: client.post(surface.path, json=body).status_code == 200)
        assert client.get("/readyz").status_code == 200


def test_the_metrics_say_how_many_replicas_run_and_what_was_lost(
    numbered: NumberedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_engine, "PAUSES_S", (0, 0))
    monkeypatch.setattr(cluster_engine, "WATCH_S", 0.01)
    replicas = started(numbered, lose=lambda number: number == 0)
    documented = re.findall(r"^\| `(rerankd_\w+)`", METRICS.read_text(), re.MULTILINE)
    with serving(lambda progress: over(numbered, replicas)) as client:

        def value(name: str) -> float:
            assert name in documented
            [found] = re.findall(rf'^{name}{{model="fake"}} (\S+)$', client.get("/metrics").text, re.MULTILINE)
            return float(found)

        assert (value("rerankd_replicas"), value("rerankd_lost_parts_total")) == (2, 0)
        body = {"query": "q", "documents": ["1", "2"]}
        assert client.post("/v1/rerank", json=body).status_code == 200
        assert value("rerankd_lost_parts_total") == 1
        assert value("rerankd_compute_seconds_total") > 0, "the replicas compute, and say so"
        replicas.running = 0
        wait_until(lambda: value("rerankd_replicas") == 0)


def test_the_front_bounds_the_memory_of_its_queue(numbered: NumberedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankd.engine.entrance.MAX_QUEUE_BYTES", 10_000)
    numbered.gate.clear()
    scorer = over(numbered, started(numbered))
    try:
        first = scorer.submit(scorer.prepare(request(*range(20))))
        with pytest.raises(Busy, match="this one has 3 documents"):
            scorer.submit(scorer.prepare(request(20, 21, 22)))
        numbered.gate.set()
        assert len(first.result(60).values) == 20
    finally:
        numbered.gate.set()
        scorer.close()


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 2), ("5000 100000", 1), ("max 100000", 8)])
def test_replicas_share_the_processors_of_a_container(
    quota: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(processors, "QUOTA", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert replicas_of(BatchSettings(model="x", replicas=1), Choice("x")).cpus == expected


def test_r6_a_cancelled_call_frees_its_work_on_the_replicas(numbered: NumberedModel) -> None:
    numbered.gate.clear()
    replicas = started(numbered, 1)
    scorer = over(numbered, replicas)
    try:
        future = scorer.submit(scorer.prepare(request(*range(100))))
        assert numbered.entered.wait(60)
        future.cancel()
        [replica] = scorers(replicas)
        wait_until(lambda: replica.engine.stats.waiting + replica.engine.stats.running == 0)
        with pytest.raises(CancelledError):
            future.result()
        numbered.gate.set()
        assert scorer.submit(scorer.prepare(request(200))).result(60).values == [200]
        assert len(numbered.seen) <= 2
        wait_until(lambda: scorer.engine.num_queued == 0)
    finally:
        scorer.close()


def test_a_small_call_does_not_wait_for_all_parts_of_a_large_one(numbered: NumberedModel) -> None:
    numbered.gate.clear()
    scorer = over(numbered, started(numbered, 1))
    try:
        large = scorer.submit(scorer.prepare(request(*range(400))))
        assert numbered.entered.wait(60)
        small = scorer.submit(scorer.prepare(request(1000)))
        order: list[str] = []
        large.add_done_callback(lambda _: order.append("large"))
        small.add_done_callback(lambda _: order.append("small"))
        numbered.gate.set()
        large.result(60)
        wait_until(lambda: len(order) == 2)
        assert order == ["small", "large"]
    finally:
        scorer.close()


def test_r7_close_finishes_the_queue_and_refuses_the_rest(numbered: NumberedModel) -> None:
    numbered.gate.clear()
    scorer = over(numbered, started(numbered))
    running = [scorer.submit(scorer.prepare(request(number))) for number in range(20)]
    closing = threading.Thread(target=scorer.close)
    closing.start()

    def refused() -> bool:
        try:
            running.append(scorer.submit(scorer.prepare(request(len(running)))))
        except Stopping:
            return True
        return False

    wait_until(refused)
    numbered.gate.set()
    closing.join(60)
    assert not closing.is_alive()
    assert [one.result(0).values for one in running] == [[number] for number in range(len(running))]
