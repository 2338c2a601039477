"""Reads what the pools of upstreams count, at each scrape. Labels hold configured names only."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rerankd.server.models import Models
from rerankd.upstreams.breaker import STATES
from rerankd.upstreams.member import RESTING, Member
from rerankd.upstreams.outcomes import KINDS
from rerankd.upstreams.pool import Pool

LABELS = ("model", "upstream")


class UpstreamCollector(Collector):
    """The counters of every upstream. No series without upstreams."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        pools = [served.pool for served in self._models if served.pool is not None]
        if not pools:
            return
        members = [(pool, member) for pool in pools for member in pool.members]
        yield from _counters(members)
        yield from _gauges(members)
        yield from _of_pools(pools)


def _counters(members: list[tuple[Pool, Member]]) -> Iterator[Metric]:
    about = "Attempts. outcome: answered, or why not."
    outcomes = CounterMetricFamily("rerankd_upstream_requests", about, labels=(*LABELS, "outcome"))
    seconds = HistogramMetricFamily("rerankd_upstream_request_seconds", "Of an answered attempt.", labels=LABELS)
    tokens = CounterMetricFamily("rerankd_upstream_tokens", "Tokens that it scored, as it counts them.", labels=LABELS)
    cost = CounterMetricFamily("rerankd_upstream_cost", "What it costs, by its settings.", labels=LABELS)
    others = CounterMetricFamily("rerankd_upstream_other_model", "Calls that another model answered.", labels=LABELS)
    about = "Calls whose tokens it counts otherwise than this server, by more than 1 %."
    differences = CounterMetricFamily("rerankd_upstream_token_differences", about, labels=LABELS)
    for pool, member in members:
        labels, stats = (pool.name, member.name), member.stats
        for outcome in ("answered", *KINDS):
            outcomes.add_metric((*labels, outcome), stats.outcomes[outcome])
        spread = stats.seconds
        buckets = zip(map(floatToGoString, spread.bounds), accumulate(spread.counts), strict=True)
        seconds.add_metric(labels, list(buckets), spread.total)
        tokens.add_metric(labels, stats.tokens)
        cost.add_metric(labels, stats.cost)
        others.add_metric(labels, stats.others)
        differences.add_metric(labels, stats.differences)
    yield from (outcomes, seconds, tokens, cost, others, differences)


def _gauges(members: list[tuple[Pool, Member]]) -> Iterator[Metric]:
    about = "Tokens of the calls that it works on."
    outstanding = GaugeMetricFamily("rerankd_upstream_outstanding_tokens", about, labels=LABELS)
    inflight = GaugeMetricFamily("rerankd_upstream_inflight", "Requests under way.", labels=LABELS)
    state = GaugeMetricFamily("rerankd_upstream_state", "1 for the present state.", labels=(*LABELS, "state"))
    for pool, member in members:
        labels, present = (pool.name, member.name), member.state(pool.clock())
        outstanding.add_metric(labels, member.outstanding)
        inflight.add_metric(labels, member.slots.used)
        for name in (*STATES, RESTING):
            state.add_metric((*labels, name), float(name == present))
    yield from (outstanding, inflight, state)


def _of_pools(pools: list[Pool]) -> Iterator[Metric]:
    about = "Attempts after a failed one. reason: of the failure."
    retries = CounterMetricFamily("rerankd_upstream_retries", about, labels=("model", "reason"))
    about = "Retries that the budget did not allow."
    empty = CounterMetricFamily("rerankd_upstream_budget_empty", about, labels=("model",))
    for pool in pools:
        for reason in KINDS:
            retries.add_metric((pool.name, reason), pool.retries[reason])
        empty.add_metric((pool.name,), pool.budget_empty)
    yield from (retries, empty)
