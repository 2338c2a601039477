"""How fast an engine computes, from its last batches: what a deadline is compared with. Knows no clock and no queue."""

from __future__ import annotations

from collections import deque

BATCHES = 8
"""One slow batch of a busy machine then counts little, and a small one, which is slow for its tokens, as well."""


class Speed:
    """The seconds of a unit of cost (`chunks.Step.cost`, about a token)."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, float]] = deque(maxlen=BATCHES)  # cost, seconds

    def add(self, cost: int, seconds: float) -> None:
        """A batch is done. cost: >= 1."""
        self._batches.append((cost, seconds))

    def doubt(self) -> None:
        """Forgets the slowest batch: by this speed a request could not begin, and none would ever correct it."""
        self._batches.remove(max(self._batches, key=lambda batch: batch[1] / batch[0]))

    @property
    def seconds_per_token(self) -> float:
        """0 where nothing is known."""
        cost = sum(cost for cost, _ in self._batches)
        return sum(seconds for _, seconds in self._batches) / cost if cost else 0.0
