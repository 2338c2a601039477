"""One rerank call: limits → prompts → scores → order → usage. Knows no API, no key and no queue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from rerankd.errors import InferenceError, InvalidRequest, PromptTooLong, TooManyDocuments, TooManyTokens
from rerankd.types import (
    DEFAULT_INSTRUCT,
    Explanation,
    Limits,
    Logits,
    ModelInfo,
    Prompt,
    Ranking,
    RerankRequest,
    Score,
    TokenCounts,
    Truncation,
    Usage,
    sigmoid,
)


class Scorer(Protocol):
    """What ranks the documents of a request: an engine in this process, or what stands elsewhere."""

    @property
    def info(self) -> ModelInfo:
        """The model that scores."""
        ...

    def prepare(self, request: RerankRequest) -> Prepared:
        """Checks the limits and counts the tokens. Takes processor time; called from any thread.

        Raises:
            InvalidRequest: one of its kinds, with the limit and the way out.
        """
        ...

    async def rank(self, prepared: Prepared) -> Ranking:
        """Scores and sorts. Cancelling it frees the work.

        Raises:
            Busy: the queue is full.
            Stopping: the scorer is closed.
            InferenceError: the model failed.
        """
        ...


class Submits(Protocol):
    """A scorer in this process, for callers without an event loop."""

    @property
    def info(self) -> ModelInfo:
        """The model that scores."""
        ...

    def prepare(self, request: RerankRequest) -> Prepared:
        """See `Scorer.prepare`."""
        ...

    def submit(self, prepared: Prepared) -> Future[Logits]:
        """Queues the prompts; `Prepared.finish` makes the ranking from the logits."""
        ...


class Encodes(Protocol):
    """What makes a model's prompts, as far as `prepare` needs it."""

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One prompt for each document, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is within its limits.

    Attributes:
        request: as it was sent.
        prompts: one for each document; empty where another server makes them.
        usage: the tokens that scoring it uses.
        info: the model that scores.
    """

    request: RerankRequest
    prompts: Sequence[Prompt]
    usage: TokenCounts
    info: ModelInfo

    def finish(self, logits: Logits, warnings: Sequence[str] = ()) -> Ranking:
        """Sorts by logit, ties by index, and applies `top_n`.

        Args:
            warnings: about the call's arguments; they come first.

        Raises:
            InferenceError: a logit is not a number.
        """
        if broken := [index for index, logit in enumerate(logits.values) if not math.isfinite(logit)]:
            raise InferenceError(f"The model gave document {broken[0]} a score that is not a number.")
        scores = tuple(
            Score(index, sigmoid(logit), logit, document, prompt, index in logits.cached)
            for index, (logit, document, prompt) in enumerate(
                zip(logits.values, self.request.documents, self.prompts, strict=True)
            )
        )
        ranked = sorted(scores, key=lambda score: -score.raw_score)  # stable: ties keep the call's order
        usage = Usage(total_tokens=self.usage.prompt_tokens, text_tokens=self.usage.text_tokens)
        every_warning = tuple(dict.fromkeys((*warnings, *self.warnings)))
        top = tuple(ranked[: self.request.top_n])
        return Ranking(top, usage, every_warning, self.info.name, scores, queue_s=logits.queue_s)

    @property
    def num_truncated(self) -> Mapping[str, int]:
        """How many texts were truncated, by their part; a query counts once."""
        lost = [(one.part, prompt.query) for prompt in self.prompts for one in prompt.truncations]
        queries = {query for part, query in lost if part == "query"}
        return {"query": len(queries), "document": sum(part == "document" for part, _ in lost)}

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each deviation from the request."""
        request, info = self.request, self.info
        warnings = [info.notice] if info.notice else []
        if not info.reads_instruct and request.instruct.rstrip(".") != DEFAULT_INSTRUCT:
            warnings.append(f"instruct ignored: {info.name} reads none")
        if not all(query.strip() for query in request.queries):
            warnings.append("the query is empty: the scores mean little")
        return (*warnings, *_query_truncations(self.prompts), *_document_truncations(self.prompts))


