"""Counts calls that ended. No label holds a text of a caller: no path, no key, no model name but our own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter
from prometheus_client import Histogram as HistogramMetric

from rerankd.accounts.decision import Charge
from rerankd.errors import RateLimited
from rerankd.prices import MICRO
from rerankd.types import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

LIMIT_KINDS = ("requests", "tokens", "concurrency")
"""See `errors.RateLimited`."""


class Work(NamedTuple):
    """The work of an answered call.

    truncated: the number of texts by their part, a query once. split, unread: documents with several passages, and
    those whose end no passage has. passages: of all documents, where the call wanted them.
    left_out, nothing_relevant: see `types.Ranking`. unscored: documents that the deadline left, which `documents` does
    not count. again: documents that a second model scored.
    """

    documents: int
    usage: Usage
    truncated: Mapping[str, int]
    split: int = 0
    passages: int = 0
    unread: int = 0
    left_out: int = 0
    nothing_relevant: bool = False
    unscored: int = 0
    again: int = 0


OF_WORK = {
    "documents": ("documents", "Documents that were ranked."),
    "passages": ("passages", "Passages that were scored."),
    "split": ("split_documents", "Documents with several passages."),
    "unread": ("unread_documents", "Documents with more passages than a call may have of one."),
    "unscored": ("unscored_documents", "Documents that were not scored before the deadline."),
    "left_out": ("left_out_results", "Results under the min_score of a call."),
    "nothing_relevant": ("nothing_relevant", "Calls without a relevant result."),
    "again": ("cascade_documents", "Documents that a second model scored again."),
}
"""By the field of `Work`: the name of the counter that adds it up, and its help."""


class CallCounters:
    """The counters of rerank calls. model: a served model's own name; empty where no model was found."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"rerankd_{name}", help_text, labels, registry=registry)

        self._requests = counter(
            "requests",
            "Rerank calls that ended. error: the class of the error.",
            *("dialect", "model", "status", "error"),
        )
        self._seconds = HistogramMetric(
            "rerankd_request_seconds",
            "From the first byte of a call to its reply, for calls that were answered with a ranking.",
            ("dialect", "model"),
            registry=registry,
            buckets=SECONDS,
        )
        self._usage_tokens = counter(
            "usage_tokens",
            "Tokens of queries (once a document) and documents: what a price list bills.",
            *("dialect", "model"),
        )
        self._truncated = counter(
            "truncated_texts", "Texts that were truncated. part: query or document.", "dialect", "model", "part"
        )
        self._warnings = counter("warnings", "Warnings in replies: deviations from the request.", "dialect", "model")
        self._work = {field: counter(*about, "dialect", "model") for field, about in OF_WORK.items()}
        self._free_tokens = counter("free_tokens", "Usage tokens that a free quota paid for.")
        self._billed_tokens = counter("billed_tokens", "Usage tokens that were charged.")
        self._charged = counter("charged", "Charges of calls, in the price list's currency.")
        self._limited = counter("limited", "Calls that were refused by a rate limit of this kind.", "limit")
        for kind in LIMIT_KINDS:
            self._limited.labels(kind)

    def begin(self, apis: Iterable[str], model: str) -> None:
        """Begins the series of a model at 0, before its first call: Prometheus sees no growth from nothing to 1."""
        for api in apis:
            self._requests.labels(api, model, "200", "")
            for metric in (self._seconds, self._usage_tokens, self._warnings, *self._work.values()):
                metric.labels(api, model)
            for part in ("query", "document"):
                self._truncated.labels(api, model, part)

    def ended(self, api: str, model: str, status: int, error: Exception | None) -> None:
        """Counts a call."""
        self._requests.labels(api, model, str(status), type(error).__name__ if error else "").inc()
        if isinstance(error, RateLimited):
            self._limited.labels(error.kind).inc()

    def answered(self, api: str, model: str, seconds: float, work: Work, num_warnings: int) -> None:
        """Counts what an answered call ranked."""
        self._seconds.labels(api, model).observe(seconds)
        self._usage_tokens.labels(api, model).inc(work.usage.text_tokens or 0)
        for part, count in work.truncated.items():
            self._truncated.labels(api, model, part).inc(count)
        self._warnings.labels(api, model).inc(num_warnings)
        for field, counted in self._work.items():
            counted.labels(api, model).inc(getattr(work, field))

    def charged(self, charge: Charge) -> None:
        """Counts what a call cost."""
        self._free_tokens.inc(charge.free_tokens)
        self._billed_tokens.inc(charge.billed_tokens)
        self._charged.inc(charge.cost / MICRO)
