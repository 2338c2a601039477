"""The names of vLLM's metrics that dashboards and autoscalers read."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from prometheus_client import Histogram as HistogramMetric

from rerankd.types import Usage

VLLM_SECONDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""vLLM's own buckets: the heat maps of dashboards expect them."""


class VLLMNames:
    """Counts under vLLM's names. A request is a call here; in vLLM it is a prompt."""

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
        """Begins the series at 0."""
        for reason in ("stop", "abort"):
            self._success.labels(model, "0", reason)
        self._tokens.labels(model, "0")
        self._seconds.labels(model, "0")

    def observe(self, model: str, status: int, seconds: float, usage: Usage | None) -> None:
        if usage is not None:
            self._success.labels(model, "0", "stop").inc()
            self._tokens.labels(model, "0").inc(usage.total_tokens or 0)
            self._seconds.labels(model, "0").observe(seconds)
        elif status == 499:
            self._success.labels(model, "0", "abort").inc()
