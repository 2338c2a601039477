"""Reads what the engine and the accounts count, at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rerankd.server.models import Models
from rerankd.server.served import Engine
from rerankd.stats import CacheStats, EngineStats, Histogram, ReplicaStats
from rerankd.version import __version__


class EngineCollector(Collector):
    """The counters of every loaded model's engine, with the model's own name as label."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        yield _gauge("rerankd_ready", "1 once every model is loaded.", float(self._models.ready))
        families: dict[str, Metric] = {}
        if not any(served.ready for served in self._models):
            yield from _waiting_and_running("", 0, 0)  # autoscalers need the series to exist
        for served in self._models:
            if served.ready:
                for metric in _of_engine(served.engine, computes=served.pool is None):
                    families.setdefault(metric.name, metric)
                    if families[metric.name] is not metric:
                        families[metric.name].samples += metric.samples
        yield from families.values()


def _of_engine(engine: Engine, *, computes: bool) -> Iterator[Metric]:
    """computes: the engine runs in this process, and is not a pool of upstreams."""
    info, stats = engine.info, engine.stats
    model = info.name
    labels = {"version": __version__, "model": model, "dtype": info.dtype, "device": info.device}
    yield _gauge("rerankd_info", "A served model.", 1, **labels)
    fallback = "1 while the embedded model answers in place of another."
    yield _gauge("rerankd_fallback", fallback, float(info.is_fallback), model=model)
    yield from _waiting_and_running(model, stats.waiting, stats.running)
    yield _gauge("vllm:num_requests_running", "As rerankd_requests_running.", stats.running, **_vllm_labels(model))
    yield _gauge("vllm:num_requests_waiting", "As rerankd_requests_waiting.", stats.waiting, **_vllm_labels(model))
    if not computes:
        return
    waited = "From a request's arrival at the engine to its first batch."
    yield _histogram("rerankd_queue_seconds", waited, model, stats.queue_s)
    if stats.replicas is not None:
        yield from _replicas(model, stats.replicas)
    yield from _tokens(model, stats)
    yield from _caches(model, {"prefix": stats.prefix_cache, "score": stats.score_cache})


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


def _waiting_and_running(model: str, waiting: int, running: int) -> Iterator[Metric]:
    yield _gauge("rerankd_requests_running", "Requests that are being computed.", running, model=model)
    about = "Requests of which nothing was computed yet."
    yield _gauge("rerankd_requests_waiting", about, waiting, model=model)


def _replicas(model: str, stats: ReplicaStats) -> Iterator[Metric]:
    yield _gauge("rerankd_replicas", "Replicas that can be asked now.", stats.running, model=model)
    lost = "Parts of calls whose replica ended before it answered; another replica was asked."
    family = CounterMetricFamily("rerankd_lost_parts", lost, labels=("model",))
    family.add_metric((model,), stats.lost_parts)
    yield family


def _tokens(model: str, stats: EngineStats) -> Iterator[Metric]:
    yield _by_label(
        "rerankd_prompt_tokens",
        "Tokens of prompts. source: computed, or cached: prefix_cache, score_cache.",
        model,
        "source",
        {
            "computed": stats.tokens_computed,
            "prefix_cache": stats.prefix_cache.tokens,
            "score_cache": stats.score_cache.tokens,
        },
    )
    busy = CounterMetricFamily("rerankd_compute_seconds", "Time that the engine spent on batches.", labels=("model",))
    busy.add_metric((model,), stats.seconds_computing)
    yield busy
    fill = "Tokens of a batch, as a share of the most that it may have."
    yield _histogram("rerankd_batch_fill", fill, model, stats.batch_fill)


def _caches(model: str, caches: dict[str, CacheStats]) -> Iterator[Metric]:
    hits = {name: stats.hits for name, stats in caches.items()}
    misses = {name: stats.misses for name, stats in caches.items()}
    yield _by_label("rerankd_cache_hits", "Look-ups that found something.", model, "cache", hits)
    yield _by_label("rerankd_cache_misses", "Look-ups that found nothing.", model, "cache", misses)
    held = GaugeMetricFamily("rerankd_cache_bytes", "Memory that a cache holds.", labels=("model", "cache"))
    for name, stats in caches.items():
        held.add_metric((model, name), stats.bytes)
    yield held


def _gauge(name: str, help_text: str, value: float, **labels: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=tuple(labels))
    family.add_metric(tuple(labels.values()), value)
    return family


def _by_label(name: str, help_text: str, model: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=("model", label))
    for value, count in values.items():
        family.add_metric((model, value), count)
    return family


def _histogram(name: str, help_text: str, model: str, values: Histogram) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=("model",))
    buckets = zip(map(floatToGoString, values.bounds), accumulate(values.counts), strict=True)
    family.add_metric((model,), list(buckets), values.total)
    return family
