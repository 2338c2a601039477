"""Charts as points in pixels, which the report draws as SVG. Knows numbers, no run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
"""Pixels around the plot, for labels."""

EFFECT_LEFT, ROW = 190, 34
"""Pixels for the names of runs, and of the height of a run."""

MOST_TICKS = 8
"""Labels of an x axis that stay legible."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in pixels."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with the text that a reader sees who points at it."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the chart.

    Attributes:
        color: a number of the page's palette.
        path, band: points of an SVG polyline and polygon; the band is empty where there is none.
    """

    label: str
    color: int
    path: str
    band: str
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar in pixels; `kind` is "gain" or "loss"."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of lines or bars."""

    title: str
    caption: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference with its interval, on a line of its own: pixels, and "gain", "loss" or "unclear"."""

    label: str
    y: float
    low: float
    at: float
    high: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Effects:
    """Differences from a baseline, which stands at `zero`."""

    zero: float
    ticks: Sequence[Tick]
    rows: Sequence[Effect]
    height: int
    width: int = WIDTH


@dataclass(frozen=True, slots=True)
class Series:
    """Values over the chart's x values; `low` and `high` are empty or bounds of each.

    Attributes:
        values: None where there is none: the line goes on to the next.
        color: a number of the page's palette.
    """

    label: str
    color: int
    values: Sequence[float | None]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Curve:
    """Named points (x, y, name) in the order in which a line joins them. color: as of `Series`."""

    label: str
    color: int
    points: Sequence[tuple[float, float, str]]


class _Axis:
    """Numbers → pixels from `start` to `end`."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._span = low, (high - low) or 1.0
        self._start, self._length = start, end - start

    def __call__(self, value: float) -> float:
        return round(self._start + (value - self._low) / self._span * self._length, 1)


def line_chart(
    title: str, caption: str, labels: tuple[str, str], x_names: Sequence[str], series: Sequence[Series]
) -> Chart:
    """Series over named places at equal distances.

    Args:
        labels: of the x and the y axis.
    """
    parts = [part for one in series for part in (one.values, one.low, one.high)]
    numbers = [number for part in parts for number in part if number is not None]
    steps = nice_steps(min(numbers), max(numbers))
    every = -(-len(x_names) // MOST_TICKS)
    x = _Axis(0, max(1, len(x_names) - 1), LEFT, WIDTH - RIGHT)
    y = _Axis(steps[0], steps[-1], HEIGHT - BOTTOM, TOP)
    return Chart(
        title,
        caption,
        *labels,
        x_ticks=[Tick(x(place), name) for place, name in enumerate(x_names) if place % every == 0],
        y_ticks=[Tick(y(step), _number(step)) for step in steps],
        lines=[_line(one, x_names, x, y) for one in series],
    )


def _line(series: Series, x_names: Sequence[str], x: _Axis, y: _Axis) -> Line:
    def path(values: Sequence[float | None]) -> list[str]:
        return [f"{x(place)},{y(value)}" for place, value in enumerate(values) if value is not None]

    marks = [
        Mark(x(place), y(value), f"{series.label}, {name}: {value:.4f}")
        for place, (name, value) in enumerate(zip(x_names, series.values, strict=True))
        if value is not None
    ]
    band = " ".join([*path(series.high), *path(series.low)[::-1]])
    return Line(series.label, series.color, " ".join(path(series.values)), band, marks)


def xy_chart(title: str, caption: str, labels: tuple[str, str], curves: Sequence[Curve]) -> Chart:
    """Curves over numbers, the least of which is 0 or more.

    Args:
        labels: of the x and the y axis.
    """
    points = [point for one in curves for point in one.points]
    x_steps = nice_steps(0.0, max(x for x, _, _ in points))
    y_steps = nice_steps(min(y for _, y, _ in points), max(y for _, y, _ in points))
    x = _Axis(0, x_steps[-1], LEFT, WIDTH - RIGHT)
    y = _Axis(y_steps[0], y_steps[-1], HEIGHT - BOTTOM, TOP)
    lines = []
    for one in curves:
        marks = [Mark(x(at), y(value), f"{one.label}, {name}: {value:.4f}") for at, value, name in one.points]
        lines.append(Line(one.label, one.color, " ".join(f"{mark.x},{mark.y}" for mark in marks), "", marks))
    return Chart(
        title,
        caption,
        *labels,
        x_ticks=[Tick(x(step), _number(step)) for step in x_steps],
        y_ticks=[Tick(y(step), _number(step)) for step in y_steps],
        lines=lines,
    )


def effects(found: Sequence[tuple[str, float, float, float, bool]]) -> Effects:
    """A row for each (label, low, difference, high, whether it is sure)."""
    steps = nice_steps(min(0.0, *(low for _, low, _, _, _ in found)), max(0.0, *(high for _, _, _, high, _ in found)))
    x = _Axis(steps[0], steps[-1], EFFECT_LEFT, WIDTH - RIGHT - 8)
    rows = [
        Effect(
            label,
            TOP + ROW * (place + 0.5),
            x(low),
            x(at),
            x(high),
            "unclear" if not is_sure else "gain" if at > 0 else "loss",
            f"{label}: {at:+.4f}, {low:+.4f} to {high:+.4f}",
        )
        for place, (label, low, at, high, is_sure) in enumerate(found)
    ]
    ticks = [Tick(x(step), _number(step, "+") if step else "0") for step in steps]
    return Effects(x(0), ticks, rows, TOP + ROW * len(rows) + 28)


def bar_chart(title: str, caption: str, labels: tuple[str, str], values: Sequence[float]) -> Chart:
    """Bars from zero, side by side, in the given order."""
    steps = nice_steps(min(0.0, *values), max(0.0, *values))
    x = _Axis(0, len(values), LEFT, WIDTH - RIGHT)
    y = _Axis(steps[0], steps[-1], HEIGHT - BOTTOM, TOP)
    width = max(0.5, (WIDTH - LEFT - RIGHT) / len(values) * 0.9)
    bars = [
        Bar(x(place), min(y(value), y(0)), round(width, 2), abs(y(value) - y(0)), "gain" if value > 0 else "loss")
        for place, value in enumerate(values)
        if value
    ]
    ends = sorted({1, (len(values) + 1) // 2, len(values)})
    return Chart(
        title,
        caption,
        *labels,
        x_ticks=[Tick(x(place - 0.5), str(place)) for place in ends],
        y_ticks=[Tick(y(step), _number(step)) for step in steps],
        bars=bars,
    )


def _number(value: float, sign: str = "") -> str:
    """A number on an axis, with a minus sign in place of a hyphen."""
    return f"{value:{sign}.10g}".replace("-", "\u2212")


def nice_steps(low: float, high: float) -> list[float]:
    """Four to ten round numbers that include both ends."""
    if high - low < 1e-9:
        low, high = low - 0.01, high + 0.01
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]
