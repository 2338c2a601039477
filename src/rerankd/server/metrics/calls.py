"""What the server counts, for Prometheus and for the page of whoever runs it.

One registry an application. No label holds what a caller wrote: no path, no model name, no key, no text.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client import Histogram as HistogramMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rerankd.accounts.decision import Charge
from rerankd.errors import RateLimited
from rerankd.prices import MICRO
from rerankd.server.served import ServedModel
from rerankd.types import CacheStats, EngineStats, Histogram, Ranking
from rerankd.version import __version__

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

VLLM_SECONDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""As vLLM's own buckets, so that dashboards' heat maps fit."""

MINUTE_S = 60

LIMIT_KINDS = ("requests", "tokens", "concurrency")
"""Of `errors.RateLimited`."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series of each counter's birth, which nobody reads


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How the server does at one moment.

    running, waiting: requests in the engine. requests_per_minute: rerank calls that ended in the last minute, refused
    ones too. tokens_per_second: computed in the last minute; those of a call are noticed when it ends, or earlier.
    prefix_hit_share, score_hit_share: of the caches' look-ups since the start, in [0, 1]; None before the first.
    """

    running: int
    waiting: int
    requests_per_minute: float
    tokens_per_second: float
    prefix_hit_share: float | None
    score_hit_share: float | None
    uptime_s: float


class Metrics:
    """Counts calls; what the engine counts is read when somebody asks. Safe to call from several threads.

    Args:
        dialects: whose series are there, at 0, before their first call: Prometheus sees no growth from nothing to 1.
        clock: seconds.
    """

    def __init__(
        self, served: ServedModel, dialects: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._served = served
        self._clock = clock
        self._started = clock()
        self._recent_calls, self._recent_tokens = _LastMinute(clock), _LastMinute(clock)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(_EngineCollector(served))
        self._vllm = _VLLMNames(self.registry)

        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"rerankd_{name}", help_text, labels, registry=self.registry)

        self._requests = counter(
            "requests", "Rerank calls that ended. error: the class of what went wrong.", "dialect", "status", "error"
        )
        self._seconds = HistogramMetric(
            "rerankd_request_seconds",
            "From a call's first byte to its reply, of those that were answered with a ranking.",
            ("dialect",),
            registry=self.registry,
            buckets=SECONDS,
        )
        self._documents = counter("documents", "Documents that were ranked.", "dialect")
        self._usage_tokens = counter(
            "usage_tokens", "Tokens of queries (once a document) and documents: what a price list bills.", "dialect"
        )
        self._cuts = counter("truncated_texts", "Texts that were cut. part: query or document.", "dialect", "part")
        self._warnings = counter("warnings", "Things that were not done as asked, each told to its caller.", "dialect")
        self._free_tokens = counter("free_tokens", "Usage tokens that a free quota paid for.")
        self._billed_tokens = counter("billed_tokens", "Usage tokens that were charged.")
        self._charged = counter("charged", "What calls were charged, in the price list's currency.")
        self._limited = counter("limited", "Calls that were refused by a caller's limit of this kind.", "limit")
        self._begin(dialects)

    def _begin(self, dialects: Iterable[str]) -> None:
        for dialect in dialects:
            self._requests.labels(dialect, "200", "")
            for metric in (self._seconds, self._documents, self._usage_tokens, self._warnings):
                metric.labels(dialect)
            for part in ("query", "document"):
                self._cuts.labels(dialect, part)
        for kind in LIMIT_KINDS:
            self._limited.labels(kind)

    def watch_accounts(self, is_up: Callable[[], bool], failed_renewals: Callable[[], int]) -> None:
        """Reads how the accounts do at each scrape."""
        self.registry.register(_AccountsCollector(is_up, failed_renewals))

    def observe(
        self,
        *,
        dialect: str,
        status: int,
        seconds: float,
        error: Exception | None = None,
        ranking: Ranking | None = None,
        warnings: Sequence[str] = (),
        charge: Charge | None = None,
    ) -> None:
        """Counts one call that ended.

        Args:
            seconds: since it came.
            error: what went wrong; None for an answer.
            ranking: what was answered; where there is none, nothing but the call itself is counted.
            warnings: told to the caller; the model's own notice, which everybody gets, is not counted.
            charge: None where there are no accounts.
        """
        self._requests.labels(dialect, str(status), type(error).__name__ if error else "").inc()
        if isinstance(error, RateLimited):
            self._limited.labels(error.kind).inc()
        self._recent_calls.add(1)
        self._notice_tokens()
        if self._served.ready:
            self._vllm.observe(self._served.engine.info.name, status, seconds, ranking)
        if ranking is None:
            return
        self._seconds.labels(dialect).observe(seconds)
        self._documents.labels(dialect).inc(len(ranking.scores))
        self._usage_tokens.labels(dialect).inc(ranking.usage.text_tokens or 0)
        for part, count in _truncated(ranking).items():
            self._cuts.labels(dialect, part).inc(count)
        notice = self._served.engine.info.notice
        self._warnings.labels(dialect).inc(sum(warning != notice for warning in warnings))
        if charge is not None:
            self._free_tokens.inc(charge.free_tokens)
            self._billed_tokens.inc(charge.billed_tokens)
            self._charged.inc(charge.cost / MICRO)

    def text(self) -> bytes:
        """Everything, in the text format that Prometheus reads."""
        if self._served.ready:
            self._vllm.begin(self._served.engine.info.name)
        return generate_latest(self.registry)

    def status(self) -> ServerStatus:
        """The figures of this moment."""
        self._notice_tokens()
        stats = self._served.engine.stats if self._served.ready else None
        uptime_s = self._clock() - self._started
        return ServerStatus(
            running=stats.running if stats else 0,
            waiting=stats.waiting if stats else 0,
            requests_per_minute=self._recent_calls.total(),
            tokens_per_second=self._recent_tokens.total() / max(1.0, min(uptime_s, MINUTE_S)),
            prefix_hit_share=_hit_share(stats.prefix_cache) if stats else None,
            score_hit_share=_hit_share(stats.score_cache) if stats else None,
            uptime_s=uptime_s,
        )

    def _notice_tokens(self) -> None:
        """Adds to the last minute what the engine computed since it was last asked."""
        if self._served.ready:
            self._recent_tokens.add_growth(self._served.engine.stats.tokens_computed)


