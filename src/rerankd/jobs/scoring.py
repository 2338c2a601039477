"""One query of a job: its documents → their scores. Knows no file."""

from __future__ import annotations

from collections.abc import Sequence

from rerankd.errors import InvalidRequest
from rerankd.jobs.journal import PassageLogit, Scored
from rerankd.rankers import PassageRanker
from rerankd.runs.float32 import rounded
from rerankd.runs.texts import Query
from rerankd.types import Passages, Score


def score_query(
    ranker: PassageRanker,
    qid: str,
    query: Query,
    documents: Sequence[tuple[str, str]],
    instruct: str | None,
    passages: Passages | None,
) -> tuple[Scored, Sequence[str]]:
    """The scores of (id, text) pairs, in their order, and what the ranker warned of.

    Args:
        instruct: where the query has none of its own.
        passages: how the texts are split; None: they are not.

    Raises:
        InvalidRequest: the query cannot be asked; the message names it.
        InferenceError, RemoteError: the model or the server failed.
    """
    if not documents:
        return Scored(qid, [], [], [], []), ()
    texts, instruct = [text for _, text in documents], query.instruct or instruct
    try:
        ranking = ranker.rank(query.text, texts, instruct=instruct, passages=passages or False)
    except InvalidRequest as error:
        raise InvalidRequest(f"query {qid!r}: {error}") from error
    scores = sorted(ranking.ranked, key=lambda score: score.index)
    scored = Scored(
        qid,
        [doc_id for doc_id, _ in documents],
        [rounded(score.raw_score) for score in scores],
        [score.score for score in scores],
        [_tokens(score) for score in scores],
        [_logits(score) for score in scores] if passages else (),
        ranking.usage.text_tokens or ranking.usage.total_tokens or 0,
    )
    return scored, ranking.warnings


def _tokens(score: Score) -> int:
    """Of all prompts of a document: each has as many beside its passage as that of the best one."""
    if score.prompt is None:
        return 0
    whole = len(score.prompt.token_ids)
    beside = whole - score.prompt.document_tokens
    return sum(beside + (one.tokens or 0) for one in score.passages) if score.passages else whole


def _logits(score: Score) -> list[PassageLogit]:
    """Of each passage, in the order of the text; empty where the ranker does not split documents."""
    by_place = sorted(score.passages, key=lambda one: one.start)
    return [(one.start, one.end, rounded(one.score if one.logit is None else one.logit)) for one in by_place]
