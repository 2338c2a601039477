"""Curves and thresholds against scikit-learn and simulations."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score  # type: ignore[import-untyped]

from rerankd.calibration.fit import Judged, fit_curve, isotonic, keep_threshold, nothing_threshold, platt, temperature
from rerankd.calibration.report import auc, clopper_pearson, figures, report
from rerankd.errors import InvalidRequest

Array = npt.NDArray[np.float64]


def sample(size: int, slope: float, offset: float, seed: int) -> tuple[Array, Array]:
    """Logits, and judgements that are right with probability sigmoid(slope · logit + offset)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, size)
    return logits, (rng.random(size) < 1 / (1 + np.exp(-(slope * logits + offset)))).astype(float)


def queries_of(logits: Array, labels: Array, each: int = 10) -> list[Judged]:
    """The candidates, `each` of a query."""
    return [
        Judged(logits[start : start + each].tolist(), [bool(one) for one in labels[start : start + each]])
        for start in range(0, len(logits), each)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_platt_is_scikit_learns_with_smoothed_targets(seed: int) -> None:
    logits, labels = sample(400, 0.6, -1.2, seed)
    ours = platt(logits, labels)
    hits = labels.sum()
    targets = np.where(labels > 0, (hits + 1) / (hits + 2), 1 / (len(labels) - hits + 2))
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000, solver="newton-cholesky")
    doubled = np.concatenate([logits, logits])[:, None]
    kinds = np.concatenate([np.ones(len(logits)), np.zeros(len(logits))])
    oracle.fit(doubled, kinds, sample_weight=np.concatenate([targets, 1 - targets]))
    theirs = oracle.predict_proba(logits[:, None])[:, 1]
    assert np.abs([ours.probability(logit) for logit in logits] - theirs).max() < 1e-6


def test_known_parameters_are_recovered() -> None:
    """Within 2 standard errors in about 95 of 100 samples, each of the two."""
    inside = np.zeros(2)
    for seed in range(100):
        logits, labels = sample(1000, 0.6, -1.2, seed)
        curve = platt(logits, labels)
        p = 1 / (1 + np.exp(-(0.6 * logits - 1.2)))
        design = np.stack([logits, np.ones_like(logits)])
        errors = np.sqrt(np.diag(np.linalg.inv((design * (p * (1 - p))) @ design.T)))
        inside += np.abs([curve.slope - 0.6, curve.offset + 1.2]) <= 2 * errors
    assert (inside >= 88).all()


def test_isotonic_is_scikit_learns_at_the_means_of_its_blocks() -> None:
    logits, labels = sample(300, 0.8, 0, 1)
    curve = isotonic(logits, labels)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(logits, labels)
    ours = {round(p, 9) for p in curve.probabilities}
    assert ours == {round(p, 9) for p in theirs.predict(logits)}
    assert list(curve.probabilities) == sorted(curve.probabilities)


def test_few_labels_fit_a_slope_alone_and_many_may_fit_steps() -> None:
    logits, labels = sample(25, 1, 0, 3)
    assert fit_curve(queries_of(logits, labels, 5)).kind == "temperature"
    logits, labels = sample(600, 1, 0, 3)
    assert fit_curve(queries_of(logits, labels)).kind == "platt"
    rng = np.random.default_rng(0)
    logits = rng.uniform(-3, 3, 4000)
    labels = (rng.random(4000) < np.where(logits > 0, 0.5, 0.02)).astype(float)  # no sigmoid ends at 0.5
    assert fit_curve(queries_of(logits, labels)).kind == "isotonic"


@pytest.mark.parametrize("fit", [platt, temperature])
def test_constant_or_inverted_scores_are_refused(fit: object) -> None:
    labels = np.array([0.0, 1.0] * 20)
    with pytest.raises(InvalidRequest, match="do not separate"):
        fit(np.zeros(40), labels)  # type: ignore[operator]
    with pytest.raises(InvalidRequest, match="do not separate"):
        fit(np.where(labels > 0, -1.0, 1.0) + np.linspace(0, 0.1, 40), labels)  # type: ignore[operator]


def test_judgements_of_one_kind_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="same judgement"):
        fit_curve([Judged([1.0, 2.0], [True, True])])


def test_the_figures_are_scikit_learns() -> None:
    logits, labels = sample(500, 0.7, -0.5, 2)
    p = 1 / (1 + np.exp(-logits))
    ours = figures(p, labels)
    assert ours.brier == pytest.approx(brier_score_loss(labels, p), abs=1e-9)
    assert ours.log_loss == pytest.approx(log_loss(labels, p), abs=1e-9)
    assert auc(logits, labels) == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)


@pytest.mark.parametrize(("hits", "total"), [(0, 20), (3, 20), (20, 20), (450, 1000), (1, 3)])
def test_the_intervals_are_scipys(hits: int, total: int) -> None:
    exact = binomtest(hits, total).proportion_ci(0.95, "exact")
    assert clopper_pearson(hits, total) == pytest.approx((exact.low, exact.high), abs=1e-6)


def test_a_calibration_lowers_the_error_on_held_out_queries() -> None:
    logits, labels = sample(1500, 0.5, -1.5, 4)
    queries = queries_of(logits, labels)
    outcome = report(queries, fit_curve(queries))
    assert outcome.after.ece < outcome.before.ece / 3
    assert outcome.after.log_loss < outcome.before.log_loss
    assert sum(number for _, _, number in outcome.bins) == 1500


# Thresholds with a guarantee


def simulated(rng: np.random.Generator, count: int, *, relevant: bool) -> list[Judged]:
    """Queries with 20 candidates, one of them relevant or none."""
    logits = rng.normal(0, 2, (count, 20))
    logits[:, 0] += 3 * relevant
    return [Judged(row.tolist(), [relevant, *[False] * 19]) for row in logits]


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_guarantees_hold_over_1000_splits(alpha: float) -> None:
    rng = np.random.default_rng(5)
    lost, alarms, splits = 0.0, 0.0, 1000
    for _ in range(splits):
        keep = keep_threshold(simulated(rng, 40, relevant=True), alpha)
        nothing = nothing_threshold(simulated(rng, 40, relevant=False), alpha)
        assert keep is not None and nothing is not None
        lost += float(np.mean([one.logits[0] < keep.logit for one in simulated(rng, 20, relevant=True)]))
        alarms += float(np.mean([max(one.logits) > nothing.logit for one in simulated(rng, 20, relevant=False)]))
    assert lost / splits <= alpha + 0.01 and alarms / splits <= alpha + 0.01
    assert lost / splits > alpha / 3 and alarms / splits > alpha / 3, "a threshold that cuts nothing would hold, too"


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 19), (0.01, 99), (0.2, 4), (1 - 0.9, 9), (1 - 0.7, 3)])
def test_too_few_queries_give_no_threshold(alpha: float, needed: int) -> None:
    rng = np.random.default_rng(6)
    for count in (needed - 1, needed):
        found = (
            keep_threshold(simulated(rng, count, relevant=True), alpha),
            nothing_threshold(simulated(rng, count, relevant=False), alpha),
        )
        assert [one is not None for one in found] == [count == needed] * 2
    assert math.isclose(math.ceil(1 / alpha - 1 - 1e-9), needed)
