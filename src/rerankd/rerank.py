"""One rerank call: limits → prompts → scores → order → usage. Knows no dialect, no key and no queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Protocol

from rerankd.errors import InferenceError, InvalidRequest, PromptTooLong, TooManyDocuments, TooManyTokens
from rerankd.surrogates import surrogate_warnings, without_surrogates
from rerankd.types import (
    DEFAULT_INSTRUCT,
    Cut,
    EncodedPair,
    Limits,
    Logits,
    ModelInfo,
    Pair,
    Ranking,
    RerankRequest,
    Score,
    Usage,
)


class Backend(Protocol):
    """What turns pairs into logits; `engine.Engine` is one."""

    @property
    def info(self) -> ModelInfo: ...

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]: ...

    def text_of(self, token_ids: Sequence[int]) -> str: ...

    def token_ids_of(self, text: str) -> list[int]: ...

    def submit(
        self,
        pairs: Sequence[EncodedPair],
        progress: Callable[[int], None] | None = None,
        priority: int = 0,
        owner: str = "",
    ) -> Future[Logits]: ...


def prepare(request: RerankRequest, backend: Backend) -> list[EncodedPair]:
    """Checks the limits and builds the prompts; what can be refused is refused here. Takes processor time.

    Raises:
        InvalidRequest: one of its kinds, with the limit and the way out.
    """
    limits = request.limits
    num_documents = len(request.pairs)
    if limits.max_documents is not None and num_documents > limits.max_documents:
        raise TooManyDocuments(num_documents, limits.max_documents)
    if request.top_n is not None and request.top_n < 1:
        raise InvalidRequest(f"top_n must be at least 1, or left out for all; it is {request.top_n}.")
    queries = {query: without_surrogates(query) for query in {pair.query for pair in request.pairs}}
    texts = [Pair(queries[pair.query], without_surrogates(pair.document)) for pair in request.pairs]
    pairs = backend.encode(texts, without_surrogates(request.instruct), _readable(limits, backend.info))
    total = usage_of(pairs).text_tokens
    if limits.max_total_tokens is not None and total > limits.max_total_tokens:
        raise TooManyTokens(total, limits.max_total_tokens)
    _refuse_overlong(pairs, limits)
    if limits.refuse_cuts:
        _refuse_cuts(pairs, limits, backend.info.max_tokens)
    return pairs


def _readable(limits: Limits, info: ModelInfo) -> Limits:
    """The same, without limits of a text that are longer than any prompt: they would only have more of it read."""
    max_tokens = min(limits.max_prompt_tokens or info.max_tokens, info.max_tokens)

    def at_most(tokens: int | None) -> int | None:
        return None if tokens is None or tokens >= max_tokens else tokens

    return replace(
        limits,
        max_query_tokens=at_most(limits.max_query_tokens),
        max_document_tokens=at_most(limits.max_document_tokens),
    )


def _refuse_overlong(pairs: Sequence[EncodedPair], limits: Limits) -> None:
    if limits.max_prompt_tokens is None or limits.overlong_prompt == "cut":
        return
    for index, pair in enumerate(pairs):
        if len(pair.token_ids) > limits.max_prompt_tokens:
            raise PromptTooLong.of_document(index, len(pair.token_ids), limits.max_prompt_tokens)


def _refuse_cuts(pairs: Sequence[EncodedPair], limits: Limits, max_tokens: int) -> None:
    """max_tokens: the longest prompt that the model can read."""
    context = min(limits.max_prompt_tokens or max_tokens, max_tokens)
    own = {"query": limits.max_query_tokens, "document": limits.max_document_tokens}
    for index, pair in enumerate(pairs):
        for cut in pair.cuts:
            raise PromptTooLong.of_text(cut.part, index, cut.tokens, min(own[cut.part] or context, context))


def finish(request: RerankRequest, pairs: Sequence[EncodedPair], logits: Logits, info: ModelInfo) -> Ranking:
    """Sorts by logit, ties by index, and counts.

    Raises:
        InferenceError: a logit is not a number.
    """
    if broken := [index for index, logit in enumerate(logits) if not math.isfinite(logit)]:
        raise InferenceError(f"The model gave document {broken[0]} a score that is not a number.")
    scores = tuple(
        Score(index, logit, without_surrogates(asked.document), encoded, index in logits.cached)
        for index, (logit, asked, encoded) in enumerate(zip(logits, request.pairs, pairs, strict=True))
    )
    ranked = sorted(scores, key=lambda score: -score.logit)  # stable: ties keep the call's order
    return Ranking(scores, tuple(ranked[: request.top_n]), usage_of(pairs), _warnings(request, pairs, info))


def usage_of(pairs: Sequence[EncodedPair]) -> Usage:
    """What scoring these prompts uses; known before they are scored."""
    return Usage(
        prompt_tokens=sum(len(pair.token_ids) for pair in pairs),
        text_tokens=sum(pair.query_tokens + pair.document_tokens for pair in pairs),
    )


def explanation(score: Score, info: ModelInfo) -> dict[str, object]:
    """What lies behind a score that this process's engine gave: what a caller needs to check it by hand."""
    encoded = score.encoded
    assert encoded is not None, "another server's score"
    return {
        "logit": score.logit,
        "prompt_id": info.prompt_id,
        "dtype": info.dtype,
        "prompt_tokens": len(encoded.token_ids),
        "query_tokens": encoded.query_tokens,
        "document_tokens": encoded.document_tokens,
        "shared_tokens": encoded.shared_len,
        "cuts": [{"part": cut.part, "from": cut.tokens, "to": cut.kept} for cut in encoded.cuts],
        "cached": score.cached,
    }


