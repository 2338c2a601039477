"""Judged candidates for `rerankd calibrate`: JSONL that a model scores now, or a run that it has scored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rerankd.cli.progress import LoadingBar
from rerankd.cli.queries import read_queries
from rerankd.compare import Query, rank_all
from rerankd.config import ScoringSettings
from rerankd.errors import InvalidRequest
from rerankd.runs.about import About, read_about
from rerankd.runs.judgements import judges_irrelevant, read_judgements
from rerankd.runs.run import read_run
from rerankd.types import DEFAULT_INSTRUCT, Passages


@dataclass(frozen=True, slots=True)
class Scored:
    """Candidates with their logits and grades, query by query, and what scored them.

    passage_tokens: the most of a passage; 0: the documents were scored whole.
    """

    logits: Sequence[Sequence[float]]
    grades: Sequence[Sequence[float]]
    instruct: str
    model: str
    prompt_id: str
    dtype: str
    passage_tokens: int


def of_data(path: Path, settings: ScoringSettings, passages: Passages | None = None) -> Scored:
    """Scores the candidates of a JSONL file.

    Args:
        passages: how the documents are split; None: they are scored whole.

    Raises:
        InvalidRequest: the file cannot be read, or a query has no grades or another instruct than the others.
    """
    queries = read_queries(path)
    instruct = _one_instruct(queries)
    from rerankd.startup import chosen, start_scorer

    choice = chosen(settings, settings.model)
    with LoadingBar() as bar:
        scorer = start_scorer(choice, skip_self_test=settings.skip_self_test, progress=bar)
    with closing(scorer), LoadingBar() as bar:
        share = 1 / len(queries)
        rankings = rank_all(scorer, queries, lambda done: bar("scoring the candidates", done * share), passages)
    logits = [[score.raw_score for score in ranking.scores] for ranking in rankings]
    info = scorer.info
    by = info.name, info.prompt_id, info.dtype, (passages.max_tokens or 0) if passages else 0
    return Scored(logits, [q.relevance or () for q in queries], instruct, *by)


def _one_instruct(queries: Sequence[Query]) -> str:
    if unjudged := [query.source for query in queries if query.relevance is None]:
        raise InvalidRequest(f"{unjudged[0]} has no 'relevance': a calibration needs judgements.")
    instructs = {query.instruct for query in queries}
    if len(instructs) > 1:
        raise InvalidRequest(
            f"The queries have {len(instructs)} instructs, and a calibration holds for one: make one for each."
        )
    return instructs.pop()


def of_run(path: Path, qrels: Path) -> Scored:
    """The candidates of a run that `rerankd rerank` wrote, of the queries that have judgements.

    A candidate without a judgement is left out, or is irrelevant where the judgements name relevant documents only.

    Raises:
        InvalidRequest: a file cannot be read, or it is unknown what scored the run.
    """
    about, run, judgements = _known(path), read_run(path), read_judgements([qrels])
    all_count = not judges_irrelevant(judgements)
    logits, grades = [], []
    for qid, found in run.ranked.items():
        judged = judgements.get(qid, {})
        counted = [one for one in found if one.doc_id in judged or (all_count and judged)]
        if counted:
            logits.append([one.score for one in counted])
            grades.append([float(judged.get(one.doc_id, 0)) for one in counted])
    if not logits:
        raise InvalidRequest(f"No candidate of {path} is judged in {qrels}: are these the right files?")
    model, passages = about.model, about.plan.get("passages") or {}
    by = model["name"], model["prompt"], model["dtype"], passages.get("max_tokens") or 0
    return Scored(logits, grades, about.instruct or DEFAULT_INSTRUCT, *by)


def _known(path: Path) -> About:
    about = read_about(path)
    if about is None:
        raise InvalidRequest(
            f"It is unknown what scored {path}: there is no {path.name}.about.json that belongs to it. Make the run "
            "with rerankd rerank."
        )
    if "prompt" not in about.model or "then" in about.model:
        scorer = "a server" if "url" in about.model else "two models"
        raise InvalidRequest(f"{path} was scored by {scorer}: a calibration holds for one model that is known.")
    if about.own_instructs:
        raise InvalidRequest(
            f"{about.own_instructs:,} queries of {path} have an instruct of their own, and a calibration holds for one."
        )
    return about
