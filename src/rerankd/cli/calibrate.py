"""`rerankd calibrate`: judged candidates → a profile of probabilities and thresholds, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.options import FLAG, NONE_GIVEN, Given, command, settings_from, takes
from rerankd.cli.progress import LoadingBar
from rerankd.cli.queries import read_queries
from rerankd.compare import Query, rank_all
from rerankd.config import ScoringSettings
from rerankd.errors import InvalidRequest, SettingsError
from rerankd.types import ModelInfo

DATA_HELP = (
    "judged candidates, one JSON object per line: 'query', 'documents', 'relevance' (a grade for each document; 0 is "
    "irrelevant) and, optional, 'instruct', the same in all. Take the candidates that your first stage finds"
)

app = command("calibrate")


@app.default
@takes(ScoringSettings)
def calibrate(
    *,
    data: Annotated[Path, Parameter(metavar="FILE", help=DATA_HELP)],
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="FILE")],
    grade: float = 1.0,
    min_recall: float = 0.95,
    max_fpr: float = 0.05,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    given: Given = NONE_GIVEN,
) -> int:
    """Make a calibration profile from judged candidates.

    Args:
        output: the profile, a TOML file for --calibration of 'serve' and 'rank'; its name names the calibration
        grade: the least grade of a relevant document
        min_recall: of further queries, so many keep their best relevant document over the threshold 'keep'
        max_fpr: of further queries without a relevant document, at most so many have one over the threshold 'relevant'
        as_json: print the report as JSON
    """
    settings = settings_from(ScoringSettings, given)
    for name, value in (("--min-recall", min_recall), ("--max-fpr", max_fpr)):
        if not 0 < value < 1:
            raise SettingsError(f"{name} is {value}; give a share between 0 and 1.")
    queries = read_queries(data)
    instruct = _one_instruct(queries)
    with LoadingBar(show_after_s=0) as bar:
        bar("loading PyTorch", 0.0)
        from rerankd.calibration.fit import Judged, fit_curve, keep_threshold, nothing_threshold
        from rerankd.calibration.profile import Calibration
        from rerankd.calibration.report import report

    logits, info = _scored(settings, queries)
    judged = [
        Judged(found, [one >= grade for one in query.relevance or ()])
        for query, found in zip(queries, logits, strict=True)
    ]
    curve = fit_curve(judged)
    outcome = report(judged, curve)
    calibration = Calibration(
        output.stem, info.name, info.prompt_id, instruct, info.dtype, max(len(found) for found in logits),
        outcome.labels, outcome.relevant / outcome.labels, curve,
        keep_threshold(judged, 1 - min_recall), nothing_threshold(judged, max_fpr),
    )  # fmt: skip
    try:
        calibration.save(output)
    except OSError as error:
        raise SettingsError(f"{output} cannot be written: {error.strerror}.") from error
    if as_json:
        print(json.dumps({"calibration": asdict(calibration), "report": asdict(outcome)}, ensure_ascii=False, indent=2))
        return 0
    from rerankd.cli.calibrated import lines

    print("\n".join(lines(calibration, outcome, output)))
    return 0


def _one_instruct(queries: Sequence[Query]) -> str:
    if unjudged := [query.source for query in queries if query.relevance is None]:
        raise InvalidRequest(f"{unjudged[0]} has no 'relevance': a calibration needs judgements.")
    instructs = {query.instruct for query in queries}
    if len(instructs) > 1:
        raise InvalidRequest(
            f"The queries have {len(instructs)} instructs, and a calibration holds for one: make one for each."
        )
    return instructs.pop()


def _scored(settings: ScoringSettings, queries: Sequence[Query]) -> tuple[list[list[float]], ModelInfo]:
    """The logits of each query's documents, and the model."""
    from rerankd.engine.loading.open import Choice
    from rerankd.startup import start_scorer

    choice = Choice(settings.model, settings.device, settings.dtype, settings.deterministic, settings.offline)
    with LoadingBar() as bar:
        scorer = start_scorer(choice, skip_self_test=settings.skip_self_test, progress=bar)
    try:
        with LoadingBar() as bar:
            rankings = rank_all(scorer, queries, lambda done: bar("scoring the candidates", done / len(queries)))
    finally:
        scorer.close()
    return [[score.raw_score for score in ranking.scores] for ranking in rankings], scorer.info
