"""`rerankd calibrate`: judged candidates → a profile of probabilities and thresholds, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rerankd.calibration.profile import Calibration
from rerankd.cli.judged import Scored, of_data, of_run
from rerankd.cli.options import COUNT, FLAG, NONE_GIVEN, Given, command, settings_from, takes
from rerankd.cli.progress import load_pytorch
from rerankd.config import ScoringSettings
from rerankd.errors import InvalidRequest, SettingsError
from rerankd.types import Passages

if TYPE_CHECKING:
    from rerankd.calibration.report import Report

DATA_HELP = (
    "judged candidates, one JSON object per line: 'query', 'documents', 'relevance' (a grade for each document; 0 is "
    "irrelevant) and, optional, 'instruct', the same in all. Take the candidates that your first stage finds"
)

app = command("calibrate")


@app.default
@takes(ScoringSettings)
def calibrate(
    *,
    data: Annotated[Path | None, Parameter(metavar="FILE", help=DATA_HELP)] = None,
    run: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    qrels: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="FILE")],
    grade: float = 1.0,
    min_recall: float = 0.95,
    max_fpr: float = 0.05,
    passage_tokens: Annotated[int | None, COUNT, Parameter(show_default=False)] = None,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    given: Given = NONE_GIVEN,
) -> int:
    """Make a calibration profile from judged candidates.

    Args:
        run: in place of --data, a run that rerankd rerank wrote; nothing is scored again
        qrels: the judgements of --run, in TREC's or BEIR's format, JSONL or Parquet
        output: the profile, a TOML file for --calibration of 'serve' and 'rank'; its name names the calibration
        grade: the least grade of a relevant document
        min_recall: the share of further queries whose best relevant document stays over the threshold 'keep'
        max_fpr: the largest share of further queries without a relevant document that have one over 'relevant'
        passage_tokens: split the documents of --data into passages of at most so many, as calls will
        as_json: print the report as JSON
    """
    settings = settings_from(ScoringSettings, given)
    _check(output, {"--min-recall": min_recall, "--max-fpr": max_fpr})
    passages = None if passage_tokens is None else Passages(passage_tokens)
    scored = _scored(data, run, qrels, settings, passages)
    from rerankd.calibration.fit import Judged, fit_curve, keep_threshold, nothing_threshold
    from rerankd.calibration.report import report

    judged = [
        Judged(found, [one >= grade for one in grades])
        for found, grades in zip(scored.logits, scored.grades, strict=True)
    ]
    curve = fit_curve(judged)
    outcome = report(judged, curve)
    calibration = Calibration(
        output.stem, scored.model, scored.prompt_id, scored.instruct, scored.dtype, max(map(len, scored.logits)),
        outcome.labels, outcome.relevant / outcome.labels, curve,
        keep_threshold(judged, round(1 - min_recall, 9)), nothing_threshold(judged, max_fpr), scored.passage_tokens,
    )  # fmt: skip
    _save(calibration, output)
    _print(calibration, outcome, output, as_json)
    return 0


def _check(output: Path, shares: Mapping[str, float]) -> None:
    """Before anything is scored.

    Raises:
        SettingsError: a share is none, or the profile cannot be written.
    """
    for name, value in shares.items():
        if not 0 < value < 1:
            raise SettingsError(f"{name} is {value}; give a share between 0 and 1.")
    if not output.parent.is_dir():
        raise SettingsError(f"{output} cannot be written: there is no folder {output.parent}.")


def _scored(
    data: Path | None, run: Path | None, qrels: Path | None, settings: ScoringSettings, passages: Passages | None
) -> Scored:
    if data and not (run or qrels):
        load_pytorch()
        return of_data(data, settings, passages)
    if passages:
        raise InvalidRequest("--passage-tokens belongs to --data: the file beside a run says how it was made.")
    if run and qrels and not data:
        return of_run(run, qrels)
    raise InvalidRequest("Pass --data with judged candidates, or --run and --qrels.")


def _save(calibration: Calibration, output: Path) -> None:
    try:
        calibration.save(output)
    except OSError as error:
        raise SettingsError(f"{output} cannot be written: {error.strerror}.") from error


def _print(calibration: Calibration, outcome: Report, output: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"calibration": asdict(calibration), "report": asdict(outcome)}, ensure_ascii=False, indent=2))
        return
    from rerankd.cli.calibrated import lines

    print("\n".join(lines(calibration, outcome, output)))
