"""Computes the shapes of a bar chart. The template draws them, and repeats the figures in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 10, 26
"""Margins, for the labels."""

GAP = 0.25
"""Space between two bars, as a share of a bar's slot."""

MAX_LABELS = 8
LINES = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar, with its label and value."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: int


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars, labels (x, text) and grid lines (y, value), in units of the view box."""

    bars: tuple[Bar, ...]
    labels: tuple[tuple[float, str], ...]
    lines: tuple[tuple[float, float], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - 6


def bars(points: Sequence[tuple[str, int]]) -> BarChart:
    """One bar for each (label, value >= 0), left to right; at least one point."""
    place = (WIDTH - LEFT - RIGHT) / len(points)
    floor_y = HEIGHT - BOTTOM
    step = _step(max(value for _, value in points))
    scale = (floor_y - TOP) / (step * LINES)
    every = ceil(len(points) / MAX_LABELS)
    drawn = tuple(
        Bar(
            round(LEFT + place * (at + GAP / 2), 2),
            round(floor_y - value * scale, 2),
            round(place * (1 - GAP), 2),
            round(value * scale, 2),
            label,
            value,
        )
        for at, (label, value) in enumerate(points)
    )
    labels = tuple((round(bar.x + bar.width / 2, 2), bar.label) for bar in drawn[::every])
    lines = tuple((round(floor_y - step * number * scale, 2), step * number) for number in range(LINES + 1))
    return BarChart(drawn, labels, lines)


def _step(largest: int) -> float:
    """The distance between grid lines, 1, 2, 2.5 or 5 times a power of ten: the largest value fits below the last."""
    raw = max(largest, LINES) / LINES
    power = 10.0 ** floor(log10(raw))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
