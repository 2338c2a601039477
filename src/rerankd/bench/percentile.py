"""Percentiles of measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value v such that at least `share`, in (0, 1], of the values are <= v.

    Args:
        values: at least one.
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]
