"""Fits a curve and thresholds to logits with judgements. Knows no model and no text.

Platt, J. (1999), with the smoothed targets; Newton's method as in Lin, Lin and Weng (2007). Split-conformal thresholds:
https://arxiv.org/abs/2511.17908 uses them to filter passages. Every split is by query.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerankd.calibration.profile import Curve, Threshold
from rerankd.errors import InvalidRequest

Array = npt.NDArray[np.float64]

MIN_LABELS, MIN_EACH = 30, 10
"""For a slope and an offset; with fewer labels only the slope is fitted."""

MIN_ISOTONIC = 1_000
FOLDS = 5
MAX_STEPS = 200
"""The most steps of Newton's method, and of an isotonic curve."""

ROUNDING = 1e-9
"""More than the error of a float such as 1 - 0.9, which would cost a query."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The candidates of one query: a logit and a judgement for each."""

    logits: Sequence[float]
    relevant: Sequence[bool]


def fit_curve(queries: Sequence[Judged]) -> Curve:
    """The curve with the lowest log loss on held-out queries, among those that the number of labels permits.

    Raises:
        InvalidRequest: there are labels of one kind only, or the scores do not separate the kinds.
    """
    logits, labels = _flat(queries)
    if not len(labels) or labels.min() == labels.max():
        raise InvalidRequest(
            "All candidates have the same judgement: a calibration needs relevant and irrelevant ones."
        )
    enough = len(labels) >= MIN_LABELS and min(labels.sum(), (1 - labels).sum()) >= MIN_EACH
    sigmoid_fit = platt if enough else temperature
    curve = sigmoid_fit(logits, labels)
    if len(labels) >= MIN_ISOTONIC and held_out_loss(queries, isotonic) < held_out_loss(queries, sigmoid_fit):
        return isotonic(logits, labels)
    return curve


def platt(logits: Array, labels: Array) -> Curve:
    """Slope and offset by maximum likelihood, with smoothed targets."""
    slope, offset = _newton(logits, labels, with_offset=True)
    return Curve("platt", slope, offset)


def temperature(logits: Array, labels: Array) -> Curve:
    """The slope alone."""
    slope, _ = _newton(logits, labels, with_offset=False)
    return Curve("temperature", slope)


def isotonic(logits: Array, labels: Array) -> Curve:
    """Pool adjacent violators; each block is a point at its mean logit."""
    order = np.argsort(logits, kind="stable")
    blocks: list[list[float]] = []  # sum of logits, sum of labels, number
    for logit, label in zip(logits[order], labels[order], strict=True):
        blocks.append([float(logit), float(label), 1.0])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    if len(blocks) < 2:
        raise InvalidRequest(NOT_SEPARATED)
    points = blocks if len(blocks) <= MAX_STEPS else blocks[:: -(-len(blocks) // MAX_STEPS)]
    return Curve(
        "isotonic",
        logits=tuple(total / number for total, _, number in points),
        probabilities=tuple(hits / number for _, hits, number in points),
    )


NOT_SEPARATED = (
    "The scores do not separate relevant from irrelevant candidates: no calibration is made. Is it the right model, "
    "prompt and instruct? `rerankd doctor` checks them."
)


def _newton(logits: Array, labels: Array, *, with_offset: bool) -> tuple[float, float]:
    hits = labels.sum()
    targets = np.where(labels > 0, (hits + 1) / (hits + 2), 1 / (len(labels) - hits + 2))
    design = np.stack([logits, np.ones_like(logits)]) if with_offset else logits[None]
    if logits.max() - logits.min() < 1e-9:
        raise InvalidRequest(NOT_SEPARATED)
    weights = np.zeros(len(design))
    loss = _log_loss(design.T @ weights, targets)
    for _ in range(MAX_STEPS):
        p = _sigmoid(design.T @ weights)
        gradient = design @ (p - targets)
        hessian = (design * (p * (1 - p))) @ design.T + 1e-12 * np.eye(len(design))
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (new := _log_loss(design.T @ (weights - size * step), targets)) > loss and size > 1e-10:
            size /= 2
        weights, loss = weights - size * step, min(new, loss)
        if np.abs(size * step).max() < 1e-12:
            break
    if weights[0] <= 0:
        raise InvalidRequest(NOT_SEPARATED)
    return float(weights[0]), float(weights[1]) if with_offset else 0.0


def _sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))


def _log_loss(x: Array, targets: Array) -> float:
    return float((np.logaddexp(0, x) - targets * x).sum())


def held_out(queries: Sequence[Judged], make: Callable[[Array, Array], Curve]) -> Array:
    """For each candidate, its probability by the curve of the other folds of queries."""
    found = []
    for fold in range(FOLDS):
        others = [query for place, query in enumerate(queries) if place % FOLDS != fold]
        logits, labels = _flat(others)
        curve = make(logits, labels)
        for place, query in enumerate(queries):
            if place % FOLDS == fold:
                found.append((place, [curve.probability(logit) for logit in query.logits]))
    return np.array([p for _, values in sorted(found) for p in values])


def held_out_loss(queries: Sequence[Judged], make: Callable[[Array, Array], Curve]) -> float:
    """The mean log loss of `held_out`."""
    _, labels = _flat(queries)
    p = held_out(queries, make).clip(1e-6, 1 - 1e-6)
    return float(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean())


def maker(kind: str) -> Callable[[Array, Array], Curve]:
    """The function that fits a kind of curve."""
    return {"platt": platt, "temperature": temperature, "isotonic": isotonic}[kind]


def _flat(queries: Sequence[Judged]) -> tuple[Array, Array]:
    logits = np.array([logit for query in queries for logit in query.logits], dtype=np.float64)
    return logits, np.array([float(one) for query in queries for one in query.relevant])


def keep_threshold(queries: Sequence[Judged], alpha: float) -> Threshold | None:
    """Loses the best relevant candidate of a further query with probability at most alpha; None: too few queries."""
    best = [
        max(logit for logit, relevant in zip(query.logits, query.relevant, strict=True) if relevant)
        for query in queries
        if any(query.relevant)
    ]
    place = math.floor(alpha * (len(best) + 1) + ROUNDING)  # the number that may be under it
    return Threshold(sorted(best)[place - 1], alpha, len(best)) if place >= 1 else None


def nothing_threshold(queries: Sequence[Judged], alpha: float) -> Threshold | None:
    """A further query without a relevant candidate has one over it with probability at most alpha; None: too few."""
    best = [max(query.logits) for query in queries if not any(query.relevant) and query.logits]
    place = math.ceil((1 - alpha) * (len(best) + 1) - ROUNDING)
    return Threshold(sorted(best)[place - 1], alpha, len(best)) if 1 <= place <= len(best) else None
