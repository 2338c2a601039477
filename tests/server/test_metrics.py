"""GET /metrics: the figures move exactly as the traffic says, and hold nothing that a caller wrote."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd.accounts.decision import Charge
from rerankd.engine.scorer import EngineScorer
from rerankd.server.metrics.calls import Work
from rerankd.server.metrics.metrics import Metrics
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import LoadProgress, Prompt, Usage
from support.fakes import NumberedModel, scorer_of
from support.faults import failing, loading
from support.raw import call, connected
from support.scrape import Scrape, growth
from support.server import Server
from support.serving import serving
from support.surfaces import COMPATIBLE, INFINITY, LLAMA_CPP, NATIVE, ONE_EACH, RERANK, SCORE, SGLANG, TEI, Surface
from support.waiting import wait_until

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = json.loads((DOCS / "grafana.json").read_text())
serial = itertools.count()

NAMES = {
    NATIVE: "dashscope-native",
    COMPATIBLE: "dashscope-compatible",
    RERANK: "vllm-rerank",
    SCORE: "vllm-score",
    TEI: "tei",
    INFINITY: "infinity",
    SGLANG: "sglang",
    LLAMA_CPP: "llamacpp",
}


def new(count: int) -> list[str]:
    """Documents unlike any before, so that no score is known."""
    return [f"the planet number {next(serial)} is red" for _ in range(count)]


def answered(server: Server, surface: Surface, documents: list[str], **options: Any) -> httpx2.Response:
    response = server.post(surface.path, surface.body("which planet is red", documents, **options))
    assert response.status_code == 200, response.text
    return response


def test_every_series_is_there_before_the_first_call() -> None:
    """Prometheus' increase() does not see a series that begins at 1; a dashboard of a fresh server shows 0."""
    with serving(lambda progress: scorer_of(NumberedModel())) as client:
        scrape = Scrape(str(client.base_url))
    names = scrape.labels("rerankd_requests_total", "dialect")
    assert set(NAMES.values()) <= names
    for name in (
        "documents_total",
        "usage_tokens_total",
        "warnings_total",
        "truncated_texts_total",
        "request_seconds_count",
        "left_out_results_total",
        "nothing_relevant_total",
        "cascade_documents_total",
    ):
        assert scrape.labels(f"rerankd_{name}", "dialect") == names
    assert scrape.labels("rerankd_limited_total", "limit") == {"requests", "tokens", "concurrency"}
    assert sum(scrape.get(f"rerankd_{name}") for name in ("requests_total", "limited_total", "documents_total")) == 0


def test_no_counter_has_a_series_of_its_birth(embedded_server: Server) -> None:
    assert "_created" not in Scrape(embedded_server.url).text


def test_refusals_by_a_limit_are_counted_by_kind() -> None:
    with serving(lambda progress: scorer_of(NumberedModel()), requests_per_minute=1, tokens_per_minute=1000) as client:
        body = RERANK.body(documents=["1"])
        statuses = [client.post(RERANK.path, json=body).status_code for _ in range(3)]
        scrape = Scrape(str(client.base_url))
    assert statuses == [200, 429, 429]
    assert scrape.get("rerankd_limited_total", limit="requests") == 2 == scrape.get("rerankd_limited_total")


def test_a_scrape_needs_no_key_and_parses(embedded_server: Server) -> None:
    scrape = Scrape(embedded_server.url)
    assert scrape.get("rerankd_ready") == 1
    assert scrape.get("rerankd_info", model="embedded-multilingual", dtype="float32", device="cpu") == 1
    assert scrape.get("process_resident_memory_bytes") > 10**7
    assert scrape.get("python_info") == 1
    for family in scrape.families.values():
        assert family.documentation and family.type != "unknown", family.name


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_each_answered_call_is_counted_once_under_its_dialect(surface: Surface, embedded_server: Server) -> None:
    dialect = NAMES[surface]
    before = Scrape(embedded_server.url)
    for count in (1, 2, 3):
        answered(embedded_server, surface, new(count))
    after = Scrape(embedded_server.url)
    names = ("rerankd_requests_total", "rerankd_request_seconds_count", "rerankd_documents_total")
    assert growth(before, after, names, dialect=dialect) == dict(zip(names, (3, 3, 6), strict=True))
    assert growth(before, after, names) == dict(zip(names, (3, 3, 6), strict=True)), "and under no other"
    assert growth(before, after, names[:1], dialect=dialect, status="200", error="") == {names[0]: 3}
    seconds = growth(before, after, ["rerankd_request_seconds_sum"], dialect=dialect)
    assert 0 < seconds["rerankd_request_seconds_sum"] < 60


