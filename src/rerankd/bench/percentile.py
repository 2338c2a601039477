"""Percentiles of measured times."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least this share, in (0, 1], of all values do not exceed.

    Args:
        values: at least one.
    """
    return sorted(values)[math.ceil(share * len(values)) - 1]
