"""One unit of a batch: reads its part of the input, scores it, and gives the output's rows in the input's order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from rerankd.batch.files import records_of
from rerankd.batch.manifest import Manifest
from rerankd.batch.rows import Pair, ScoredPair, pairs_of
from rerankd.errors import InvalidRequest
from rerankd.ranking import Prepared, Submits
from rerankd.types import Logits, RerankRequest, Score


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that is ready to be scored.

    Attributes:
        pairs: in the order of the input.
        order: the indices of the pairs without an error, so that the documents of a query are side by side: the
            engine computes what their prompts share once.
        prepared: their prompts; None where there are none.
        refusal: why the model refuses all of them; empty if it does not.
    """

    number: int
    pairs: Sequence[Pair]
    order: Sequence[int]
    prepared: Prepared | None
    refusal: str = ""


@dataclass(slots=True)
class _Read:
    """What the model reads of a document: tokens of all its prompts; truncated: not all of it."""

    tokens: int = 0
    truncated: bool = False


def read_unit(manifest: Manifest, number: int, scorer: Submits) -> Unit:
    """Reads and tokenises a unit; takes processor time."""
    columns = manifest.columns
    names = (columns.query, columns.document, f"{columns.document}s", columns.id)
    pairs = [
        pair for place, record in records_of(manifest.part(number), names) for pair in pairs_of(place, record, columns)
    ]
    order = sorted((i for i, pair in enumerate(pairs) if not pair.error), key=lambda i: (pairs[i].query, i))
    if not order:
        return Unit(number, pairs, order, None)
    chosen = [pairs[i] for i in order]
    queries, documents = tuple(pair.query for pair in chosen), tuple(pair.document for pair in chosen)
    request = RerankRequest(queries, documents, manifest.instruct, passages=manifest.passages)
    try:
        return Unit(number, pairs, order, scorer.prepare(request))
    except InvalidRequest as error:
        return Unit(number, pairs, order, None, str(error))


def submit_unit(unit: Unit, scorer: Submits) -> Future[Logits] | None:
    """Queues a unit's prompts, if there are any."""
    return None if unit.prepared is None else scorer.submit(unit.prepared)


def rows_of(unit: Unit, scoring: Future[Logits] | None) -> list[ScoredPair]:
    """The rows of the output, once the unit is scored.

    Raises:
        InferenceError: the model failed.
    """
    rows = [ScoredPair(pair.id, pair.index, None, None, 0, False, pair.error or unit.refusal) for pair in unit.pairs]
    if unit.prepared is not None and scoring is not None:
        ranking = unit.prepared.finish(scoring.result())
        for place, score, read in zip(unit.order, ranking.scores, _read(unit.prepared), strict=True):
            rows[place] = _row(unit.pairs[place], score, read)
    return rows


def _read(prepared: Prepared) -> list[_Read]:
    """Of each document."""
    documents = [_Read() for _ in prepared.request.documents]
    places = [part.document for part in prepared.parts] or range(len(prepared.prompts))
    for place, prompt in zip(places, prepared.prompts, strict=True):
        documents[place].tokens += len(prompt.token_ids)
        documents[place].truncated |= bool(prompt.truncations)
    for place, _ in prepared.unread:
        documents[place].truncated = True
    return documents


def _row(pair: Pair, score: Score, read: _Read) -> ScoredPair:
    best = score.passages[0] if score.passages else None
    start, end = (best.start, best.end) if best else (None, None)
    about = read.tokens, read.truncated, ""
    return ScoredPair(pair.id, pair.index, score.score, score.logit, *about, start, end, score.num_passages)
