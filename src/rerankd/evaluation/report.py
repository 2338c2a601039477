"""Writes a study as one HTML page: no script, no network, for light and dark and for paper."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from itertools import pairwise
from types import MappingProxyType

from jinja2 import Environment, StrictUndefined

from rerankd.evaluation.changes import Move
from rerankd.evaluation.charts import Chart, Curve, Effects, Series, bar_chart, effects, line_chart, xy_chart
from rerankd.evaluation.scores import BINS, Scores
from rerankd.evaluation.study import Compared, Study
from rerankd.evaluation.verdict import ALPHA, p_text, passages_said, verdict, with_minus
from rerankd.version import __version__

TEMPLATE = "report.html"

EXCERPT_CHARS = 220
"""Of a document in the table of examples."""

NO_TEXTS: Mapping[str, str] = MappingProxyType({})

COLORS = range(5)
GREY, GOOD, BAD = 5, 6, 7
"""Numbers of the template's palette."""


def report(study: Study, documents: Mapping[str, str] = NO_TEXTS) -> str:
    """The page.

    Args:
        documents: the texts of those that moved, by id, as far as they are known.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["p"] = p_text
    environment.filters["minus"] = with_minus
    environment.filters["excerpt"] = partial(_excerpt, documents)
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(
        study=study,
        verdicts=[(one, verdict(study, one)) for one in study.runs[1:]],
        effects=_effects(study),
        best={name: max(one.means[name] for one in study.runs) for name in study.measures},
        charts=[
            chart for chart in (_depths(study), _time(study), _fusion(study), _reliability(study)) if chart is not None
        ],
        details=[
            (one, _differences(study, one.compared), _histogram(one.name, one.scores))
            for one in study.runs
            if one.compared is not None
        ],
        prompts=_prompts(study),
        passages_said=passages_said,
        has_texts=bool(documents),
        alpha=ALPHA,
        made=datetime.now(UTC).strftime("%Y-%m-%d"),
        version=__version__,
    )


def _prompts(study: Study) -> list[tuple[str, list[str]]]:
    """Each prompt once, with the names of its runs."""
    runs: dict[str, list[str]] = {}
    for one in study.runs:
        if one.made is not None and one.made.prompt_text:
            runs.setdefault(one.made.prompt_text, []).append(one.name)
    return list(runs.items())


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


def _time(study: Study) -> Chart | None:
    """Each depth at its share of the run's tokens, and so of its seconds."""
    curves = []
    made = {one.name: one.made for one in study.runs}
    for color, name, one in _compared(study):
        if (known := made[name]) is None or one.depths is None or not known.tokens:
            continue
        points = [
            (known.seconds * point.tokens / known.tokens, point.mean, f"{point.depth} candidates")
            for point in one.depths.points
        ]
        curves.append(Curve(name, color, points))
    if not curves:
        return None
    return xy_chart(
        f"{study.measures[0]} by time",
        "Each point is a depth; its time is its share of the tokens of the whole run, on the machine that scored it, "
        "with several queries in a batch.",
        ("seconds of scoring a query", study.measures[0]),
        curves,
    )


def _reliability(study: Study) -> Chart | None:
    colors = {name: color for color, name, _ in _compared(study)}
    runs = [(one.name, one.scores) for one in study.runs if one.scores]
    if not runs:
        return None
    tenths = [f"{place / BINS:g}–{(place + 1) / BINS:g}" for place in range(BINS)]
    errors = ", ".join(f"{name} {scores.ece:.3f}" for name, scores in runs)
    return line_chart(
        "Scores as probabilities",
        "Pairs by the model's probability of “yes”, in tenths, and which share of them is relevant. Where the lines "
        "meet, the score is a probability; elsewhere calibrate before you set a threshold. Expected calibration error: "
        f"{errors}.",
        ("probability of “yes”", "relevant share"),
        tenths,
        [
            Series("a probability", GREY, [(place + 0.5) / BINS for place in range(BINS)]),
            *(
                Series(name, colors.get(name, GREY), [bin.relevant if bin.count else None for bin in scores.bins])
                for name, scores in runs
            ),
        ],
    )


def _histogram(name: str, scores: Scores | None) -> Chart | None:
    if scores is None or scores.histogram is None:
        return None
    shown = scores.histogram
    middles = [f"{(low + high) / 2:.1f}".replace("-", "\u2212") for low, high in pairwise(shown.edges)]
    return line_chart(
        f"Logits of {name}",
        "The share of relevant and of irrelevant pairs at each logit: the less they overlap, the better a threshold "
        "parts them.",
        ("logit", "share of pairs"),
        middles,
        [
            Series(label, color, values, [0.0] * len(values), values)
            for label, color, values in (("relevant", GOOD, shown.relevant), ("irrelevant", BAD, shown.irrelevant))
        ],
    )


def _differences(study: Study, compared: Compared) -> Chart | None:
    values = [value for value in compared.sorted_differences if value]
    if not values:
        return None
    same = len(compared.sorted_differences) - len(values)
    return bar_chart(
        f"{study.measures[0]} by query, against {study.baseline.name}",
        f"One bar a query, the largest gain first; {same:,} queries without a difference are left out.",
        ("query", "difference"),
        values,
    )


def _effects(study: Study) -> Effects | None:
    measure = study.measures[0]
    found = [(one.name, one.compared.paired[measure]) for one in study.runs if one.compared is not None]
    return effects([(name, p.low, p.difference, p.high, p.p_holm < ALPHA) for name, p in found]) if found else None


def _excerpt(documents: Mapping[str, str], move: Move) -> str:
    """The beginning of a document, or of its best passage where the run says which one that is."""
    text = documents.get(move.doc_id, "")
    start, end = move.best or (0, len(text))
    shown = " ".join(text[start : min(end, start + 2 * EXCERPT_CHARS)].split())
    cut = shown if len(shown) <= EXCERPT_CHARS else shown[:EXCERPT_CHARS].rsplit(" ", 1)[0]
    return f"{'… ' if start else ''}{cut}{' …' if len(cut) < len(shown) or end < len(text) else ''}"