def test_tokens_are_those_of_the_replies(embedded_server: Server) -> None:
    """DashScope's usage leaves the template out, vLLM's counts whole prompts."""
    documents = [new(4), new(5)]
    before = Scrape(embedded_server.url)
    usage = sum(COMPATIBLE.tokens(answered(embedded_server, COMPATIBLE, some)) for some in documents)
    middle = Scrape(embedded_server.url)
    prompts = sum(RERANK.tokens(answered(embedded_server, RERANK, some)) for some in documents)
    after = Scrape(embedded_server.url)
    assert growth(before, after, ["rerankd_usage_tokens_total"]) == {"rerankd_usage_tokens_total": 2 * usage}
    assert growth(middle, after, ["vllm:prompt_tokens_total"]) == {"vllm:prompt_tokens_total": prompts}
    known = {"computed": (prompts, 0), "score_cache": (0, prompts), "prefix_cache": (0, 0)}
    for source, (first, second) in known.items():
        [told] = growth(before, middle, ["rerankd_prompt_tokens_total"], source=source).values()
        [again] = growth(middle, after, ["rerankd_prompt_tokens_total"], source=source).values()
        assert (told, again) == (first, second), source


def test_a_repeated_call_hits_the_score_cache(embedded_server: Server) -> None:
    documents = new(7)
    names = ("rerankd_cache_hits_total", "rerankd_cache_misses_total")
    scrapes = [Scrape(embedded_server.url)]
    for _ in range(3):
        answered(embedded_server, RERANK, documents)
        scrapes.append(Scrape(embedded_server.url))
    moved = [tuple(growth(*two, names, cache="score").values()) for two in itertools.pairwise(scrapes)]
    assert moved == [(0, 7), (7, 0), (7, 0)]
    bytes_held = [scrape.get("rerankd_cache_bytes", cache="score") for scrape in scrapes]
    assert bytes_held[1] > bytes_held[0] and bytes_held[1] == bytes_held[3]
    [batches] = growth(scrapes[1], scrapes[3], ["rerankd_batch_fill_count"]).values()
    [queued] = growth(scrapes[1], scrapes[3], ["rerankd_queue_seconds_count"]).values()
    assert (batches, queued) == (0, 0), "nothing was computed, nothing waited"


def test_a_document_twice_in_a_call_is_computed_once(embedded_server: Server) -> None:
    [document] = new(1)
    before = Scrape(embedded_server.url)
    tokens = RERANK.tokens(answered(embedded_server, RERANK, [document, document]))
    after = Scrape(embedded_server.url)
    for source in ("computed", "score_cache"):
        [grown] = growth(before, after, ["rerankd_prompt_tokens_total"], source=source).values()
        assert grown == tokens / 2


def test_what_prompts_share_is_counted_as_reused(qwen_server: Server) -> None:
    """The first document's prompt is computed whole, then the query's part never again."""
    query = f"which planet has the number {next(serial)}"

    def shared(documents: list[str]) -> tuple[int, int]:
        body = RERANK.body(query, documents, explain=True)
        results = qwen_server.post(RERANK.path, body).json()["results"]
        tokens = [(row["explain"]["shared_tokens"], row["explain"]["prompt_tokens"]) for row in results]
        return sum(some for some, _ in tokens), sum(all_of_it for _, all_of_it in tokens)

    shared(new(2))
    before = Scrape(qwen_server.url)
    reused, whole = shared(new(3))
    after = Scrape(qwen_server.url)
    assert 0 < reused < whole
    by_source = {
        source: growth(before, after, ["rerankd_prompt_tokens_total"], source=source)["rerankd_prompt_tokens_total"]
        for source in ("computed", "prefix_cache", "score_cache")
    }
    assert by_source == {"computed": whole - reused, "prefix_cache": reused, "score_cache": 0}
    [hits] = growth(before, after, ["rerankd_cache_hits_total"], cache="prefix").values()
    [misses] = growth(before, after, ["rerankd_cache_misses_total"], cache="prefix").values()
    assert hits >= 1 and misses == 0
    assert after.get("rerankd_cache_bytes", cache="prefix") > 0


