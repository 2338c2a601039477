"""The result of a comparison in one sentence: the effect first, then how sure it is."""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.evaluation.aggregates import AggregateStudy
from rerankd.evaluation.significance import FEW_QUERIES
from rerankd.evaluation.study import Evaluated, Study

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """Attributes:
    kind: "better", "worse" or "unclear".
    sentence: about the first measure.
    detail: about the certainty, and the depth where it was studied.
    """

    kind: str
    sentence: str
    detail: str


def verdict(study: Study, run: Evaluated) -> Verdict:
    """The verdict on a run that is compared with the baseline."""
    assert run.compared is not None
    measure = study.measures[0]
    found = run.compared.paired[measure]
    before, after = study.baseline.means[measure], run.means[measure]
    sure = found.p_holm < ALPHA
    kind = "unclear" if not sure else "better" if found.difference > 0 else "worse"
    verb = {"better": "improves", "worse": "lowers", "unclear": "changes"}[kind]
    sentence = (
        f"{run.name} {verb} {measure} by {signed(found.difference)} against {study.baseline.name}, "
        f"{before:.3f} → {after:.3f}: {found.wins} queries better, {found.ties} equal, {found.losses} worse."
    )
    certainty = f"95 % interval {signed(found.low)} to {signed(found.high)}, p {p_text(found.p_holm)}"
    certainty += " (randomisation, Holm)." if sure else " (randomisation, Holm): it may be chance."
    return Verdict(kind, sentence, " ".join([certainty, *_cautions(study, run)]))


def _cautions(study: Study, run: Evaluated) -> list[str]:
    said = []
    assert run.compared is not None
    if study.queries < FEW_QUERIES:
        said.append(f"With {study.queries} queries no test can be trusted.")
    if (depths := run.compared.depths) is not None and len(depths.points) > 2:
        said.append(
            f"Reranking {depths.enough} candidates is within 1 % of the best depth, chosen on half of the queries; on "
            f"the other half it reaches {depths.held_out:.3f}."
            if depths.enough
            else "Reranking nothing is within 1 % of the best depth."
        )
    return said


def passages_said(study: AggregateStudy) -> str:
    """A sentence about what a run shows of passages."""
    said = f"{study.split:,} of {study.documents:,} documents have several passages"
    if not study.relevant:
        return f"{said}; none of these is judged relevant."
    share = f"{study.later / study.relevant:.0%}".replace("%", "\u00a0%")
    return f"{said}; of {study.relevant:,} relevant ones among these, {share} have their best passage behind the first."


def signed(difference: float) -> str:
    """A difference of three decimals, always with its sign."""
    return with_minus(f"{difference:+.3f}")


def with_minus(number: str) -> str:
    """The number with a minus sign in place of a hyphen."""
    return number.replace("-", "\u2212")


def p_text(p: float) -> str:
    """A p value as people write it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
