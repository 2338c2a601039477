"""Counts calls that ended. No label holds a text of a caller: no path, no model name, no key."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client import Histogram as HistogramMetric

from rerankd.accounts.decision import Charge
from rerankd.errors import RateLimited
from rerankd.prices import MICRO
from rerankd.types import Ranking

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

LIMIT_KINDS = ("requests", "tokens", "concurrency")
"""See `errors.RateLimited`."""


class CallCounters:
    """The counters of rerank calls.

    Args:
        apis: names of APIs. Their series begin at 0 before the first call: Prometheus sees no growth from nothing to 1.
    """

    def __init__(self, registry: CollectorRegistry, apis: Iterable[str]) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"rerankd_{name}", help_text, labels, registry=registry)

        self._requests = counter(
            "requests", "Rerank calls that ended. error: the class of the error.", "dialect", "status", "error"
        )
        self._seconds = HistogramMetric(
            "rerankd_request_seconds",
            "From the first byte of a call to its reply, for calls that were answered with a ranking.",
            ("dialect",),
            registry=registry,
            buckets=SECONDS,
        )
        self._documents = counter("documents", "Documents that were ranked.", "dialect")
        self._usage_tokens = counter(
            "usage_tokens", "Tokens of queries (once a document) and documents: what a price list bills.", "dialect"
        )
        self._truncated = counter(
            "truncated_texts", "Texts that were truncated. part: query or document.", "dialect", "part"
        )
        self._warnings = counter("warnings", "Warnings in replies: deviations from the request.", "dialect")
        self._free_tokens = counter("free_tokens", "Usage tokens that a free quota paid for.")
        self._billed_tokens = counter("billed_tokens", "Usage tokens that were charged.")
        self._charged = counter("charged", "Charges of calls, in the price list's currency.")
        self._limited = counter("limited", "Calls that were refused by a rate limit of this kind.", "limit")
        self._begin(apis)

    def _begin(self, apis: Iterable[str]) -> None:
        for api in apis:
            self._requests.labels(api, "200", "")
            for metric in (self._seconds, self._documents, self._usage_tokens, self._warnings):
                metric.labels(api)
            for part in ("query", "document"):
                self._truncated.labels(api, part)
        for kind in LIMIT_KINDS:
            self._limited.labels(kind)

    def ended(self, api: str, status: int, error: Exception | None) -> None:
        """Counts a call."""
        self._requests.labels(api, str(status), type(error).__name__ if error else "").inc()
        if isinstance(error, RateLimited):
            self._limited.labels(error.kind).inc()

    def answered(self, api: str, seconds: float, ranking: Ranking, num_warnings: int) -> None:
        """Counts what an answered call ranked."""
        self._seconds.labels(api).observe(seconds)
        self._documents.labels(api).inc(len(ranking.scores))
        self._usage_tokens.labels(api).inc(ranking.usage.text_tokens or 0)
        for part, count in _truncated(ranking).items():
            self._truncated.labels(api, part).inc(count)
        self._warnings.labels(api).inc(num_warnings)

    def charged(self, charge: Charge) -> None:
        """Counts what a call cost."""
        self._free_tokens.inc(charge.free_tokens)
        self._billed_tokens.inc(charge.billed_tokens)
        self._charged.inc(charge.cost / MICRO)


def _truncated(ranking: Ranking) -> dict[str, int]:
    """How many texts of each kind were truncated, a query once."""
    lost = [(one.part, score.prompt) for score in ranking.scores if score.prompt for one in score.prompt.truncations]
    queries = {prompt.query for part, prompt in lost if part == "query"}
    return {"query": len(queries), "document": sum(part == "document" for part, _ in lost)}