def test_a_prompt_that_shares_nothing_is_a_miss(qwen_server: Server) -> None:
    before = Scrape(qwen_server.url)
    qwen_server.post(RERANK.path, RERANK.body(f"number {next(serial)}", new(1)))
    after = Scrape(qwen_server.url)
    [hits] = growth(before, after, ["rerankd_cache_hits_total"], cache="prefix").values()
    [misses] = growth(before, after, ["rerankd_cache_misses_total"], cache="prefix").values()
    assert (hits, misses) == (0, 1)


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_errors_are_counted_by_dialect_status_and_class(surface: Surface, embedded_server: Server) -> None:
    before = Scrape(embedded_server.url)
    missing = embedded_server.post(surface.path, surface.with_field("query"))
    wrong_key = embedded_server.post(surface.path, surface.body(), key="wrong")
    after = Scrape(embedded_server.url)
    name = "rerankd_requests_total"
    for response, error in ((missing, "InvalidRequest"), (wrong_key, "WrongKey")):
        assert response.status_code >= 400
        # Which dialect is spoken on a shared path is told by the body, and the key is checked before it is read.
        labels = {"dialect": NAMES[surface], "status": str(response.status_code), "error": error}
        assert growth(before, after, [name], **labels) == {name: 1}, labels
    rest = ("rerankd_request_seconds_count", "rerankd_documents_total", "rerankd_usage_tokens_total")
    assert set(growth(before, after, [*rest, "vllm:request_success_total"]).values()) == {0}
    assert growth(before, after, [name]) == {name: 2}


def test_what_is_refused_after_it_was_ranked_counts_as_refused(embedded_server: Server) -> None:
    before = Scrape(embedded_server.url)
    response = embedded_server.post(RERANK.path, RERANK.body("mars", new(1), explain={"prompt": 9}))
    after = Scrape(embedded_server.url)
    assert response.status_code == 400
    assert growth(before, after, ["rerankd_requests_total"], status="400", error="InvalidRequest").popitem()[1] == 1
    answers = ("rerankd_documents_total", "rerankd_usage_tokens_total", "vllm:prompt_tokens_total")
    assert set(growth(before, after, answers).values()) == {0}
    assert growth(before, after, ["rerankd_batch_fill_count"]).popitem()[1] == 1, "but it was computed"


def test_another_method_is_counted_under_the_dialect(embedded_server: Server) -> None:
    before = Scrape(embedded_server.url)
    assert httpx2.get(embedded_server.url + TEI.path).status_code == 405
    after = Scrape(embedded_server.url)
    [grown] = growth(before, after, ["rerankd_requests_total"], dialect="tei", error="MethodNotAllowed").values()
    assert grown == 1


def test_a_model_that_breaks_is_counted() -> None:
    with failing() as client:
        url = str(client.base_url).rstrip("/")
        assert client.post(TEI.path, json=TEI.body(documents=["1", "2"])).status_code == 424
        scrape = Scrape(url)
    assert scrape.get("rerankd_requests_total", dialect="tei", status="424", error="InferenceError") == 1
    assert scrape.get("rerankd_batch_fill_count") == scrape.get("rerankd_prompt_tokens_total") == 0


def test_cuts_and_warnings_are_counted(embedded_server: Server) -> None:
    """The embedded model reads 8,190 tokens; both texts of the second call are cut, its query once."""
    long = "red planet " * 4500
    before = Scrape(embedded_server.url)
    answered(embedded_server, TEI, [long, *new(2)])
    middle = Scrape(embedded_server.url)
    response = embedded_server.post(
        RERANK.path, RERANK.body(long, [long, "x " + long], unheard_of=1, truncate_prompt_tokens=256)
    )
    after = Scrape(embedded_server.url)
    assert response.status_code == 200, response.text
    parts = [
        [growth(*two, ["rerankd_truncated_texts_total"], part=part).popitem()[1] for part in ("query", "document")]
        for two in ((before, middle), (middle, after))
    ]
    told = response.json()["meta"]["warnings"]
    assert parts == [[0, 1], [sum("query truncated" in one for one in told), 2]] and parts[1][0] == 1
    assert growth(before, middle, ["rerankd_warnings_total"], dialect="tei") == {"rerankd_warnings_total": 1}
    [warned] = growth(middle, after, ["rerankd_warnings_total"], dialect="vllm-rerank").values()
    assert warned == len(told) >= 3


