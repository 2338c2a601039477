"""An upstream that is another server: sends it a whole call and reads its scores. Decides nothing about retries."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence

from rerankd.apis.facts import RERANKD, ApiFacts
from rerankd.client.async_client import AsyncClient
from rerankd.client.call import sum_of
from rerankd.client.dialects import DIALECTS, endpoint
from rerankd.client.errors import RemoteReplyInvalid
from rerankd.ranking import tokens_of
from rerankd.tracing import attempt
from rerankd.types import Prompt, Ranking, Score, TokenCounts
from rerankd.upstreams.breaker import Breaker
from rerankd.upstreams.member import Member, Scored, Slots, Task
from rerankd.upstreams.secrets import KeySource
from rerankd.upstreams.settings import UpstreamSettings

LARGEST_LOGIT = 36.74
"""The logit of a score of 1: the largest whose sigmoid is not yet 1 in float64. A score of 0 has its negative."""

MAX_NAME_CHARS = 200
"""The longest name of a model that is read from a reply: it goes into a header."""

REPLY_S, GRACE_S = 0.02, 0.25
"""Of a deadline: what a server is not given, since its reply has to come here; after it, a rerankd may still answer."""

LONGEST_DEADLINE_S = 3600.0
"""A later one is not passed on: the client takes none."""

HEALTH_PATH = "/health"
DASHSCOPE = frozenset({"dashscope", "dashscope-compatible"})
"""A hosted service that the facts list without its hosts: no path says whether it works."""


class Upstream(Member):
    """A server.

    Args:
        url: in place of the settings' one: an address of its host.
        on_release: called when a request has ended.
    """

    def __init__(
        self, settings: UpstreamSettings, breaker: Breaker, on_release: Callable[[], None], url: str | None = None
    ) -> None:
        super().__init__()
        self.url = url or settings.url
        self.breaker = breaker
        self.slots = Slots(settings.concurrency, on_release)
        self.change(settings)
        name, address = endpoint(self.url, settings.dialect)
        self.host = address.host
        self.facts: ApiFacts = DIALECTS[name]
        self.reads_instruct = self.facts.instruct is not None
        self.counts_texts = self.facts.client in DASHSCOPE
        self.grace_s = GRACE_S if self.facts.client == RERANKD.client else 0.0
        self._client = AsyncClient(
            self.url,
            dialect=settings.dialect,
            model=settings.model,
            timeout=None,  # the pool's own bound is to the last byte
            max_retries=0,
            max_documents=settings.max_documents,
            complete=True,
        )

    def change(self, settings: UpstreamSettings) -> None:
        """Takes what may change while it serves: key, tier, weight, timeout, health and cost."""
        self.settings = settings
        self.name, self.tier, self.weight = settings.name, settings.tier, settings.weight
        self.timeout_s = settings.timeout_s
        self._key = KeySource(settings.api_key) if settings.api_key else None

    @property
    def model(self) -> str | None:
        """As the settings name it."""
        return self.settings.model

    @property
    def health(self) -> str:
        """The path that says whether it works; empty: there is none."""
        if self.settings.health is not None:
            return self.settings.health
        return "" if self.facts.hosts or self.facts.client in DASHSCOPE else HEALTH_PATH

    @property
    def hidden(self) -> tuple[str, ...]:
        """Texts that no reply and no log may contain."""
        return self.host, self._key.current() if self._key else ""

    def cost_of(self, tokens: int, search_units: int) -> float:
        """See `Member.cost_of`."""
        return self.settings.cost * tokens / 1_000_000 + self.settings.cost_per_search * search_units

    async def score(self, task: Task) -> Scored:
        """See `Member.score`."""
        with attempt(self.name) as trace:
            try:
                return await self._score(task, trace)
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None

    async def _score(self, task: Task, trace: Mapping[str, str]) -> Scored:
        """One call for each distinct query."""
        prompts = task.prepared.prompts
        by_query: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_query.setdefault(prompt.query, []).append(index)
        instruct = task.prepared.request.instruct if self.reads_instruct else None
        headers, deadline_s = {**self._headers(task), **trace}, _deadline_s(task)
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(
                    self._ask(query, [prompts[at].document for at in places], instruct, headers, deadline_s)
                )
                for query, places in by_query.items()
            ]
        rankings = [one.result() for one in asked]
        of_prompts = _in_order(prompts, list(by_query.values()), rankings)
        scores = task.prepared.of_documents(of_prompts)
        models = {ranking.model for ranking in rankings}
        model = self.model or ((models.pop() or "")[:MAX_NAME_CHARS] if len(models) == 1 else None) or None
        warnings, usage = tuple(task.prepared.about_unscored(scores)), sum_of([ranking.usage for ranking in rankings])
        return Scored(scores, model, usage, warnings, _billed(prompts, of_prompts))

    async def ask(self, query: str, documents: Sequence[str], instruct: str) -> Ranking:
        """Documents for one query, beside all calls: for a probe.

        Raises:
            RemoteError: it did not answer.
        """
        headers = {**self._authorization(), "x-rerankd-hop": "1"}
        return await self._ask(query, documents, instruct if self.reads_instruct else None, headers)

    async def get(self, path: str, timeout_s: float) -> tuple[int, bytes]:
        """Status and content of a path. Raises RemoteError without an answer."""
        return await self._client.get(path, timeout_s=timeout_s, headers=self._authorization())

    async def _ask(
        self,
        query: str,
        documents: Sequence[str],
        instruct: str | None,
        headers: Mapping[str, str],
        deadline_s: float | None = None,
    ) -> Ranking:
        return await self._client.rank(
            query,
            documents,
            instruct=instruct,
            deadline_s=deadline_s,
            return_documents=False,
            headers=headers,
            slots=self.slots,
        )

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._key.current()}"} if self._key else {}

    def _headers(self, task: Task) -> dict[str, str]:
        """Nothing of the caller's; a trace adds its own."""
        hops = {"x-request-id": task.request_id, "x-rerankd-hop": str(task.hops + 1)}
        return {**self._authorization(), **hops}

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.close()

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"


