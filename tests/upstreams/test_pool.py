"""Tiers, shares, waiting, degraded answers, the engine of this process, names, and settings that change."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.server.served_pool import ServedPool
from rerankd.upstreams.models_file import ModelsFile
from rerankd.upstreams.settings import ModelSettings
from support.fakes import NumberedModel, scorer_of
from support.routing import MODEL, routing, upstream
from support.serving import serving_model
from support.upstream_server import BROKEN, CLOSES, HANGS, Fault, UpstreamServer, slow
from support.waiting import wait_until

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"

OWN_INSTRUCT = "Judge by color"


def test_a_higher_tier_is_asked_only_when_the_lower_one_cannot_answer() -> None:
    with UpstreamServer() as first, UpstreamServer() as reserve:
        with routing(upstream("first", first), upstream("reserve", reserve, tier=1)) as router:
            assert {one.headers["x-rerankd-upstream"] for one in router.rerank_often(40, 4)} == {"first"}
            first.kill()
            answers = router.rerank_often(40, 4)
            assert {one.headers["x-rerankd-upstream"] for one in answers} == {"reserve"}
            assert {one.status_code for one in answers} == {200}
            first.start()
            router.wait_for(first="closed")
            assert router.rerank("q", ["d"]).headers["x-rerankd-upstream"] == "first"
            assert "x-rerankd-attempts" not in router.rerank("q", ["d"]).headers


def test_a_call_waits_for_a_place_and_no_upstream_has_more_than_its_own() -> None:
    with UpstreamServer() as a, UpstreamServer() as b:
        both = (upstream("a", a, concurrency=2), upstream("b", b, concurrency=3))
        with routing(*both) as router:
            a.fault = b.fault = slow(0.2)
            assert {one.status_code for one in router.rerank_often(60, 20)} == {200}
            assert (a.most_at_once, b.most_at_once) == (2, 3)
            assert router.pool.waiting == router.pool.running == 0


def test_a_split_call_takes_no_more_places_than_its_upstream_has() -> None:
    with UpstreamServer("tei") as server, routing(upstream("a", server, concurrency=3)) as router:
        server.fault = slow(0.2)
        response = router.rerank("q", [f"document {number}" for number in range(320)])
        assert response.status_code == 200 and len(response.json()["results"]) == 320
        assert server.most_at_once == 3


def test_too_many_waiting_calls_are_refused() -> None:
    current = ModelSettings.model_validate({"upstreams": [{"name": "a", "url": "http://127.0.0.1:9"}]})
    with UpstreamServer() as server:
        current = ModelSettings.model_validate({"upstreams": [upstream("a", server, concurrency=1)]})
        served = ServedPool(MODEL, lambda: current, max_waiting=2)
        with serving_model(Models(served)) as client:
            wait_until(lambda: served.pool.member("a").breaker.state == "closed")
            server.fault = HANGS
            statuses: list[int] = []

            def ask(number: int) -> None:
                response = client.post("/v1/rerank", json={"query": f"q{number}", "documents": ["d"]})
                statuses.append(response.status_code)

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
            for one in threads:
                one.start()
            wait_until(lambda: statuses == [503] * 3)  # the others hold the place, or wait for it
            server.fault = None
            server.release()
            for one in threads:
                one.join()
            assert sorted(statuses) == [200, 200, 200, 503, 503, 503]


def test_an_instruct_goes_to_an_upstream_that_reads_one_or_a_warning_says_so() -> None:
    with UpstreamServer("tei") as tei, UpstreamServer("vllm") as vllm:
        with routing(upstream("tei", tei), upstream("vllm", vllm, tier=1)) as router:
            assert router.rerank("q", ["d"]).headers["x-rerankd-upstream"] == "tei"
            response = router.rerank("q", ["d"], instruct=OWN_INSTRUCT)
            assert response.headers["x-rerankd-upstream"] == "vllm"
            assert vllm.asked[-1].body["instruction"] == OWN_INSTRUCT
            vllm.kill()
            response = router.rerank("q", ["d"], instruct=OWN_INSTRUCT)
            assert response.status_code == 200
            assert "instruct ignored: tei reads none" in response.headers["x-rerankd-warning"]


def test_another_model_is_said_or_forbidden() -> None:
    with UpstreamServer() as first, UpstreamServer() as other:
        both = (upstream("first", first, model="one"), upstream("other", other, model="two", tier=1))
        with routing(*both) as router:
            assert router.rerank("q", ["d"]).headers["x-rerankd-model"] == "one"
            first.kill()
            response = router.rerank("q", ["d"])
            assert response.headers["x-rerankd-model"] == "two"
            assert "another model scored: two in place of one" in response.headers["x-rerankd-warning"]
            assert response.json()["model"] == MODEL
            first.start()
            router.change(*both, same_model=True)
            first.kill()
            assert {router.rerank("q", ["d"]).status_code for _ in range(3)} <= {502, 503}


def test_tokens_without_a_tokenizer_are_said_to_be_estimated() -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        assert "tokens are estimated" in router.client.get("/health").json()["warning"]
        assert "tokens are estimated" in router.rerank("q", ["d"]).headers["x-rerankd-warning"]


def test_explain_is_refused_with_a_warning() -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        response = router.rerank("q", ["d"], explain=True)
        assert response.status_code == 200 and "explain" not in response.json()["results"][0]
        assert "explain ignored" in response.headers["x-rerankd-warning"]


def test_the_bill_is_that_of_our_tokenizer_and_texts_are_cut_here(tokenizer_folder: Path) -> None:
    with UpstreamServer() as server:
        with routing(upstream("a", server), tokenizer=str(tokenizer_folder)) as router:
            body = {"model": MODEL, "query": "apples", "documents": ["pear " * 5_000, "apple"]}
            response = router.client.post("/v1/reranks", json=body)
            assert response.json()["usage"]["total_tokens"] == 2 * 2 + 4_000 + 1
            assert "truncated" in response.headers["x-rerankd-warning"]
            assert len(server.asked[-1].body["documents"][0].split()) == 4_000


def test_dashscope_s_count_of_tokens_is_compared_with_ours(
    tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with UpstreamServer("dashscope") as server:
        with routing(upstream("a", server), tokenizer=str(tokenizer_folder)) as router:
            for word in ("three", "three", "incomprehensibilities"):  # the stand-in counts words
                assert router.rerank("one two", [word]).status_code == 200
            assert router.member("a").stats.differences == 1
            [said] = [record.getMessage() for record in caplog.records if "tokens where this server" in record.message]
            assert "counts 3 tokens where this server counts 7" in said


def test_the_price_list_says_how_tokens_are_counted(tokenizer_folder: Path, tmp_path: Path) -> None:
    prices = tmp_path / "rerankd.toml"
    prices.write_text(f'[rates."{MODEL}"]\ninput_price = 0.1\n')
    for tokenizer, counted in ((None, "estimated"), (str(tokenizer_folder), "exact")):
        with UpstreamServer() as server:
            with routing(upstream("a", server), settings={"config": prices}, tokenizer=tokenizer) as router:
                assert [one["counted"] for one in router.client.get("/v1/rates").json()["data"]] == [counted]


def test_the_engine_of_this_process_is_the_last_tier() -> None:
    with UpstreamServer() as server:
        settings = ModelSettings.model_validate({"upstreams": [upstream("a", server)], "local": "last"})
        engine = ServedModel(lambda _: scorer_of(NumberedModel()))
        served = ServedPool(MODEL, lambda: settings, local=engine)
        with serving_model(Models(served, engine)) as client:
            wait_until(lambda: served.pool.member("a").breaker.state == "closed")
            body = {"query": "q", "documents": ["1", "3"]}
            assert client.post("/v1/rerank", json=body).headers["x-rerankd-upstream"] == "a"
            server.kill()
            response = client.post("/v1/rerank", json=body)
            assert response.status_code == 200 and response.headers["x-rerankd-upstream"] == "local"
            assert response.headers["x-rerankd-model"] == engine.scorer.info.name


def test_a_name_with_several_addresses_is_several_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    with UpstreamServer() as server:
        url = server.url.replace("127.0.0.1", "localhost")
        settings = ModelSettings.model_validate({"upstreams": [upstream("workers", url, discover="dns")]})
        served = ServedPool(MODEL, lambda: settings)
        with serving_model(Models(served)) as client:
            wait_until(lambda: any(one.breaker.state == "closed" for one in served.pool.members))
            assert "workers@127.0.0.1" in {one.name for one in served.pool.members}
            response = client.post("/v1/rerank", json={"query": "q", "documents": ["d"]})
            assert response.headers["x-rerankd-upstream"] == "workers@127.0.0.1"


def test_the_short_form_has_the_name_that_the_upstream_lists() -> None:
    with UpstreamServer(model="their/model") as server, routing(upstream("a", server), name=None) as router:
        assert router.client.get("/health").json()["model"] == "their/model"
        assert router.rerank("q", ["d"], model="their/model").status_code == 200
        assert router.rerank("q", ["d"], model="qwen3-rerank").status_code == 200


def test_several_models_each_with_its_upstreams() -> None:
    with UpstreamServer() as a, UpstreamServer() as b:
        pools = [
            ServedPool(
                name,
                lambda server=server, name=name: ModelSettings.model_validate(  # type: ignore[misc]
                    {"upstreams": [upstream(f"of-{name}", server)], "aliases": [f"{name}-latest"]}
                ),
            )
            for name, server in (("first", a), ("second", b))
        ]
        with serving_model(Models(*pools)) as client:
            wait_until(lambda: all(one.pool.members[0].breaker.state == "closed" for one in pools))
            for name in ("first", "second"):
                for asked in (name, f"{name}-latest"):
                    response = client.post("/v1/rerank", json={"query": "q", "documents": ["d"], "model": asked})
                    assert response.headers["x-rerankd-upstream"] == f"of-{name}"
            assert {"first", "second-latest"} <= {one["id"] for one in client.get("/v1/models").json()["data"]}


def test_upstreams_change_while_the_router_serves() -> None:
    with UpstreamServer() as a, UpstreamServer() as b:
        with routing(upstream("a", a)) as router:
            member = router.member("a")
            router.change(upstream("a", a, weight=3), upstream("b", b, tier=1))
            assert router.member("a") is member and member.weight == 3  # with its breaker and its counts
            router.wait_for(b="closed")
            router.change(upstream("b", b))
            assert router.rerank("q", ["d"]).headers["x-rerankd-upstream"] == "b"


def test_a_wrong_settings_file_leaves_the_last_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def write(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.replace(path)

    path = tmp_path / "rerankd.toml"
    good = '[models.m]\n[[models.m.upstreams]]\nname = "a"\nurl = "http://a:8000"\n'
    write(good)
    file = ModelsFile(path)
    for wrong in (good.replace("url", "ulr"), "max_queue = 3\n", "[models.m"):
        write(wrong)
        assert file.current()["m"].upstreams[0].url == "http://a:8000"
        assert "The upstreams stay as they were" in caplog.text
        caplog.clear()
        file.current()
        assert not caplog.text  # once
    write(good.replace("http://a", "http://b"))
    assert file.current()["m"].upstreams[0].url == "http://b:8000"


def test_a_server_asked_by_another_one_does_not_retry() -> None:
    with UpstreamServer() as a, UpstreamServer() as b:
        with routing(upstream("a", a), upstream("b", b)) as router:
            a.fault = b.fault = BROKEN
            before = len(a.asked) + len(b.asked)
            response = router.client.post(
                "/v1/rerank", json={"query": "q", "documents": ["d"]}, headers={"x-rerankd-hop": "1"}
            )
            assert response.status_code == 502 and len(a.asked) + len(b.asked) == before + 1


def test_a_single_upstream_is_asked_again_after_a_pause() -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        server.fault = replace(CLOSES, once=True)
        response = router.rerank("q", ["d"])
        assert response.status_code == 200 and response.headers["x-rerankd-attempts"] == "2"


def test_nothing_is_asked_before_its_scores_were_checked() -> None:
    with UpstreamServer() as server:
        server.fault = Fault(status=503, health=True)
        with routing(upstream("a", server), wait=False) as router:
            response = router.rerank("q", ["d"])
            assert response.status_code == 503 and int(response.headers["retry-after"]) >= 1
            assert not server.asked


def test_metrics_of_upstreams() -> None:
    with UpstreamServer() as a, UpstreamServer() as b:
        both = (upstream("a", a, cost=2.0), upstream("b", b, tier=1))
        with routing(*both) as router:
            a.fault = BROKEN
            for number in range(6):
                router.rerank(f"q{number}", ["d"])
            a.fault = None
            router.wait_for(a="closed")
            router.rerank("two words", ["three more words"])
            text = router.client.get("/metrics").text
    documented = re.findall(r"^\| `(rerankd_upstream_\w+)`", METRICS.read_text(), re.MULTILINE)
    there = re.findall(r"^# TYPE (rerankd_upstream_\w+)", text, re.MULTILINE)
    assert sorted(documented) == sorted(there)
    for line in (
        f'rerankd_upstream_requests_total{{model="{MODEL}",outcome="answered",upstream="b"}}',
        f'rerankd_upstream_state{{model="{MODEL}",state="closed",upstream="a"}} 1.0',
        f'rerankd_upstream_inflight{{model="{MODEL}",upstream="a"}} 0.0',
        f'rerankd_upstream_retries_total{{model="{MODEL}",reason="error"}}',
        f'rerankd_upstream_tokens_total{{model="{MODEL}",upstream="a"}} 5.0',
        f'rerankd_upstream_cost_total{{model="{MODEL}",upstream="a"}} 1e-05',
        f'rerankd_requests_running{{model="{MODEL}"}} 0.0',
    ):
        assert line in text, line