def prepare(request: RerankRequest, model: Encodes, info: ModelInfo) -> Prepared:
    """Checks the limits and has the model make the prompts.

    Raises:
        InvalidRequest: one of its kinds, with the limit and the way out.
    """
    limits, num_documents = request.limits, len(request.documents)
    if limits.max_documents is not None and num_documents > limits.max_documents:
        raise TooManyDocuments(num_documents, limits.max_documents)
    if request.top_n is not None and request.top_n < 1:
        raise InvalidRequest(f"top_n must be at least 1, or left out for all; it is {request.top_n}.")
    prompts = model.encode(_limited_by(info, request))
    usage = TokenCounts(
        prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
        text_tokens=sum(prompt.query_tokens + prompt.document_tokens for prompt in prompts),
    )
    if limits.max_total_tokens is not None and usage.text_tokens > limits.max_total_tokens:
        raise TooManyTokens(usage.text_tokens, limits.max_total_tokens)
    _refuse_overlong(prompts, limits)
    if limits.on_overlong == "refuse_if_truncated":
        _refuse_truncated(prompts, limits, info.max_tokens)
    return Prepared(request, prompts, usage, info)


def _limited_by(info: ModelInfo, request: RerankRequest) -> RerankRequest:
    """The request without limits of a text beyond the longest prompt: the tokenizer would only read more of it."""
    limits = request.limits
    max_tokens = min(limits.max_prompt_tokens or info.max_tokens, info.max_tokens)

    def at_most(tokens: int | None) -> int | None:
        return None if tokens is None or tokens >= max_tokens else tokens

    query, document = at_most(limits.max_query_tokens), at_most(limits.max_document_tokens)
    return replace(request, limits=replace(limits, max_query_tokens=query, max_document_tokens=document))


def _refuse_overlong(prompts: Sequence[Prompt], limits: Limits) -> None:
    if limits.max_prompt_tokens is None or limits.on_overlong != "refuse":
        return
    for index, prompt in enumerate(prompts):
        if len(prompt.token_ids) > limits.max_prompt_tokens:
            raise PromptTooLong.of_document(index, len(prompt.token_ids), limits.max_prompt_tokens)


def _refuse_truncated(prompts: Sequence[Prompt], limits: Limits, max_tokens: int) -> None:
    """max_tokens: of the longest prompt that the model can read."""
    context = min(limits.max_prompt_tokens or max_tokens, max_tokens)
    own = {"query": limits.max_query_tokens, "document": limits.max_document_tokens}
    for index, prompt in enumerate(prompts):
        for lost in prompt.truncations:
            raise PromptTooLong.of_text(lost.part, index, lost.tokens, min(own[lost.part] or context, context))


def explanation(score: Score, info: ModelInfo) -> Explanation:
    """What lies behind a score that this process's engine gave."""
    prompt, logit = score.prompt, score.logit
    assert prompt is not None and logit is not None, "another server's score"
    counts = (len(prompt.token_ids), prompt.query_tokens, prompt.document_tokens, prompt.shared_len)
    return Explanation(logit, info.prompt_id, info.dtype, *counts, prompt.truncations, score.cached)


def _query_truncations(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """One sentence for all."""
    lost = [one for prompt in prompts for one in prompt.truncations if one.part == "query"]
    distinct = set(lost)
    if len(distinct) <= 1:
        return tuple(f"query truncated {_lengths(one)}" for one in distinct)
    longest = max(lost, key=lambda one: one.tokens)
    return (f"the queries of {len(lost)} of {len(prompts)} documents were truncated (longest: {_lengths(longest)})",)


def _document_truncations(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """One sentence for all."""
    lost = [(one, index) for index, prompt in enumerate(prompts) for one in prompt.truncations if one.part != "query"]
    if len(lost) <= 1:
        return tuple(f"document {index} truncated {_lengths(one)}" for one, index in lost)
    longest, index = max(lost, key=lambda pair: pair[0].tokens)
    example = f"longest: document {index}, {_lengths(longest)}"
    return (f"{len(lost)} of {len(prompts)} documents were truncated ({example})",)


def _lengths(lost: Truncation) -> str:
    before = f"more than {lost.tokens}" if lost.at_least else f"{lost.tokens}"
    return f"from {before} to {lost.kept} tokens"