def _deadline_s(task: Task) -> float | None:
    """The seconds that a server is given: those that are left, without the way back."""
    if task.left_s is None or task.left_s > LONGEST_DEADLINE_S:
        return None
    return max(0.001, task.left_s / 2, task.left_s - REPLY_S)


def _in_order(
    prompts: Sequence[Prompt], places: Sequence[Sequence[int]], rankings: Sequence[Ranking]
) -> tuple[Score, ...]:
    """One score for each prompt, in order."""
    scores: dict[int, Score] = {}
    for indices, ranking in zip(places, rankings, strict=True):
        for one in ranking.scores:
            index = indices[one.index]
            logit = log_odds(one.score) if one.logit is None else one.logit
            text = prompts[index].document
            scores[index] = Score(index, one.score, logit, text, explanation=one.explanation, scored=one.scored)
    if len(scores) != len(prompts):
        raise RemoteReplyInvalid(f"{len(prompts) - len(scores)} documents have no score")
    return tuple(scores[index] for index in range(len(prompts)))


def _billed(prompts: Sequence[Prompt], scores: Sequence[Score]) -> TokenCounts | None:
    """The tokens of the scored prompts, where a rerankd left some at a deadline; None: all of them."""
    if all(score.scored for score in scores):
        return None
    return tokens_of([prompt for prompt, score in zip(prompts, scores, strict=True) if score.scored])


def log_odds(score: float) -> float:
    """The logit of a score; a score outside [0, 1] is one already."""
    if score in (0, 1):
        return LARGEST_LOGIT if score else -LARGEST_LOGIT
    return math.log(score) - math.log1p(-score) if 0 < score < 1 else score