def test_the_names_that_dashboards_of_vllm_read(embedded_server: Server) -> None:
    before = Scrape(embedded_server.url)
    tokens = RERANK.tokens(answered(embedded_server, RERANK, new(2)))
    after = Scrape(embedded_server.url)
    own = {"model_name": "embedded-multilingual", "engine": "0"}
    assert growth(before, after, ["vllm:request_success_total"], finished_reason="stop", **own).popitem()[1] == 1
    assert growth(before, after, ["vllm:prompt_tokens_total"], **own).popitem()[1] == tokens
    assert growth(before, after, ["vllm:e2e_request_latency_seconds_count"], **own).popitem()[1] == 1
    vllm = [name for name in after.families if name.startswith("vllm:") and not name.endswith("_created")]
    types = {name: after.families[name].type for name in vllm}
    assert types == {
        "vllm:num_requests_running": "gauge",
        "vllm:num_requests_waiting": "gauge",
        "vllm:e2e_request_latency_seconds": "histogram",
        "vllm:request_success": "counter",
        "vllm:prompt_tokens": "counter",
    }
    for name in vllm:
        assert all(own.items() <= sample.labels.items() for sample in after.families[name].samples), name


def test_requests_that_run_wait_and_are_given_up() -> None:
    """One fills the batch that runs, two wait behind it; then one of those hangs up."""
    model = NumberedModel()
    model.gate.clear()
    with serving(lambda progress: scorer_of(model)) as client, ThreadPoolExecutor() as pool:
        url = str(client.base_url).rstrip("/")

        def send(number: int) -> int:
            return httpx2.post(url + RERANK.path, json=RERANK.body("q", [str(number)])).status_code

        def queue() -> tuple[float, ...]:
            scrape = Scrape(url)
            both = [scrape.get(f"rerankd_requests_{state}") for state in ("running", "waiting")]
            assert both == [scrape.get(f"vllm:num_requests_{state}") for state in ("running", "waiting")]
            return tuple(both)

        assert queue() == (0, 0)
        sent = [pool.submit(send, 1)]
        assert model.entered.wait(60)
        sent.append(pool.submit(send, 2))
        wait_until(lambda: queue() == (1, 1))
        began = time.monotonic()
        with connected(url) as raw:
            raw.sendall(call(body=json.dumps(RERANK.body("q", ["3"])).encode(), path=RERANK.path))
            wait_until(lambda: queue() == (1, 2))
        wait_until(lambda: Scrape(url).get("rerankd_requests_total", status="499", error="ClientDisconnect") == 1)
        assert queue() == (1, 1)
        assert Scrape(url).get("rerankd_requests_total") == 1, "the others have not ended"
        held_s = time.monotonic() - began
        model.gate.set()
        assert [one.result(60) for one in sent] == [200, 200]
        scrape = Scrape(url)
    assert scrape.get("rerankd_requests_running") == scrape.get("rerankd_requests_waiting") == 0
    assert scrape.get("vllm:request_success_total", finished_reason="abort") == 1
    assert scrape.get("vllm:request_success_total", finished_reason="stop") == 2
    assert scrape.get("rerankd_queue_seconds_count") == 2, "the one that gave up was never begun"
    assert scrape.get("rerankd_queue_seconds_sum") >= held_s
    assert scrape.get("rerankd_batch_fill_count") == scrape.get("rerankd_batch_fill_sum") == 2, "two full batches"
    assert scrape.get("rerankd_batch_fill_bucket", le="0.9") == 0
    assert scrape.get("rerankd_batch_fill_bucket", le="1.0") == scrape.get("rerankd_batch_fill_bucket", le="+Inf") == 2
    assert scrape.get("rerankd_compute_seconds_total") >= held_s


def test_while_loading_there_is_a_scrape_already() -> None:
    with loading() as client:
        url = str(client.base_url).rstrip("/")
        client.post(RERANK.path, json=RERANK.body())
        scrape = Scrape(url)
    assert scrape.get("rerankd_ready") == 0
    assert scrape.get("rerankd_requests_total", dialect="vllm-rerank", status="503", error="Loading") == 1
    assert not [name for name in scrape.families if name.startswith("vllm:") and scrape.families[name].samples]


