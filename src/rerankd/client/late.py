"""The deadline of a call that is several requests: what each is given, and what has no score where one comes too late.

Knows no API and sends nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rerankd.apis.facts import DEADLINE_HEADER
from rerankd.client.errors import RemoteError
from rerankd.types import Score


@dataclass(frozen=True, slots=True)
class Late:
    """A request of a call whose documents were not scored before its deadline.

    Attributes:
        error: what the call ends with if none of its requests was in time.
    """

    error: RemoteError


def seconds_left(deadline: float | None) -> float:
    """Until the deadline, by time.monotonic; infinity without one."""
    return float("inf") if deadline is None else deadline - time.monotonic()


def deadline_header(deadline: float | None) -> dict[str, str]:
    """What a request that is sent now says of the deadline: the time that is left."""
    if deadline is None:
        return {}
    return {DEADLINE_HEADER: str(max(1, round(1000 * seconds_left(deadline))))}


def unscored(indices: Sequence[int], texts: Sequence[str | None]) -> list[Score]:
    """The documents of a late request; `without_rises` gives them their scores."""
    return [Score(index, 1.0, None, text, scored=False) for index, text in zip(indices, texts, strict=True)]


def without_rises(scores: Sequence[Score]) -> list[Score]:
    """No document without a score of its own stands over one that has it: each request has its own lowest score.

    Args:
        scores: of all requests of a call.
    """
    lowest = min((result for result in scores if result.scored), key=lambda result: result.score, default=None)
    if lowest is None:
        return list(scores)
    return [
        result
        if result.scored or result.score < lowest.score
        else replace(result, score=lowest.score, logit=lowest.logit)
        for result in scores
    ]
