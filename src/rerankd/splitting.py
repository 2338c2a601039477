"""A request whose documents are split → the prompts of their passages. Knows no score and no queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rerankd.errors import InvalidRequest
from rerankd.types import MIN_PASSAGE_TOKENS, Prompt, RerankRequest

if TYPE_CHECKING:
    from rerankd.passages import Cutter

MAX_CALL_PASSAGES = 100_000

MAX_ROUNDS = 20
"""Attempts to make the passages of a document short enough; one is the rule, two are rare."""


class Encodes(Protocol):
    """Makes a model's prompts, as far as `prepare` needs it."""

    def encode(self, request: RerankRequest) -> list[Prompt]:
        """One prompt for each document, in order."""
        ...

    def room(self, request: RerankRequest) -> int:
        """The tokens that a document may have beside the longest query."""
        ...

    def lens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each bare text."""
        ...


class Part(NamedTuple):
    """The part of a document that a prompt has: `documents[document][start:end]`."""

    document: int
    start: int
    end: int


def split(request: RerankRequest, model: Encodes) -> tuple[Sequence[Part], list[Prompt]]:
    """The passages of all documents, and their prompts; no passages where the query leaves no room for one.

    A prompt decides whether a passage fits: the tokens of sentences do not add up to those of their text.
    """
    from rerankd.passages import Cutter  # its library is not there where nothing is served

    asked, limits = request.passages, request.limits
    assert asked is not None, "This is a bug: no passages were asked for."
    request = replace(request, limits=replace(limits, max_document_tokens=None, on_overlong="truncate"))
    bounds = (model.room(request), asked.max_tokens, limits.max_document_tokens)
    max_tokens = min(tokens for tokens in bounds if tokens is not None)
    if max_tokens < MIN_PASSAGE_TOKENS:
        return (), model.encode(replace(request, limits=limits))
    overlap, most, full = asked.overlap, asked.max_per_doc, asked.max_tokens is not None
    cutters = [Cutter(text, model.lens, max_tokens, overlap, most, full=full) for text in request.documents]
    encoded: dict[int, list[Prompt]] = {}
    changed: Sequence[int] = range(len(cutters))
    for _ in range(MAX_ROUNDS):
        encoded |= _encoded(request, model, {index: cutters[index] for index in changed})
        changed = [index for index in changed if _shrink(cutters[index], encoded[index], max_tokens)]
        if not changed:
            break
    else:
        encoded |= _encoded(request, model, {index: cutters[index] for index in changed})
    parts = [Part(index, *span) for index, cutter in enumerate(cutters) for span in cutter.spans]
    return parts, [prompt for index in range(len(cutters)) for prompt in encoded[index]]


def _encoded(request: RerankRequest, model: Encodes, cutters: Mapping[int, Cutter]) -> dict[int, list[Prompt]]:
    """The prompts of the passages of some documents."""
    spans = {index: cutter.spans for index, cutter in cutters.items()}
    if (number := sum(map(len, spans.values()))) > MAX_CALL_PASSAGES:
        raise InvalidRequest(
            f"The documents have {number} passages, and a call may have {MAX_CALL_PASSAGES}: allow longer passages or "
            "fewer of a document, or send several requests."
        )
    queries = list(request.per_document(request.queries))
    places = [(index, *span) for index, some in spans.items() for span in some]
    prompts = iter(
        model.encode(
            replace(
                request,
                queries=request.queries if len(request.queries) == 1 else tuple(queries[index] for index, *_ in places),
                documents=tuple(request.documents[index][start:end] for index, start, end in places),
            )
        )
    )
    return {index: list(islice(prompts, len(some))) for index, some in spans.items()}


def _shrink(cutter: Cutter, prompts: Sequence[Prompt], max_tokens: int) -> bool:
    """Has a document cut again whose passages have too many tokens; whether it has such passages."""
    tokens = {
        passage: max(prompt.document_tokens, *(one.tokens for one in prompt.truncations), max_tokens + 1)
        for passage, prompt in enumerate(prompts)
        if prompt.document_tokens > max_tokens or any(one.part == "document" for one in prompt.truncations)
    }
    if tokens:
        cutter.shrink(tokens)
    return bool(tokens)