def test_many_callers_at_once_lose_no_count(embedded_server: Server) -> None:
    callers, calls, documents = 8, 5, 3
    before = Scrape(embedded_server.url)

    def work(caller: int) -> int:
        surface = ONE_EACH[caller % len(ONE_EACH)]
        tokens = 0
        for _ in range(calls):
            tokens += RERANK.tokens(answered(embedded_server, RERANK, new(documents)))
            assert embedded_server.post(surface.path, surface.with_field("query")).status_code >= 400
        return tokens

    with ThreadPoolExecutor(callers + 1) as pool:
        scrapes = pool.submit(lambda: [Scrape(embedded_server.url) for _ in range(10)])
        tokens = sum(pool.map(work, range(callers)))
        during = scrapes.result()
    after = Scrape(embedded_server.url)
    names = ("rerankd_requests_total", "rerankd_request_seconds_count", "rerankd_documents_total")
    total = callers * calls
    assert list(growth(before, after, names).values()) == [2 * total, total, total * documents]
    assert growth(before, after, ["vllm:prompt_tokens_total"]).popitem()[1] == tokens
    assert growth(before, after, ["rerankd_prompt_tokens_total"]).popitem()[1] == tokens
    assert growth(before, after, ["rerankd_prompt_tokens_total"], source="computed").popitem()[1] == tokens
    counters = {
        sample.name for family in after.families.values() if family.type == "counter" for sample in family.samples
    }
    for earlier, later in itertools.pairwise([before, *during, after]):
        assert min(growth(earlier, later, counters - {"process_cpu_seconds_total"}).values()) >= 0


def test_nothing_that_a_caller_wrote_is_told(embedded_server: Server) -> None:
    before = Scrape(embedded_server.url)
    marks = [f"mark{next(serial)}me" for _ in range(6)]
    query, document, model, path, key, name = marks
    headers = {"x-request-id": name, "user-agent": name}
    for surface in ONE_EACH:
        embedded_server.post(surface.path, surface.body(query, [document], model=model), headers=headers)
        embedded_server.post(surface.path, surface.body(query, [document]), key=key)
        embedded_server.post(f"{surface.path}/{path}", surface.body(query, [document]))
        httpx2.request("PATCH", f"{embedded_server.url}{surface.path}?{path}=1", headers=headers)
    after = Scrape(embedded_server.url)
    assert not [mark for mark in (*marks, embedded_server.key) if mark in after.text]
    dialects = after.labels("rerankd_requests_total", "dialect")
    assert dialects <= before.labels("rerankd_requests_total", "dialect") | set(NAMES.values())
    assert len(after.labels("vllm:request_success_total", "model_name")) == 1


def test_the_description_has_it(embedded_server: Server) -> None:
    operation = httpx2.get(f"{embedded_server.url}/openapi.json").json()["paths"]["/metrics"]["get"]
    assert "security" not in operation
    assert list(operation["responses"]["200"]["content"]) == ["text/plain"]


# The dashboard and the documentation.


@pytest.fixture(scope="module")
def busy_scrape(embedded_server: Server) -> Scrape:
    """After an answer, an error, and a text that was cut."""
    answered(embedded_server, RERANK, ["red planet " * 400, "mars"])
    embedded_server.post(RERANK.path, {})
    return Scrape(embedded_server.url)


def _panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield from (panel, *panel.get("panels", ()))


def _expressions() -> list[str]:
    queries = [target["expr"] for panel in _panels() for target in panel.get("targets", ())]
    return queries + [one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]


