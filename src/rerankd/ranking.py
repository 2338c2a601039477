"""One rerank call: limits → prompts → scores → order → usage. Knows no API, no key and no queue."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from rerankd.errors import InferenceError, InvalidRequest, NothingInTime, PromptTooLong, TooManyDocuments, TooManyTokens
from rerankd.splitting import Encodes as Encodes
from rerankd.splitting import Part as Part
from rerankd.splitting import split
from rerankd.types import (
    DEFAULT_INSTRUCT,
    Explanation,
    Limits,
    Logits,
    ModelInfo,
    Passage,
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
    """Ranks the documents of a request: an engine in this process, replicas, or upstreams."""

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

    async def highlight(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """The ranking of a call that wants sentences, with their scores; see `highlighting.py`.

        Raises:
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is within its limits.

    Attributes:
        request: as it was sent.
        prompts: one for each document, or for each passage; empty where another server makes them.
        usage: the tokens that scoring it uses.
        info: the model that scores.
        parts: of each prompt, in order, where documents are split; else empty.
        indices: of the documents in the caller's call, for messages; empty where they are those of the request.
    """

    request: RerankRequest
    prompts: Sequence[Prompt]
    usage: TokenCounts
    info: ModelInfo
    parts: Sequence[Part] = ()
    indices: Sequence[int] = ()

    def finish(self, logits: Logits, warnings: Sequence[str] = ()) -> Ranking:
        """Sorts by logit, ties by index, and applies `top_n`.

        Args:
            warnings: about the call's arguments; they come first.

        Raises:
            InferenceError: a logit is not a number.
            NothingInTime: no document was scored before the deadline.
        """
        unscored = logits.unscored
        broken = (index for index, logit in enumerate(logits.values) if not math.isfinite(logit))
        for index in broken:
            if index not in unscored:
                document = self._named(self._index_of(index))
                raise InferenceError(f"The model gave document {document} a score that is not a number.")
        texts = [None] * len(self.parts) if self.parts else self.request.documents
        of_prompts = [
            Score(index, sigmoid(logit), logit, text, prompt, index in logits.cached, scored=index not in unscored)
            for index, (logit, prompt, text) in enumerate(zip(logits.values, self.prompts, texts, strict=True))
        ]
        scores = self.of_documents(of_prompts)
        counts = tokens_of([score.prompt for score in of_prompts if score.scored and score.prompt])
        usage = Usage(total_tokens=counts.prompt_tokens, text_tokens=counts.text_tokens)
        every_warning = tuple(dict.fromkeys((*warnings, *self.warnings, *self.about_unscored(scores))))
        top = tuple(in_order(scores)[: self.request.top_n])
        return Ranking(top, usage, every_warning, self.info.name, scores, queue_s=logits.queue_s)

    def about_unscored(self, scores: Sequence[Score]) -> Iterator[str]:
        """Warnings about documents that were not scored before the deadline. scores: of every document."""
        if missing := sum(not score.scored for score in scores):
            yield f"{missing} of {len(scores)} documents were not scored before the deadline"
        asked = Counter(part.document for part in self.parts)
        parts = sum(score.scored and score.num_passages < asked[score.index] for score in scores)
        if parts:
            yield f"{parts} of {len(scores)} documents have passages that were not scored before the deadline"

    def of_documents(self, scores: Sequence[Score]) -> tuple[Score, ...]:
        """The score of each document, from one for each prompt: that of its best passage, ties by place.

        Raises:
            NothingInTime: no document was scored before the deadline.
        """
        documents = self.request.documents
        if not self.parts:
            pairs = zip(scores, documents, strict=True)
            return _complete(tuple(one if one.document else replace(one, document=text) for one, text in pairs))
        scored: list[list[tuple[Passage, Score]]] = [[] for _ in documents]
        for part, score, prompt in zip(self.parts, scores, self.prompts, strict=True):
            passage = Passage(part.start, part.end, score.score, score.logit, prompt.document_tokens)
            scored[part.document].append((passage, score))
        return _complete(tuple(_best(index, documents[index], some) for index, some in enumerate(scored)))

    def _index_of(self, prompt: int) -> int:
        """The document of a prompt, by its place."""
        return self.parts[prompt].document if self.parts else prompt

    def _named(self, document: int) -> int:
        """The index of a document as the caller knows it."""
        return self.indices[document] if self.indices else document

    @property
    def num_split(self) -> int:
        """Documents with several passages."""
        return sum(number > 1 for number in Counter(part.document for part in self.parts).values())

    @property
    def unread(self) -> Sequence[tuple[int, int]]:
        """(document, characters that were read) of each whose end no passage has."""
        ends: dict[int, int] = {part.document: part.end for part in self.parts}  # the last one's
        return [(index, end) for index, end in ends.items() if end < len(self.request.documents[index])]

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
        lost = [
            (one, self._named(self._index_of(place)))
            for place, prompt in enumerate(self.prompts)
            for one in prompt.truncations
            if one.part == "document"
        ]
        num_documents = len(request.documents)
        truncations = (*_query_truncations(self.prompts), *_document_truncations(lost, num_documents))
        return (*warnings, *truncations, *self._about_passages())

    def _about_passages(self) -> Iterator[str]:
        num_documents = len(self.request.documents)
        if self.request.passages and not self.parts and self.prompts:
            yield "passages ignored: the query leaves no room for them"
        if num_split := self.num_split:
            yield f"{num_split} of {num_documents} documents were split: {len(self.parts)} passages in all"
        if unread := self.unread:
            index, end = max(unread, key=lambda one: len(self.request.documents[one[0]]) - one[1])
            read = f"document {self._named(index)}: {end} of {len(self.request.documents[index])} characters"
            warning = f"{len(unread)} of {num_documents} documents were read only to their last passage ({read})"
            yield f"{warning}: allow more passages, or longer ones"


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
    bounded = _limited_by(info, request)
    parts, prompts = split(bounded, model) if request.passages else ((), model.encode(bounded))
    usage = tokens_of(prompts)
    if limits.max_total_tokens is not None and usage.text_tokens > limits.max_total_tokens:
        raise TooManyTokens(usage.text_tokens, limits.max_total_tokens)
    _refuse_overlong(prompts, limits)
    prepared = Prepared(request, prompts, usage, info, parts)
    if limits.on_overlong == "refuse_if_truncated":
        _refuse_truncated(prepared, info.max_tokens)
    return prepared


def _best(index: int, document: str, scored: Sequence[tuple[Passage, Score]]) -> Score:
    first = scored[0][1]
    scored = [one for one in scored if one[1].scored]
    if not scored:
        return replace(first, index=index, document=document)
    scored = sorted(scored, key=lambda one: -one[1].raw_score)  # stable: ties by place
    passages = tuple(passage for passage, _ in scored)
    return replace(scored[0][1], index=index, document=document, passages=passages, num_passages=len(passages))


def in_order(scores: Sequence[Score]) -> list[Score]:
    """The best first, ties in the call's order; at the end, in the call's order, those that are not scored."""
    return sorted(scores, key=lambda score: (not score.scored, -score.raw_score if score.scored else 0.0))


def _complete(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    """With a score just below the lowest one for each document that has none: clients sort by it."""
    scored = [score for score in scores if score.scored]
    if len(scored) == len(scores):
        return scores
    if not scored:
        raise NothingInTime
    lowest = min(scored, key=lambda score: score.raw_score)
    below = max(0.0, math.nextafter(lowest.score, -math.inf)), math.nextafter(lowest.raw_score, -math.inf)
    return tuple(
        score if score.scored else Score(score.index, *below, score.document, score.prompt, scored=False)
        for score in scores
    )


def tokens_of(prompts: Sequence[Prompt]) -> TokenCounts:
    """The tokens of some prompts."""
    return TokenCounts(
        prompt_tokens=sum(len(prompt.token_ids) for prompt in prompts),
        text_tokens=sum(prompt.query_tokens + prompt.document_tokens for prompt in prompts),
    )


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


def _refuse_truncated(prepared: Prepared, max_tokens: int) -> None:
    """max_tokens: of the longest prompt that the model can read."""
    limits = prepared.request.limits
    context = min(limits.max_prompt_tokens or max_tokens, max_tokens)
    own = {"query": limits.max_query_tokens, "document": limits.max_document_tokens}
    for place, prompt in enumerate(prepared.prompts):
        for lost in prompt.truncations:
            index = prepared.parts[place].document if prepared.parts else place
            raise PromptTooLong.of_text(lost.part, index, lost.tokens, min(own[lost.part] or context, context))


def explanation(score: Score, info: ModelInfo) -> Explanation:
    """The explanation of a score of this process's engine."""
    prompt, logit = score.prompt, score.logit
    assert prompt is not None and logit is not None, "another server's score"
    counts = (len(prompt.token_ids), prompt.query_tokens, prompt.document_tokens, prompt.shared_len)
    info = score.model or info
    stage = (score.stage, info.name) if score.stage else (None, None)
    return Explanation(logit, info.prompt_id, info.dtype, *counts, prompt.truncations, score.cached, *stage)


def _query_truncations(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """One sentence for all."""
    lost = [one for prompt in prompts for one in prompt.truncations if one.part == "query"]
    distinct = set(lost)
    if len(distinct) <= 1:
        return tuple(f"query truncated {_lengths(one)}" for one in distinct)
    longest = max(lost, key=lambda one: one.tokens)
    return (f"the queries of {len(lost)} of {len(prompts)} documents were truncated (longest: {_lengths(longest)})",)


def _document_truncations(lost: Sequence[tuple[Truncation, int]], num_documents: int) -> tuple[str, ...]:
    """One sentence for all. lost: each truncation, with its document."""
    if len(lost) <= 1:
        return tuple(f"document {index} truncated {_lengths(one)}" for one, index in lost)
    longest, index = max(lost, key=lambda pair: pair[0].tokens)
    example = f"longest: document {index}, {_lengths(longest)}"
    return (f"{len(lost)} of {num_documents} documents were truncated ({example})",)


def _lengths(lost: Truncation) -> str:
    before = f"more than {lost.tokens}" if lost.at_least else f"{lost.tokens}"
    return f"from {before} to {lost.kept} tokens"