def metrics_routes(metrics: Metrics) -> APIRouter:
    """GET /metrics, also as /tei/metrics: open to everybody, as vLLM's."""
    router = APIRouter(tags=["status"])

    # A plain function, which FastAPI runs beside its loop: it takes some milliseconds.
    described: dict[str, Any] = {
        "response_class": Response,
        "responses": {200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
    }

    @router.get("/metrics", summary="Counters for Prometheus", **described)
    @router.get("/tei/metrics", summary="The same", **described)
    def scrape() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


class _VLLMNames:
    """The names of vLLM that dashboards and autoscalers read. A request is a call here, not a prompt as in vLLM."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("model_name", "engine")
        self._seconds = HistogramMetric(
            "vllm:e2e_request_latency_seconds",
            "As rerankd_request_seconds.",
            labels,
            registry=registry,
            buckets=VLLM_SECONDS,
        )
        self._success = Counter(
            "vllm:request_success",
            "Calls that were answered, or given up by their callers.",
            (*labels, "finished_reason"),
            registry=registry,
        )
        self._tokens = Counter(
            "vllm:prompt_tokens", "Tokens of the prompts of answered calls.", labels, registry=registry
        )

    def begin(self, model: str) -> None:
        """Shows the counters before the first call."""
        for reason in ("stop", "abort"):
            self._success.labels(model, "0", reason)
        self._tokens.labels(model, "0")
        self._seconds.labels(model, "0")

    def observe(self, model: str, status: int, seconds: float, ranking: Ranking | None) -> None:
        if ranking is not None:
            self._success.labels(model, "0", "stop").inc()
            self._tokens.labels(model, "0").inc(ranking.usage.total_tokens or 0)
            self._seconds.labels(model, "0").observe(seconds)
        elif status == 499:
            self._success.labels(model, "0", "abort").inc()


class _EngineCollector(Collector):
    """Reads the engine's own counters at each scrape."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        yield _gauge("rerankd_ready", "1 once the model is loaded.", float(self._served.ready))
        if not self._served.ready:
            return
        engine = self._served.engine
        info, stats = engine.info, engine.stats
        labels = {"version": __version__, "model": info.name, "dtype": info.dtype, "device": info.device}
        yield _gauge("rerankd_info", "What serves.", 1, **labels)
        yield _gauge("rerankd_fallback", "1 while the embedded model answers for another.", float(info.is_fallback))
        yield from _queue(stats)
        yield _gauge(
            "vllm:num_requests_running", "As rerankd_requests_running.", stats.running, **_vllm_labels(info.name)
        )
        yield _gauge(
            "vllm:num_requests_waiting", "As rerankd_requests_waiting.", stats.waiting, **_vllm_labels(info.name)
        )
        yield from _tokens(stats)
        yield from _caches({"prefix": stats.prefix_cache, "score": stats.score_cache})


class _AccountsCollector(Collector):
    """How the database of the accounts does."""

    def __init__(self, is_up: Callable[[], bool], failed_renewals: Callable[[], int]) -> None:
        self._is_up, self._failed_renewals = is_up, failed_renewals

    def collect(self) -> Iterator[Metric]:
        yield _gauge("rerankd_accounts_up", "0 while accounts cannot be read or written.", float(self._is_up()))
        failed = CounterMetricFamily("rerankd_failed_renewals", "Times that running calls' leases were not renewed.")
        failed.add_metric((), self._failed_renewals())
        yield failed


def _vllm_labels(model: str) -> dict[str, str]:
    return {"model_name": model, "engine": "0"}


def _queue(stats: EngineStats) -> Iterator[Metric]:
    yield _gauge("rerankd_requests_running", "Requests that are being computed.", stats.running)
    yield _gauge("rerankd_requests_waiting", "Requests of which nothing was computed yet.", stats.waiting)
    waited = "From a request's arrival at the engine to its first batch."
    yield _histogram("rerankd_queue_seconds", waited, stats.queue_s)


def _tokens(stats: EngineStats) -> Iterator[Metric]:
    yield _by_label(
        "rerankd_prompt_tokens",
        "Tokens of prompts. source: computed, or known: prefix_cache, score_cache.",
        "source",
        {
            "computed": stats.tokens_computed,
            "prefix_cache": stats.prefix_cache.tokens,
            "score_cache": stats.score_cache.tokens,
        },
    )
    busy = CounterMetricFamily("rerankd_compute_seconds", "Time that the engine spent on batches.")
    busy.add_metric((), stats.seconds_computing)
    yield busy
    yield _histogram(
        "rerankd_batch_fill", "Tokens of a batch, as a share of the most that it may have.", stats.batch_fill
    )


def _caches(caches: dict[str, CacheStats]) -> Iterator[Metric]:
    hits = {name: stats.hits for name, stats in caches.items()}
    misses = {name: stats.misses for name, stats in caches.items()}
    yield _by_label("rerankd_cache_hits", "Look-ups that found something.", "cache", hits)
    yield _by_label("rerankd_cache_misses", "Look-ups that found nothing.", "cache", misses)
    held = GaugeMetricFamily("rerankd_cache_bytes", "Memory that a cache holds.", labels=("cache",))
    for name, stats in caches.items():
        held.add_metric((name,), stats.bytes)
    yield held


def _gauge(name: str, help_text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family


def _by_label(name: str, help_text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def _histogram(name: str, help_text: str, values: Histogram) -> Metric:
    family = HistogramMetricFamily(name, help_text)
    buckets = zip(map(floatToGoString, values.bounds), accumulate(values.counts), strict=True)
    family.add_metric((), list(buckets), values.total)
    return family


def _truncated(ranking: Ranking) -> dict[str, int]:
    """How many texts of each kind were truncated, a query once."""
    lost = [(one.part, score.prompt) for score in ranking.scores if score.prompt for one in score.prompt.truncations]
    queries = {prompt.query for part, prompt in lost if part == "query"}
    return {"query": len(queries), "document": sum(part == "document" for part, _ in lost)}


def _hit_share(cache: CacheStats) -> float | None:
    asked = cache.hits + cache.misses
    return cache.hits / asked if asked else None


class _LastMinute:
    """A sum over the last sixty seconds, by whole seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sums: dict[int, int] = {}
        self._counted = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self._lock:
            self._add(amount)

    def add_growth(self, count: int) -> None:
        """Adds what a counter grew by since this was last called."""
        with self._lock:
            self._add(count - self._counted)
            self._counted = count

    def total(self) -> int:
        with self._lock:
            self._forget()
            return sum(self._sums.values())

    def _add(self, amount: int) -> None:
        now = self._forget()
        self._sums[now] = self._sums.get(now, 0) + amount

    def _forget(self) -> int:
        """Drops what is older, and returns the second that it is."""
        now = int(self._clock())
        self._sums = {second: amount for second, amount in self._sums.items() if second > now - MINUTE_S}
        return now
