"""The scorer over the upstreams of a model: counts the tokens here, has the pool rank."""

from __future__ import annotations

from dataclasses import replace

from rerankd.ranking import Encodes, Prepared, prepare
from rerankd.types import ModelInfo, Ranking, RerankRequest
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.tokens import LONGEST_PROMPT


class PoolScorer:
    """Implements `ranking.Scorer`.

    Args:
        tokens: counts the tokens of a call, and truncates its texts.
        is_exact: whether it counts as the model does.
    """

    def __init__(self, pool: Pool, tokens: Encodes, is_exact: bool) -> None:
        self.pool = pool
        self._tokens, self._is_exact = tokens, is_exact
        notice = None if is_exact else f"tokens are estimated: {pool.name} has no tokenizer here"
        self.info = ModelInfo(
            name=pool.name,
            kind="qwen3",  # the pool itself warns where an instruct is not read
            prompt_id="",
            max_tokens=LONGEST_PROMPT,
            device="upstreams",
            dtype="",
            num_parameters=0,
            folder="",
            notice=notice,
        )

    def prepare(self, request: RerankRequest) -> Prepared:
        """See `ranking.prepare`. Estimated tokens refuse no call."""
        if not self._is_exact:
            longest = request.limits.max_prompt_tokens if request.passages else None
            limits = replace(request.limits, max_total_tokens=None, max_prompt_tokens=longest, max_instruct_tokens=None)
            request = replace(request, limits=limits)
        return prepare(request, self._tokens, self.info)

    async def rank(self, prepared: Prepared) -> Ranking:
        """See `Pool.rank`."""
        return await self.pool.rank(prepared)

    async def highlight(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """See `Pool.highlight`."""
        return await self.pool.highlight(prepared, ranking)
