"""Applies a threshold and a calibration to a ranking. Standard library only; knows no API and no model.

The order never changes: a curve never falls, and a threshold removes the end of a ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rerankd.calibration.profile import Calibration
from rerankd.errors import InvalidRequest
from rerankd.types import ModelInfo, Passages, Ranking, Score

Named = Literal["keep", "relevant"]
"""Thresholds of a calibration: `keep` loses no relevant candidate but with the stated probability, `relevant` lets
nothing pass where nothing is relevant but with the stated probability."""

NAMED = ("keep", "relevant")


@dataclass(frozen=True, slots=True)
class Cut:
    """The threshold and the calibration of a call.

    Attributes:
        min_score: results under it are left out; a score in the scale of the reply, or a threshold of the calibration.
        calibration: replaces each score by the probability that the document is relevant.
    """

    min_score: float | Named | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.min_score, str):
            return
        if self.calibration is None:
            raise InvalidRequest(
                f"min_score is {self.min_score!r}, a threshold of a calibration, and none is named: send "
                "'calibration', too, or a number.",
                (("min_score", "A number is needed where no calibration is named"),),
            )
        if self.calibration.threshold(self.min_score) is None:
            raise InvalidRequest(
                f"The calibration {self.calibration.name} has no threshold {self.min_score!r}: it was made from too "
                "few queries of that kind. Send a number.",
                (
                    (
                        "min_score",
                        "The calibration has no such threshold: it was made from too few queries of that kind",
                    ),
                ),
            )

    def of(self, ranking: Ranking, info: ModelInfo | None, instruct: str, passages: Passages | None = None) -> Ranking:
        """The ranking with calibrated scores, without the results under the threshold.

        A calibration that was made for another model, prompt or instruct is not applied, nor is its threshold; a
        warning says so.

        Args:
            info: the model that scored; None if another server did.
            passages: how the call had its documents split.
        """
        calibration, warnings = self.calibration, list(ranking.warnings)
        if calibration is not None:
            misfit = calibration.misfit(info, instruct) if info and _has_logits(ranking) else "another server scored"
            misfit = "two models scored" if any(score.stage for score in ranking.scores) else misfit
            if misfit:
                warnings.append(f"calibration {calibration.name} not applied, nor min_score: {misfit}")
                return replace(ranking, warnings=tuple(warnings))
            warnings += _doubts(calibration, info, ranking.scores, passages)
            ranking = _calibrated(ranking, calibration)
        kept, total = self._kept(ranking), len(ranking.ranked)
        unscored = sum(not one.scored for one in ranking.ranked) if self.min_score is not None else 0
        left_out = total - len(kept) - unscored
        if left_out:
            warnings.append(f"{left_out} of {total} results left out: under min_score {self.min_score}")
        if unscored:
            warnings.append(f"{unscored} of {total} results left out: they have no score to compare with min_score")
        nothing = bool(total) and not unscored and (not kept or _nothing(ranking, calibration))
        return replace(ranking, ranked=kept, warnings=tuple(warnings), left_out=left_out, nothing_relevant=nothing)

    def _kept(self, ranking: Ranking) -> tuple[Score, ...]:
        """The results that pass; one that a deadline left has no score of its own, and passes no threshold."""
        if self.min_score is None:
            return ranking.ranked
        scored = [one for one in ranking.ranked if one.scored]
        if not isinstance(self.min_score, str):
            return tuple(one for one in scored if one.score >= self.min_score)
        threshold = self.calibration.threshold(self.min_score) if self.calibration else None
        assert threshold is not None, "This is a bug: a named threshold was not looked for."
        at_least = self.min_score == "keep"
        return tuple(
            one for one in scored if one.raw_score > threshold.logit or (at_least and one.raw_score == threshold.logit)
        )


def find(calibrations: Mapping[str, Calibration], name: str | None) -> Calibration | None:
    """The calibration with a name.

    Raises:
        InvalidRequest: there is none.
    """
    if name is None or name in calibrations:
        return None if name is None else calibrations[name]
    known = f"known are {', '.join(sorted(calibrations))}" if calibrations else "this server has none"
    raise InvalidRequest(
        f"There is no calibration {name[:100]!r}: {known}.", (("calibration", f"Unknown calibration: {known}"),)
    )


def min_score_of(value: Any) -> float | Named | None:
    """A threshold from a caller's value.

    Raises:
        InvalidRequest: it is neither a finite number nor the name of a threshold.
    """
    if value is None or (isinstance(value, str) and value in NAMED):
        return value  # type: ignore[return-value]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or number != number or abs(number) == float("inf"):
        raise InvalidRequest("min_score must be a number, 'keep' or 'relevant'.", (("min_score", "Not a number"),))
    return number


def _has_logits(ranking: Ranking) -> bool:
    return all(score.logit is not None for score in ranking.scores)


def _calibrated(ranking: Ranking, calibration: Calibration) -> Ranking:
    probability = calibration.curve.probability

    def with_probability(one: Score) -> Score:
        passages = tuple(
            each if each.logit is None else replace(each, score=probability(each.logit)) for each in one.passages
        )
        return replace(one, score=probability(one.raw_score), passages=passages)

    def calibrated(scores: Sequence[Score]) -> tuple[Score, ...]:
        return tuple(map(with_probability, scores))

    return replace(ranking, ranked=calibrated(ranking.ranked), scores=calibrated(ranking.scores))


def _nothing(ranking: Ranking, calibration: Calibration | None) -> bool:
    """Whether the best of all is no better than the best of a query without a relevant candidate."""
    if calibration is None or calibration.nothing is None or not ranking.scores:
        return False
    if not all(score.scored for score in ranking.scores):
        return False  # the best of all may be one that a deadline left
    return max(score.raw_score for score in ranking.scores) <= calibration.nothing.logit


def _doubts(
    calibration: Calibration, info: ModelInfo | None, scores: Sequence[Score], passages: Passages | None
) -> list[str]:
    """Sentences about everything that weakens the guarantees."""
    doubts = []
    candidates = len(scores)
    if _are_split_otherwise(scores, calibration.passage_tokens, passages):
        made, found = _texts(calibration.passage_tokens), _texts(passages.max_tokens if passages else 0)
        doubts.append(f"calibration {calibration.name} was made from {made}, not from {found}")
    if candidates > calibration.depth:
        doubts.append(
            f"calibration {calibration.name} was made from at most {calibration.depth} candidates of a query, not "
            f"{candidates}: the best of more scores higher by chance"
        )
    if info is not None and info.dtype != calibration.dtype:
        doubts.append(
            f"calibration {calibration.name} was made in {calibration.dtype}, not {info.dtype}: compare them with "
            "rerankd doctor --compare"
        )
    return doubts


def _are_split_otherwise(scores: Sequence[Score], passage_tokens: int, passages: Passages | None) -> bool:
    """Whether a document is split and was not, or the other way round, or into passages of another length."""
    if passage_tokens and passages and passages.max_tokens == passage_tokens:
        return False
    is_long = (one.prompt.document_tokens > passage_tokens > 0 for one in scores if one.prompt)
    return any(score.num_passages > 1 for score in scores) or any(is_long)


def _texts(passage_tokens: int | None) -> str:
    """What is scored. passage_tokens: 0: whole documents; None: passages as long as they fit."""
    if passage_tokens == 0:
        return "whole documents"
    return f"passages of {passage_tokens} tokens" if passage_tokens else "the best passages of long ones"
