"""Computes the shapes of bar charts. The templates draw them, and repeat the figures in a table.

Places are percentages of the plot, so that a chart has the width of its column, and its letters keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

GAP = 0.25
"""Space between two bars, as a share of a bar's slot."""

MAX_LABELS = 4
LINES = 4


@dataclass(frozen=True, slots=True)
class Point:
    """The values of one day.

    Attributes:
        label: of the day.
        values: >= 0; drawn one above the other.
        tick: >= 0; drawn as a line over the bars; None: no line.
        text: the values for people, with their unit.
    """

    label: str
    values: tuple[int, ...]
    text: str
    tick: int | None = None


@dataclass(frozen=True, slots=True)
class Bar:
    """One rectangle. kind: the position of its value in the point."""

    y: float
    height: float
    kind: int


@dataclass(frozen=True, slots=True)
class Column:
    """The bars of one point, one above the other. middle, x, width: of the bars. tick: the y of its line."""

    middle: float
    x: float
    width: float
    bars: tuple[Bar, ...]
    label: str
    text: str
    tick: float | None


@dataclass(frozen=True, slots=True)
class BarChart:
    """Columns from left to right, labels below them (x, anchor, text), and grid lines (y, value)."""

    columns: tuple[Column, ...]
    labels: tuple[tuple[float, str, str], ...]
    lines: tuple[tuple[float, float], ...]


def bar_chart(points: Sequence[Point]) -> BarChart:
    """One column for each point, at least one."""
    slot = 100 / len(points)
    step = _step(max(max(sum(point.values), point.tick or 0) for point in points))
    scale = 100 / (step * LINES)
    columns = tuple(_column(point, at * slot, slot, scale) for at, point in enumerate(points))
    every = ceil(len(points) / MAX_LABELS)
    # The last one is today.
    labels = tuple(_label(column) for column in columns[::-1][::every][::-1])
    lines = tuple((round(100 - step * number * scale, 2), step * number) for number in range(LINES + 1))
    return BarChart(columns, labels, lines)


def _column(point: Point, slot_x: float, slot: float, scale: float) -> Column:
    bars: list[Bar] = []
    top = 100.0
    for kind, value in enumerate(point.values):
        height = value * scale
        top -= height
        if value:
            bars.append(Bar(round(top, 2), round(height, 2), kind))
    x, width = round(slot_x + slot * GAP / 2, 3), round(slot * (1 - GAP), 3)
    tick = None if point.tick is None else round(100 - point.tick * scale, 2)
    return Column(round(slot_x + slot / 2, 3), x, width, tuple(bars), point.label, point.text, tick)


def _label(column: Column) -> tuple[float, str, str]:
    """Labels at the sides stay within the plot."""
    if column.middle > 94:
        return 100, "end", column.label
    return (0, "start", column.label) if column.middle < 6 else (column.middle, "middle", column.label)


def _step(largest: int) -> float:
    """The distance between grid lines, 1, 2, 2.5 or 5 times a power of ten, and whole: the largest value fits below
    the last."""
    raw = max(largest, LINES) / LINES
    power = 10.0 ** floor(log10(raw))
    steps = (power * factor for factor in (1, 2, 2.5, 5, 10))
    return next(step for step in steps if step >= raw and step.is_integer())
