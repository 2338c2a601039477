"""The second stage of a cascade in the server: prepares, reserves, scores and merges. Knows no API."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, replace

from rerankd.accounts.decision import CallCost, Charge
from rerankd.admission.gate import Settlement
from rerankd.cascade import ONE_MODEL, choose, failed, merge
from rerankd.errors import InferenceError, Unavailable
from rerankd.ranking import Prepared
from rerankd.server.models import Models, Served
from rerankd.server.served import LocalScorer
from rerankd.types import ModelInfo, Ranking

Reserve = Callable[[Sequence[str], CallCost], AbstractAsyncContextManager[Settlement]]
"""Sets the cost of a stage aside, by the names of its model."""


@dataclass(frozen=True, slots=True)
class SecondStage:
    """The second model of a call.

    Attributes:
        names: that it answers to; its price holds.
        top: the number of documents that it scores.
        required: a failure of it is one of the call; else the first model's ranking stays, with a warning.
    """

    scorer: LocalScorer
    names: Sequence[str]
    top: int
    required: bool = False


@dataclass(frozen=True, slots=True)
class TwoStages:
    """The ranking of both.

    Attributes:
        settlement: of the second one; None if it failed or there was nothing to score.
        tokens: that the second one is billed. is_whole: whether it scored all that it was asked for.
    """

    ranking: Ranking
    settlement: Settlement | None = None
    tokens: int = 0
    is_whole: bool = True


@contextmanager
def second_stage(
    models: Models, served: Served, asked: bool | int | None, wants_sentences: bool
) -> Iterator[tuple[SecondStage | None, tuple[str, ...]]]:
    """The second stage of a call to a model, if there is one and the call wants it; and a warning if it cannot have it.

    Args:
        asked: whether the call wants it, or the number of documents.
    """
    cascade = models.cascade
    if cascade is None or served is not models.default:
        yield None, ("cascade ignored: there is no second model for this one",) if asked else ()
    elif asked is False or asked == 0:
        yield None, ()
    elif wants_sentences:
        yield None, (ONE_MODEL,)
    else:
        top = cascade.top if asked is None or asked is True else asked
        with cascade.served.lease() as scorer:
            yield SecondStage(scorer, models.names_of(cascade.served), top, cascade.required), ()


async def rank_again(
    stage: SecondStage,
    prepared: Prepared,
    first: Ranking,
    cost: CallCost,
    reserve: Reserve,
    until: AsyncExitStack,
    prepare: Callable[..., Awaitable[Prepared]],
    wait: Callable[..., Awaitable[Ranking]],
) -> TwoStages:
    """Has the second model score the best documents.

    Args:
        cost: of the first stage.
        until: releases the cost at its end, unless it was settled.
        prepare: runs `scorer.prepare` beside the event loop.
        wait: waits for a ranking while the caller does.

    Raises:
        OutOfCredit, RateLimited: see `Gate.reserve`.
        InferenceError, Unavailable: the model failed, and it is required.
    """
    infos: tuple[ModelInfo, ModelInfo] = prepared.info, stage.scorer.info
    chosen = choose(prepared.request, first, stage.top)
    if not chosen.indices:
        return TwoStages(first)
    again = replace(await prepare(stage.scorer.prepare, chosen.request), indices=chosen.indices)
    own = hashlib.sha256(cost.fingerprint + b"then").digest() if cost.fingerprint else b""
    more = replace(cost, tokens=again.usage.text_tokens, fingerprint=own)
    settlement = await until.enter_async_context(reserve(stage.names, more))
    try:
        then = await wait(stage.scorer.rank(again))
    except (InferenceError, Unavailable) as error:
        if stage.required:
            raise
        return TwoStages(failed(first, infos, error))
    ranking, tokens = merge(first, chosen, then, infos, prepared.request.top_n), then.usage.text_tokens or 0
    return TwoStages(ranking, settlement, tokens, tokens >= again.usage.text_tokens)


def sum_of(first: Charge | None, then: Charge | None) -> Charge | None:
    """The charge of both stages."""
    if first is None or then is None:
        return first or then
    return Charge(
        first.cost + then.cost,
        first.free_tokens + then.free_tokens,
        first.billed_tokens + then.billed_tokens,
        first.tokens + then.tokens,
    )
