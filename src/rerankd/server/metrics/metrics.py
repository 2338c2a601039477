"""One registry for an application, `/metrics`, and the status of the last minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from rerankd.accounts.decision import Charge
from rerankd.server.metrics.calls import CallCounters, Work
from rerankd.server.metrics.engine import AccountsCollector, EngineCollector
from rerankd.server.metrics.recent import MINUTE_S, LastMinute
from rerankd.server.metrics.upstreams import UpstreamCollector
from rerankd.server.metrics.vllm_names import VLLMNames
from rerankd.server.models import Models
from rerankd.stats import CacheStats

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each counter, with its time of creation


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The server's load at one moment.

    Attributes:
        running: requests that the engine computes.
        waiting: requests of which nothing was computed yet.
        requests_per_minute: rerank calls that ended in the last minute, refused ones too.
        tokens_per_second: tokens computed in the last minute; those of a call count at its end at the latest.
        prefix_hit_share: of the prefix cache's look-ups since the start, in [0, 1]; None before the first.
        score_hit_share: the same of the score cache.
        uptime_s: seconds since the start.
    """

    running: int
    waiting: int
    requests_per_minute: float
    tokens_per_second: float
    prefix_hit_share: float | None
    score_hit_share: float | None
    uptime_s: float


class Metrics:
    """Counts calls, and reads the engine's counters at each scrape. Safe to call from several threads.

    Args:
        apis: names of the APIs that are served.
        clock: seconds.
    """

    def __init__(self, models: Models, apis: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._models = models
        self._clock = clock
        self._started = clock()
        self._recent_calls, self._recent_tokens = LastMinute(clock), LastMinute(clock)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.registry.register(EngineCollector(models))
        self.registry.register(UpstreamCollector(models))
        self._vllm = VLLMNames(self.registry)
        self._apis = tuple(apis)
        self._calls = CallCounters(self.registry)

    def watch_accounts(self, is_up: Callable[[], bool], failed_renewals: Callable[[], int]) -> None:
        """Reads the state of the accounts at each scrape."""
        self.registry.register(AccountsCollector(is_up, failed_renewals))

    def observe(
        self,
        *,
        api: str,
        status: int,
        seconds: float,
        error: Exception | None = None,
        model: str | None = None,
        work: Work | None = None,
        warnings: Sequence[str] = (),
        charge: Charge | None = None,
    ) -> None:
        """Counts one call that ended.

        Args:
            seconds: since it arrived.
            error: None for an answer.
            model: the own name of the model that was asked; None where the call was refused before it was found.
            work: the ranked documents; without it, only the call itself is counted.
            warnings: those in the reply. The model's own notice, which every reply has, is not counted.
            charge: None without accounts.
        """
        self._calls.ended(api, model or "", status, error)
        self._recent_calls.add(1)
        self._add_new_tokens()
        if model is not None:
            self._vllm.observe(model, status, seconds, work.usage if work else None)
        if work is None:
            return
        notices = {served.engine.info.notice for served in self._models if served.ready}
        num_warnings = sum(warning not in notices for warning in warnings)
        self._calls.answered(api, model or "", seconds, work, num_warnings)
        if charge is not None:
            self._calls.charged(charge)

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        for served in self._models:
            if served.ready:
                self._vllm.begin(served.engine.info.name)
                self._calls.begin(self._apis, served.engine.info.name)
        return generate_latest(self.registry)

    def status(self) -> ServerStatus:
        """The current load."""
        self._add_new_tokens()
        stats = [served.engine.stats for served in self._models if served.ready]
        uptime_s = self._clock() - self._started
        return ServerStatus(
            running=sum(one.running for one in stats),
            waiting=sum(one.waiting for one in stats),
            requests_per_minute=self._recent_calls.total(),
            tokens_per_second=self._recent_tokens.total() / max(1.0, min(uptime_s, MINUTE_S)),
            prefix_hit_share=_hit_share([one.prefix_cache for one in stats]),
            score_hit_share=_hit_share([one.score_cache for one in stats]),
            uptime_s=uptime_s,
        )

    def _add_new_tokens(self) -> None:
        """Adds to the last minute what the engines computed since the last look."""
        computed = [served.engine.stats.tokens_computed for served in self._models if served.ready]
        if computed:
            self._recent_tokens.add_growth(sum(computed))


def metrics_routes(metrics: Metrics) -> APIRouter:
    """GET /metrics, also as /tei/metrics: without a key, as in vLLM."""
    router = APIRouter(tags=["status"])

    # FastAPI runs a plain function on another thread: it takes some milliseconds.
    described: dict[str, Any] = {
        "response_class": Response,
        "responses": {200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
    }

    @router.get("/metrics", summary="Counters for Prometheus", **described)
    @router.get("/tei/metrics", summary="The same", **described)
    def scrape() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


def _hit_share(caches: Sequence[CacheStats]) -> float | None:
    hits = sum(cache.hits for cache in caches)
    asked = hits + sum(cache.misses for cache in caches)
    return hits / asked if asked else None
