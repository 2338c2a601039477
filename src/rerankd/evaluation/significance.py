"""Is a difference between two runs more than chance? Tests that pair the queries.

The t-test and the randomisation test keep their error rate from small to large numbers of queries, Wilcoxon's and the
sign test do not (Urbano, Lima, Hanjalic 2019, arXiv:1905.11096; Ihemelandu, Ekstrand 2023, arXiv:2305.02461).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DRAWS = 10_000
SEED = 20_240_801
DRAWS_AT_ONCE = 1_000
FEW_QUERIES = 25
"""With fewer, no test can be trusted."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Paired:
    """One run against the baseline, over the same queries.

    Attributes:
        difference: mean of the run's value less the baseline's.
        low, high: the 95 % interval of this mean, by bootstrap over queries.
        p_t: two-sided p of the paired t-test; 1 where all differences are equal to 0.
        p_randomisation: two-sided p of the sign-flip test.
        p_holm: p_randomisation after Holm's correction for all comparisons with the baseline.
        wins, ties, losses: queries.
    """

    difference: float
    low: float
    high: float
    p_t: float
    p_randomisation: float
    p_holm: float
    wins: int
    ties: int
    losses: int


def paired(baseline: Mapping[str, float], other: Mapping[str, float]) -> Paired:
    """Compares the values of the queries that both have; p_holm is p_randomisation until `corrected`.

    Raises:
        ValueError: they have no query in common.
    """
    shared = sorted(baseline.keys() & other.keys())
    if not shared:
        raise ValueError("no query in common")
    differences = np.array([other[qid] - baseline[qid] for qid in shared])
    low, high = interval(differences)
    p = _randomisation(differences)
    return Paired(
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_t=_t_test(differences),
        p_randomisation=p,
        p_holm=p,
        wins=int(np.sum(differences > 0)),
        ties=int(np.sum(differences == 0)),
        losses=int(np.sum(differences < 0)),
    )


def interval(values: Values) -> tuple[float, float]:
    """The 95 % interval of the mean, by percentile bootstrap."""
    random = np.random.default_rng(SEED)
    means = [
        values[random.integers(0, len(values), (DRAWS_AT_ONCE, len(values)))].mean(axis=1)
        for _ in range(DRAWS // DRAWS_AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def _t_test(differences: Values) -> float:
    from scipy import special  # takes a quarter of a second to import

    error = float(differences.std(ddof=1)) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
    if error < 1e-12:
        return 0.0 if len(differences) > 1 and differences.any() else 1.0
    return float(2 * special.stdtr(len(differences) - 1, -abs(differences.mean()) / error))


def _randomisation(differences: Values) -> float:
    """The share of random signs that give at least this mean difference; the given signs are one of the draws."""
    random = np.random.default_rng(SEED)
    total, size = float(differences.sum()), len(differences)
    reached, least = 1, abs(total) - 1e-12
    for _ in range(DRAWS // DRAWS_AT_ONCE):
        drawn = random.integers(0, 256, (DRAWS_AT_ONCE, (size + 7) // 8), dtype=np.uint8)
        positive = np.unpackbits(drawn, axis=1, count=size) @ differences
        reached += int(np.sum(np.abs(2 * positive - total) >= least))
    return reached / (DRAWS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979, A simple sequentially rejective multiple test procedure)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = largest
    return corrected
