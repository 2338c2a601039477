"""Reads what the engine and the accounts count, at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rerankd.server.served import ServedModel
from rerankd.types import CacheStats, EngineStats, Histogram
from rerankd.version import __version__


class EngineCollector(Collector):
    """The engine's counters."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        yield _gauge("rerankd_ready", "1 once the model is loaded.", float(self._served.ready))
        if not self._served.ready:
            return
        engine = self._served.engine
        info, stats = engine.info, engine.stats
        labels = {"version": __version__, "model": info.name, "dtype": info.dtype, "device": info.device}
        yield _gauge("rerankd_info", "The served model.", 1, **labels)
        yield _gauge(
            "rerankd_fallback", "1 while the embedded model answers in place of another.", float(info.is_fallback)
        )
        yield from _queue(stats)
        yield _gauge(
            "vllm:num_requests_running", "As rerankd_requests_running.", stats.running, **_vllm_labels(info.name)
        )
        yield _gauge(
            "vllm:num_requests_waiting", "As rerankd_requests_waiting.", stats.waiting, **_vllm_labels(info.name)
        )
        yield from _tokens(stats)
        yield from _caches({"prefix": stats.prefix_cache, "score": stats.score_cache})


class AccountsCollector(Collector):
    """The state of the accounts' database."""

    def __init__(self, is_up: Callable[[], bool], failed_renewals: Callable[[], int]) -> None:
        self._is_up, self._failed_renewals = is_up, failed_renewals

    def collect(self) -> Iterator[Metric]:
        yield _gauge("rerankd_accounts_up", "0 while accounts cannot be read or written.", float(self._is_up()))
        failed = CounterMetricFamily("rerankd_failed_renewals", "Failed renewals of running calls' leases.")
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
        "Tokens of prompts. source: computed, or cached: prefix_cache, score_cache.",
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
