"""The report of `rerankd calibrate`, as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rerankd.calibration.profile import Calibration, Threshold
from rerankd.calibration.report import Report, Share

FEW_QUERIES = 25


def lines(calibration: Calibration, report: Report, output: Path) -> Iterator[str]:
    """The report, one line each."""
    curve = calibration.curve
    shape = f"slope {curve.slope:.3g}, offset {curve.offset:.3g}" if not curve.logits else f"{len(curve.logits)} steps"
    yield (
        f"{output}: {report.labels:,} judged candidates of {report.queries:,} queries, "
        f"{calibration.relevant_share:.0%} relevant, at most {calibration.depth} of a query."
    )
    texts = f"passages of {calibration.passage_tokens} tokens" if calibration.passage_tokens else "whole documents"
    what = f"{calibration.model}, {calibration.prompt_id}, {calibration.dtype}"
    yield f"It holds for {what}, this instruct and {texts} only."
    if report.queries < FEW_QUERIES:
        yield f"With fewer than {FEW_QUERIES} queries, take the figures for hints."
    yield ""
    yield f"Curve: {curve.kind} ({shape}). AUC of the logits: {report.auc:.3f}."
    yield f"{'':<12}{'score':>10}{'calibrated (each query by the others)':>42}"
    for name in ("brier", "log_loss", "ece"):
        label = {"brier": "Brier", "log_loss": "log loss", "ece": "ECE"}[name]
        yield f"{label:<12}{getattr(report.before, name):>10.4f}{getattr(report.after, name):>42.4f}"
    yield ""
    yield _promise("keep", calibration.keep, calibration, "loses its best relevant document")
    yield _promise("relevant", calibration.nothing, calibration, "without a relevant document lets one pass")
    yield ""
    yield f"{'min_score':<11}{'precision':<26}{'recall':<26}{'kept':<8}"
    for row in report.table:
        yield f"{row.threshold:<11}{_share(row.precision):<26}{_share(row.recall):<26}{row.kept.value:<8.1%}"


def _promise(word: str, threshold: Threshold | None, calibration: Calibration, mistake: str) -> str:
    if threshold is None:
        return f'min_score "{word}": none, there are too few queries of its kind.'
    probability = calibration.curve.probability(threshold.logit)
    return (
        f'min_score "{word}": logit {threshold.logit:.3f}, probability {probability:.3f}. A further query like these '
        f"{mistake} with probability at most {threshold.alpha:.0%} (from {threshold.queries} queries)."
    )


def _share(share: Share) -> str:
    if not share.total:
        return "–"
    low, high = share.interval
    return f"{share.value:.1%} [{low:.1%}, {high:.1%}]"