def _warnings(request: RerankRequest, pairs: Sequence[EncodedPair], info: ModelInfo) -> tuple[str, ...]:
    warnings = [info.notice] if info.notice else []
    queries = "".join(dict.fromkeys(pair.query for pair in request.pairs))
    warnings += surrogate_warnings(queries, request.instruct, (pair.document for pair in request.pairs))
    if not info.reads_instruct and request.instruct.rstrip(".") != DEFAULT_INSTRUCT:
        warnings.append(f"instruct ignored: {info.name} reads none")
    if not all(query.strip() for query in {pair.query for pair in request.pairs}):
        warnings.append("the query is empty: the scores mean little")
    return (*warnings, *_query_cuts(pairs), *_document_cuts(pairs))


def _query_cuts(pairs: Sequence[EncodedPair]) -> tuple[str, ...]:
    """One sentence for all."""
    cuts = [cut for pair in pairs for cut in pair.cuts if cut.part == "query"]
    distinct = set(cuts)
    if len(distinct) <= 1:
        return tuple(f"query truncated {_lengths(cut)}" for cut in distinct)
    longest = max(cuts, key=lambda cut: cut.tokens)
    return (f"the queries of {len(cuts)} of {len(pairs)} documents were truncated (longest: {_lengths(longest)})",)


def _document_cuts(pairs: Sequence[EncodedPair]) -> tuple[str, ...]:
    """One sentence for all."""
    cuts = [(cut, index) for index, pair in enumerate(pairs) for cut in pair.cuts if cut.part == "document"]
    if len(cuts) <= 1:
        return tuple(f"document {index} truncated {_lengths(cut)}" for cut, index in cuts)
    longest, index = max(cuts, key=lambda one: one[0].tokens)
    told = f"longest: document {index}, {_lengths(longest)}"
    return (f"{len(cuts)} of {len(pairs)} documents were truncated ({told})",)


def _lengths(cut: Cut) -> str:
    before = f"more than {cut.tokens}" if cut.at_least else f"{cut.tokens}"
    return f"from {before} to {cut.kept} tokens"
