"""How good the probabilities of a calibration are: figures on held-out queries, and a table of thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rerankd.calibration.fit import Array, Judged, held_out, maker
from rerankd.calibration.profile import Curve

BINS = 10
THRESHOLDS = tuple(step / 10 for step in range(1, 10))
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Figures:
    """Measures of probabilities against judgements. Each but `auc` is better when it is lower.

    Attributes:
        ece: the expected calibration error over `BINS` bins of equal mass.
    """

    brier: float
    log_loss: float
    ece: float


@dataclass(frozen=True, slots=True)
class Share:
    """hits of total, with its interval of Clopper and Pearson at 95 %."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return clopper_pearson(self.hits, self.total)


@dataclass(frozen=True, slots=True)
class Row:
    """The results that `min_score` = threshold keeps."""

    threshold: float
    precision: Share
    recall: Share
    kept: Share


@dataclass(frozen=True, slots=True)
class Report:
    """before: of sigmoid(logit); after: of the curve, each query by the curve of the others. bins: (mean probability,
    share of relevant, number) of the reliability diagram, after."""

    labels: int
    queries: int
    relevant: int
    auc: float
    before: Figures
    after: Figures
    bins: tuple[tuple[float, float, int], ...]
    table: tuple[Row, ...]


def report(queries: Sequence[Judged], curve: Curve) -> Report:
    """Judges a kind of curve on held-out queries."""
    logits = np.array([logit for query in queries for logit in query.logits])
    labels = np.array([float(one) for query in queries for one in query.relevant])
    p = held_out(queries, maker(curve.kind))
    rows = tuple(_row(threshold, p, labels) for threshold in THRESHOLDS)
    before = np.exp(-np.logaddexp(0, -logits))
    relevant = int(labels.sum())
    return Report(
        len(labels), len(queries), relevant, auc(logits, labels), figures(before, labels), figures(p, labels),
        tuple(_bins(p, labels)), rows,
    )  # fmt: skip


def figures(p: Array, labels: Array) -> Figures:
    """The measures of some probabilities."""
    bounded = p.clip(1e-12, 1 - 1e-12)
    log_loss = -(labels * np.log(bounded) + (1 - labels) * np.log(1 - bounded)).mean()
    ece = sum(number * abs(mean - share) for mean, share, number in _bins(p, labels)) / len(labels)
    return Figures(float(((p - labels) ** 2).mean()), float(log_loss), float(ece))


def auc(logits: Array, labels: Array) -> float:
    """The probability that a relevant candidate has a higher logit than an irrelevant one; ties count half."""
    positive, negative = np.sort(logits[labels > 0]), np.sort(logits[labels == 0])
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.sum() / 2 / max(1, len(positive) * len(negative)))


def clopper_pearson(hits: int, total: int) -> tuple[float, float]:
    """The exact interval of a share at 95 %."""
    if not total:
        return 0.0, 1.0
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else _solve(lambda p: 1 - _at_most(hits - 1, total, p), tail)
    high = 1.0 if hits == total else _solve(lambda p: 1 - _at_most(hits, total, p), 1 - tail)
    return low, high


def _solve(rising: Callable[[float], float], target: float) -> float:
    """Where a rising function of a probability reaches the target."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def _at_most(hits: int, total: int, p: float) -> float:
    """P(X <= hits) of a binomial."""
    if p in (0.0, 1.0):
        return 1.0 if p == 0.0 or hits >= total else 0.0
    k = np.arange(hits + 1)
    log_choose = math.lgamma(total + 1) - np.array([math.lgamma(i + 1) + math.lgamma(total - i + 1) for i in k])
    return float(np.exp(log_choose + k * math.log(p) + (total - k) * math.log1p(-p)).sum())


def _row(threshold: float, p: Array, labels: Array) -> Row:
    kept = p >= threshold
    hits = int(labels[kept].sum())
    return Row(
        threshold,
        Share(hits, int(kept.sum())),
        Share(hits, int(labels.sum())),
        Share(int(kept.sum()), len(labels)),
    )


def _bins(p: Array, labels: Array) -> list[tuple[float, float, int]]:
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return [(float(p[part].mean()), float(labels[part].mean()), len(part)) for part in parts]
