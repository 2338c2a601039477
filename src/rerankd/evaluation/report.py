"""Writes a study as one HTML page: no script, no network, for light and dark and for paper."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources

from jinja2 import Environment, StrictUndefined

from rerankd.evaluation.charts import Chart, Series, bar_chart, line_chart
from rerankd.evaluation.study import Compared, Study
from rerankd.evaluation.verdict import p_text, verdict
from rerankd.version import __version__

TEMPLATE = "report.html"

COLORS = range(5)
GREY = 5
"""Numbers of the template's palette."""


def report(study: Study) -> str:
    """The page, in UTF-8."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["p"] = p_text
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(
        study=study,
        verdicts=[verdict(study, one) for one in study.runs[1:]],
        charts=[chart for chart in (_depths(study), _fusion(study), _reliability(study)) if chart is not None],
        differences=[(one, _differences(study, one.compared)) for one in study.runs if one.compared is not None],
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
        version=__version__,
    )


def _compared(study: Study) -> list[tuple[int, str, Compared]]:
    """The runs beside the baseline: the number of their colour in every chart, their name, what was compared."""
    beside = [(one.name, one.compared) for one in study.runs if one.compared is not None]
    return [(place % len(COLORS), name, compared) for place, (name, compared) in enumerate(beside)]


def _depths(study: Study) -> Chart | None:
    studies = [(color, name, one.depths) for color, name, one in _compared(study) if one.depths is not None]
    if not studies:
        return None
    return line_chart(
        f"{study.measures[0]} by depth",
        f"The first candidates of {study.baseline.name} are reranked, as many as the axis says; the others keep their "
        "order. Bands: 95 % of the mean, by bootstrap over queries.",
        ("candidates reranked", study.measures[0]),
        [str(point.depth) for point in studies[0][2].points],
        [
            Series(name, color, [p.mean for p in one.points], [p.low for p in one.points], [p.high for p in one.points])
            for color, name, one in studies
        ],
    )


def _fusion(study: Study) -> Chart | None:
    studies = [(color, name, one.fusion) for color, name, one in _compared(study) if one.fusion]
    if not studies:
        return None
    return line_chart(
        "Mixed with the first stage",
        f"α · score + (1 − α) · score of {study.baseline.name}, both standardised within a query. At 1 the reranker "
        "decides alone. Choose α on other queries than those you report.",
        ("α", study.measures[0]),
        [f"{point.alpha:g}" for point in studies[0][2]],
        [Series(name, color, [point.mean for point in points]) for color, name, points in studies],
    )


def _reliability(study: Study) -> Chart | None:
    colors = {name: color for color, name, _ in _compared(study)}
    runs = [one for one in study.runs if one.bins]
    if not runs:
        return None
    tenths = [f"{place / 10:g}–{(place + 1) / 10:g}" for place in range(len(runs[0].bins))]
    return line_chart(
        "Scores as probabilities",
        "Judged pairs by the model's probability of “yes”, in tenths, and which share of them is relevant. Where the "
        "lines meet, the score is a probability; elsewhere calibrate before you set a threshold.",
        ("probability of “yes”", "relevant share"),
        tenths,
        [
            Series("a probability", GREY, [(place + 0.5) / len(tenths) for place in range(len(tenths))]),
            *(
                Series(one.name, colors.get(one.name, GREY), [bin.relevant if bin.count else None for bin in one.bins])
                for one in runs
            ),
        ],
    )


def _differences(study: Study, compared: Compared) -> Chart:
    values: Sequence[float] = compared.sorted_differences
    return bar_chart(
        f"{study.measures[0]} by query, against {study.baseline.name}",
        "One bar a query, the largest gain first.",
        ("query", "difference"),
        values,
    )
