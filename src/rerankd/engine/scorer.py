"""The scorer over an engine: makes a request's prompts, queues them, ranks by their logits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from rerankd.engine.loading.devices import return_freed_memory
from rerankd.engine.protocols import Prompts, QueuesPrompts
from rerankd.errors import Busy, InvalidRequest
from rerankd.highlighting import highlighted, sentence_request, without_sentences
from rerankd.ranking import Prepared, prepare
from rerankd.types import Logits, ModelInfo, Ranking, RerankRequest

MAX_TEXT = 500_000
"""Characters of a text to tokenise; the longest prompt has fewer."""

MUCH_TEXT = 1_000_000
"""Characters of a call. After more, freed memory is returned to the system; glibc would keep it."""

FEW_PROMPTS = 200
"""Hashing and sorting that many takes under a millisecond or two; more is done beside the event loop."""

_beside = ThreadPoolExecutor(1, thread_name_prefix="rerankd-many")


class EngineScorer:
    """Implements `ranking.Scorer`.

    Args:
        engine: runs the model, in this process or on replicas.
        prompts: makes its prompts.
    """

    def __init__(self, engine: QueuesPrompts, prompts: Prompts) -> None:
        self.engine = engine
        self.prompts = prompts

    @property
    def info(self) -> ModelInfo:
        """The model that scores."""
        return self.engine.info

    def prepare(self, request: RerankRequest) -> Prepared:
        """See `ranking.prepare`; runs on the caller's thread.

        Raises:
            MadeBeforeFork: the tokenizer's threads do not run in this process.
        """
        self.engine.refuse_after_fork()
        try:
            return prepare(request, self.prompts, self.info)
        finally:
            if sum(map(len, request.documents)) > MUCH_TEXT:
                return_freed_memory()

    def submit(self, prepared: Prepared, progress: Callable[[int], None] | None = None) -> Future[Logits]:
        """See `Engine.submit`; `prepared.finish` makes the ranking from the logits."""
        request = prepared.request
        return self.engine.submit(prepared.prompts, progress, request.priority, request.owner, request.deadline)

    def with_sentences(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """The ranking with the scores of its sentences, if the call wants them. Waits for them."""
        if not prepared.request.wants_sentences or (request := sentence_request(prepared, ranking)) is None:
            return ranking
        sentences = self.prepare(request)
        try:
            return highlighted(prepared, ranking, sentences, self.submit(sentences).result())
        except Busy:
            return without_sentences(ranking)

    async def highlight(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """See `ranking.Scorer.highlight`."""
        if (request := sentence_request(prepared, ranking)) is None:
            return ranking
        sentences = await asyncio.to_thread(self.prepare, request)
        try:
            logits = await asyncio.wrap_future(self.submit(sentences))
        except Busy:
            return without_sentences(ranking)
        return highlighted(prepared, ranking, sentences, logits)

    async def rank(self, prepared: Prepared) -> Ranking:
        """See `ranking.Scorer.rank`."""
        if len(prepared.prompts) <= FEW_PROMPTS:
            return prepared.finish(await asyncio.wrap_future(self.submit(prepared)))
        loop = asyncio.get_running_loop()
        submitting = loop.run_in_executor(_beside, partial(self.submit, prepared))
        try:
            future = await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_cancel)
            raise
        return await loop.run_in_executor(_beside, prepared.finish, await asyncio.wrap_future(future))

    def tokenize(self, text: str) -> list[int]:
        """See `Prompts.tokenize`.

        Raises:
            InvalidRequest: the text has more than MAX_TEXT characters.
        """
        if len(text) > MAX_TEXT:
            raise InvalidRequest(
                f"The text has {len(text)} characters; at most {MAX_TEXT} are tokenised at a time. Send it in parts."
            )
        return self.prompts.tokenize(text)

    def close(self) -> None:
        """See `Engine.close`."""
        self.engine.close()


def _cancel(submitted: asyncio.Future[Future[Logits]]) -> None:
    """Nobody waits for it any more."""
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()