def test_the_dashboard_reads_only_what_there_is(busy_scrape: Scrape) -> None:
    names = {sample.name for sample in busy_scrape.samples}
    read = {name for one in _expressions() for name in re.findall(r"\b(?:rerankd|vllm|process|python)[_:]\w+", one)}
    assert len(read) > 15 and read <= names, read - names
    labels = {label for sample in busy_scrape.samples for label in sample.labels} | {"instance"}
    asked = [re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", one) for one in _expressions()]
    grouped = [
        name.strip() for one in _expressions() for by in re.findall(r"by \((.*?)\)", one) for name in by.split(",")
    ]
    assert {name for some in asked for name in some} | set(grouped) <= labels


@pytest.mark.parametrize("file", ["rules.yml", "helm/rerankd/templates/autoscaling.yaml", "helm/rerankd/values.yaml"])
def test_d10_alerts_and_the_chart_read_only_what_there_is(busy_scrape: Scrape, file: str) -> None:
    text = (DOCS.parent / "deploy" / file).read_text()
    read = set(re.findall(r"\brerankd_\w+", text))
    names = {sample.name for sample in busy_scrape.samples} | {
        "rerankd_accounts_up",
        "rerankd_replicas",
    }  # some servers only
    assert read and read <= names, read - names


def test_the_dashboard_runs_on_any_data_source_and_its_panels_do_not_overlap() -> None:
    assert DASHBOARD["id"] is None and DASHBOARD["schemaVersion"] >= 41
    assert (
        DASHBOARD["templating"]["list"][0] | {"type": "datasource", "query": "prometheus"}
        == (DASHBOARD["templating"]["list"][0])
    )
    panels = [panel for panel in _panels() if panel["type"] != "row"]
    assert len({panel["id"] for panel in _panels()}) == len(list(_panels()))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"] and panel["description"] and panel["targets"]
        place = panel["gridPos"]
        cells = set(
            itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
        )
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_every_metric_is_documented_and_every_documented_one_is_there(busy_scrape: Scrape) -> None:
    def own(name: str) -> bool:
        return name.startswith(("rerankd_", "vllm:")) and not name.endswith("_created")

    there = {
        f"{name}_total" if one.type == "counter" else name for name, one in busy_scrape.families.items() if own(name)
    }
    documented = re.findall(r"^\| `((?:rerankd_|vllm:)\w+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    elsewhere = ("rerankd_upstream_", "rerankd_replicas", "rerankd_lost_parts")  # upstreams/test_pool.py, cluster/
    of_engines = [name for name in documented if not name.startswith(elsewhere)]
    assert sorted(of_engines) == sorted(there)


# What the page for administrators shows.

WORK = Work(1, Usage(10, 2), {})


@contextmanager
def metrics_of(scorer: EngineScorer, clock: Callable[[], float]) -> Iterator[Metrics]:
    served = ServedModel(lambda progress: scorer)
    metrics = Metrics(Models(served), clock=clock)
    served.load(lambda: None)
    wait_until(lambda: served.ready)
    yield metrics
    served.close()


def test_the_status_is_that_of_the_last_minute() -> None:
    now = 1000.0
    scorer = scorer_of(NumberedModel(), score_cache_bytes=10**6)
    with metrics_of(scorer, lambda: now) as metrics:
        status = metrics.status()
        assert (status.requests_per_minute, status.tokens_per_second, status.score_hit_share) == (0, 0, None)
        assert (status.running, status.waiting, status.uptime_s) == (0, 0, 0)
        now += 100
        for number in (1, 2, 2, 2):
            pair = Prompt("", str(number), range(number, number + 300), 1, 1)
            scorer.engine.submit([pair]).result(60)
            metrics.observe(api="tei", status=200, seconds=1, work=WORK)
        status = metrics.status()
        assert (status.requests_per_minute, status.tokens_per_second) == (4, 2 * 300 / 60), "two of the four were known"
        assert (status.score_hit_share, status.prefix_hit_share, status.uptime_s) == (0.5, None, 100)
        now += 30
        metrics.observe(api="tei", status=422, seconds=1)
        assert metrics.status().requests_per_minute == 5
        now += 30
        status = metrics.status()
        assert (status.requests_per_minute, status.tokens_per_second) == (1, 0), "a minute later"
        now += 30
        assert metrics.status().requests_per_minute == 0


def test_before_the_model_is_there_the_status_says_what_it_can() -> None:
    def never(progress: LoadProgress) -> EngineScorer:
        raise AssertionError

    metrics = Metrics(Models(ServedModel(never)), clock=lambda: 5.0)
    metrics.observe(api="tei", status=503, seconds=1)
    status = metrics.status()
    assert (status.running, status.requests_per_minute, status.prefix_hit_share) == (0, 1, None)


def test_what_everybody_is_told_is_no_warning() -> None:
    model = NumberedModel()
    model.info = replace(model.info, notice="small")
    with metrics_of(scorer_of(model), time.monotonic) as metrics:
        metrics.observe(api="tei", status=200, seconds=1, work=WORK, warnings=("small", "cut"))
        assert metrics.registry.get_sample_value("rerankd_warnings_total", {"dialect": "tei", "model": ""}) == 1


def test_what_was_charged_is_counted() -> None:
    with metrics_of(scorer_of(NumberedModel()), time.monotonic) as metrics:
        for charge in (Charge(2_500_000, 3, 7, 10), Charge(500_000, 0, 10, 10), None):
            metrics.observe(api="tei", status=200, seconds=1, work=WORK, charge=charge)
        get = metrics.registry.get_sample_value
        assert get("rerankd_charged_total") == 3.0
        assert get("rerankd_free_tokens_total") == 3 and get("rerankd_billed_tokens_total") == 17
        assert get("rerankd_usage_tokens_total", {"dialect": "tei", "model": ""}) == 6
