"""One rerank call: limits → prompts → scores → order → usage. Knows no dialect, no key and no queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from rerankd.errors import InvalidRequest, PromptTooLong, TooManyDocuments, TooManyTokens
from rerankd.types import Cut, EncodedPair, Limits, ModelInfo, Pair, Ranking, RerankRequest, Score, Usage


class Backend(Protocol):
    """What turns pairs into logits; `engine.Engine` is one."""

    @property
    def info(self) -> ModelInfo: ...

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]: ...

    def submit(
        self, pairs: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
    ) -> Future[list[float]]: ...


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
    pairs = backend.encode(request.pairs, request.instruct, limits)
    total = sum(pair.query_tokens + pair.document_tokens for pair in pairs)
    if limits.max_total_tokens is not None and total > limits.max_total_tokens:
        raise TooManyTokens(
            f"The request has {total} tokens (query_tokens × documents + the tokens of all documents); the limit "
            f"is {limits.max_total_tokens}. Send fewer or shorter documents, or several requests."
        )
    _check_prompts(pairs, limits)
    return pairs


def _check_prompts(pairs: Sequence[EncodedPair], limits: Limits) -> None:
    if limits.max_prompt_tokens is None or limits.overlong_prompt == "cut":
        return
    for index, pair in enumerate(pairs):
        if len(pair.token_ids) > limits.max_prompt_tokens:
            raise PromptTooLong(
                f"This model's maximum context length is {limits.max_prompt_tokens} tokens. However, your prompt "
                f"for document {index} contains at least {len(pair.token_ids)} input tokens. Please reduce the "
                "length of the input prompt, or set truncate_prompt_tokens to -1 to have the document cut."
            )


def finish(request: RerankRequest, pairs: Sequence[EncodedPair], logits: Sequence[float], info: ModelInfo) -> Ranking:
    """Sorts by logit, ties by index, and counts."""
    scores = tuple(
        Score(index, logit, pair.document)
        for index, (logit, pair) in enumerate(zip(logits, request.pairs, strict=True))
    )
    ranked = sorted(scores, key=lambda score: -score.logit)  # stable: ties keep the call's order
    usage = Usage(
        prompt_tokens=sum(len(pair.token_ids) for pair in pairs),
        text_tokens=sum(pair.query_tokens + pair.document_tokens for pair in pairs),
    )
    notices = (info.notice,) if info.notice else ()
    return Ranking(scores, tuple(ranked[: request.top_n]), usage, notices + _cut_warnings(pairs))


def _cut_warnings(pairs: Sequence[EncodedPair]) -> tuple[str, ...]:
    """One sentence for each text that was cut, the query's once."""
    warnings: dict[str, None] = {}
    for index, pair in enumerate(pairs):
        for cut in pair.cuts:
            name = "query" if cut.part == "query" else f"document {index}"
            warnings[_cut_warning(name, cut)] = None
    return tuple(warnings)


def _cut_warning(name: str, cut: Cut) -> str:
    before = f"more than {cut.tokens}" if cut.at_least else f"{cut.tokens}"
    return f"{name} truncated from {before} to {cut.kept} tokens"
