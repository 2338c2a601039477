"""The sentences of the best passages of a ranking, as a second call. Knows no queue and no API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from rerankd.ranking import Prepared
from rerankd.types import Logits, Passage, Ranking, RerankRequest, Score, Sentence, Usage, sigmoid

MAX_SENTENCES = 64
"""The sentences of a passage that are scored, at most."""


def sentence_request(prepared: Prepared, ranking: Ranking) -> RerankRequest | None:
    """The call that scores the sentences of each result's best passage; None where there is nothing to score."""
    request = prepared.request
    found = [(score.index, text) for score in _shown(prepared, ranking) for text in _texts(score)]
    if not found:
        return None
    limits = replace(
        request.limits, max_documents=None, max_document_tokens=None, max_total_tokens=None, on_overlong="truncate"
    )
    queries = list(request.per_document(request.queries))
    return RerankRequest(
        request.queries if len(request.queries) == 1 else tuple(queries[index] for index, _ in found),
        tuple(text for _, text in found),
        request.instruct,
        None,
        limits,
        request.priority,
        request.owner,
        deadline=request.deadline,
    )


def highlighted(prepared: Prepared, ranking: Ranking, sentences: Prepared, logits: Logits) -> Ranking:
    """The ranking with the scores of its sentences, and the tokens of both calls in its usage."""
    scored = iter(enumerate(logits.values))
    changed: dict[int, Score] = {}
    for score in _shown(prepared, ranking):
        best = score.passages[0]
        found = tuple(
            Sentence(best.start + start, best.start + end, sigmoid(logit), logit)
            for (start, end), (place, logit) in zip(_spans(score), islice(scored, len(_spans(score))), strict=True)
            if place not in logits.unscored
        )
        changed[score.index] = replace(score, passages=(replace(best, sentences=found), *score.passages[1:]))
    computed = [prompt for place, prompt in enumerate(sentences.prompts) if place not in logits.unscored]
    before = ranking.usage
    usage = Usage(
        total_tokens=(before.total_tokens or 0) + sum(len(prompt.token_ids) for prompt in computed),
        text_tokens=(before.text_tokens or 0)
        + sum(prompt.query_tokens + prompt.document_tokens for prompt in computed),
    )
    ranked, scores = (
        tuple(changed.get(score.index, score) for score in some) for some in (ranking.ranked, ranking.scores)
    )
    warnings = (*ranking.warnings, *_losses(prepared, ranking, logits))
    return replace(ranking, ranked=ranked, scores=scores, usage=usage, warnings=warnings)


def without_sentences(ranking: Ranking) -> Ranking:
    """The ranking, where the queue is too full for its sentences."""
    return replace(ranking, warnings=(*ranking.warnings, "highlight ignored: the queue is full"))


def _losses(prepared: Prepared, ranking: Ranking, logits: Logits) -> Iterator[str]:
    """Warnings about sentences without a score."""
    if logits.unscored:
        yield f"{len(logits.unscored)} of {len(logits.values)} sentences were not scored before the deadline"
    long = sum(len(_spans(score, MAX_SENTENCES + 1)) > MAX_SENTENCES for score in _shown(prepared, ranking))
    if long:
        yield f"{long} best passages have more than {MAX_SENTENCES} sentences: the others have no score"


def most_tokens(prepared: Prepared) -> int:
    """Upper bound on the tokens that the sentences of a call are billed which wants them."""
    most = [0] * len(prepared.request.documents)
    for part, prompt in zip(prepared.parts, prepared.prompts, strict=False):
        tokens = 2 * prompt.document_tokens + MAX_SENTENCES * (1 + prompt.query_tokens)
        most[part.document] = max(most[part.document], tokens)
    return sum(sorted(most, reverse=True)[: prepared.request.top_n])


def _shown(prepared: Prepared, ranking: Ranking) -> Sequence[Score]:
    if not prepared.request.wants_sentences:
        return ()
    return [score for score in ranking.ranked if score.passages and score.scored]


def _spans(score: Score, most: int = MAX_SENTENCES) -> list[tuple[int, int]]:
    """In the best passage, counted from its start."""
    from rerankd.passages import sentences  # its library is not there where nothing is served

    text = _text(score, score.passages[0])
    return list(islice((span for span in sentences(text) if not text[slice(*span)].isspace()), most))


def _texts(score: Score) -> list[str]:
    text = _text(score, score.passages[0])
    return [text[start:end] for start, end in _spans(score)]


def _text(score: Score, passage: Passage) -> str:
    return (score.document or "")[passage.start : passage.end]
