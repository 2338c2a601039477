"""The known-answer check of another server's scores, as `selftest` checks an engine's. Opens and closes nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rerankd.errors import RerankdError
from rerankd.selftest import MARS, MIN_SPREAD, PUBLISHED_0_6B, QUERY, TOLERANCE
from rerankd.types import DEFAULT_INSTRUCT
from rerankd.upstreams.outcomes import Kind, kind_of, short_error, wanted_pause_s
from rerankd.upstreams.upstream import Upstream, log_odds

HEALTH_TIMEOUT_S = 3.0

SMALL_MODEL = "qwen3-reranker-0.6b"
"""In the name of a model that says it is the one whose logits are published."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check.

    Attributes:
        status: published: the published logits; sane: the right order; wrong: scores that cannot be right; failed: no
            scores.
        sentence: for a person; without an address.
        logits: by document.
        kind: why there are no scores.
        wanted_pause_s: after which an upstream that is full wants to be asked again.
    """

    status: Literal["published", "sane", "wrong", "failed"]
    sentence: str
    logits: Mapping[str, float] = field(default_factory=dict)
    kind: Kind | None = None
    wanted_pause_s: float | None = None


async def check_health(upstream: Upstream) -> bool:
    """Whether its health path answers. True where it has none."""
    if not upstream.health:
        return True
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            status, _ = await upstream.get(upstream.health, HEALTH_TIMEOUT_S)
    except (RerankdError, TimeoutError):
        return False
    return status < 500  # it has no such path, or asks for another key there


async def check(upstream: Upstream) -> Verdict:
    """Asks for the health, then for the known answers."""
    if not await check_health(upstream):
        return Verdict("failed", f"{upstream.health} does not answer with success.", kind="error")
    try:
        async with asyncio.timeout(upstream.timeout_s):
            ranking = await upstream.ask(QUERY, tuple(PUBLISHED_0_6B), DEFAULT_INSTRUCT)
    except (RerankdError, TimeoutError) as error:
        sentence = f"The known-answer call failed: {short_error(error)}."
        return Verdict("failed", sentence, kind=kind_of(error), wanted_pause_s=wanted_pause_s(error))
    documents = tuple(PUBLISHED_0_6B)
    logits = {documents[one.index]: log_odds(one.score) if one.logit is None else one.logit for one in ranking.scores}
    verdict = judge(logits, f"{upstream.model or ''} {ranking.model or ''}")
    if verdict.status == "wrong" and upstream.settings.skip_self_test:
        return Verdict("sane", f"Not judged, since skip_self_test is set: {verdict.sentence}", logits)
    return verdict


def judge(logits: Mapping[str, float], model: str) -> Verdict:
    """Whether a reranker can have given these scores.

    Args:
        logits: of the four documents of `selftest`.
        model: the name, or the names, that the model has.
    """
    values = logits.values()
    shown = ", ".join(f"{value:.2f}" for value in values)
    if not all(map(math.isfinite, values)) or max(values) - min(values) < MIN_SPREAD:
        return Verdict("wrong", f"All scores are nearly equal (logits {shown}).", logits)
    if max(logits, key=logits.__getitem__) != MARS:
        return Verdict("wrong", f"The document that answers the question is not first (logits {shown}).", logits)
    if SMALL_MODEL not in model.lower():
        return Verdict("sane", f"The right document is first (logits {shown}).", logits)
    drift = max(abs(logits[document] - logit) for document, logit in PUBLISHED_0_6B.items())
    if drift <= TOLERANCE["bfloat16"]:
        return Verdict("published", f"The published logits of Qwen3-Reranker-0.6B to {drift:.2g}.", logits)
    sentence = f"The logits are up to {drift:.2g} away from those published for Qwen3-Reranker-0.6B (logits {shown})."
    return Verdict("wrong", f"{sentence} Is the prompt's template missing?", logits)
