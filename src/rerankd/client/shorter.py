"""Splits documents that a server refuses as too long, and puts the scores of their parts together. Sends nothing.

A rerankd does it itself, and by the model's own tokens; here they are estimated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from rerankd.client.dialects import num_tokens_about
from rerankd.client.requests import Call, Chunk
from rerankd.types import MIN_PASSAGE_TOKENS, Score

Part = tuple[int, int, int]
"""`documents[index][start:end]`."""


def shorter(call: Call, chunk: Chunk) -> list[Part]:
    """The documents of a request in passages: as long as the call asks for, then half as long as they were.

    Empty where they cannot be shorter, or where the library that finds sentences is not installed.
    """
    try:
        from rerankd.passages import Cutter
    except ImportError:
        return []
    asked, parts = call.passages, list(_parts(call, chunk))
    assert asked is not None, "This is a bug: no passages were asked for."
    longest = max(_sizes(call, parts))
    wanted = asked.max_tokens if asked.max_tokens and not chunk.spans else longest
    most = wanted if wanted < longest else longest // 2
    if most < MIN_PASSAGE_TOKENS:
        return []
    found: list[Part] = []
    for (index, start, end), size in zip(parts, _sizes(call, parts), strict=True):
        if size <= most:
            found.append((index, start, end))
            continue
        cutter = Cutter(call.documents[index][start:end], _count, most, asked.overlap, asked.max_per_doc)
        found += [(index, start + first, start + last) for first, last in cutter.spans]
    return found if max(_sizes(call, found)) < longest else []


def _parts(call: Call, chunk: Chunk) -> Iterator[Part]:
    spans = chunk.spans or [(0, len(call.documents[index])) for index in chunk.indices]
    for index, (start, end) in zip(chunk.indices, spans, strict=True):
        yield index, start, end


def _sizes(call: Call, parts: Sequence[Part]) -> Sequence[int]:
    return _count([call.documents[index][start:end] for index, start, end in parts])


def _count(texts: Sequence[str]) -> list[int]:
    return [num_tokens_about(text) for text in texts]


def of_documents(scores: Sequence[Score]) -> list[Score]:
    """One score for each document: that of its best part, with all parts as its passages, the best first."""
    by_document = groupby(sorted(scores, key=lambda score: score.index), key=lambda score: score.index)
    return [_best(list(some)) for _, some in by_document]


def _best(parts: Sequence[Score]) -> Score:
    if len(parts) == 1:
        return parts[0]
    scored = sorted((one for one in parts if one.scored), key=lambda one: (-one.score, -(one.logit or 0.0)))
    if not scored:
        return parts[0]
    return replace(
        scored[0], passages=tuple(one.passages[0] for one in scored if one.passages), num_passages=len(scored)
    )


def about_parts(call: Call, chunks: Sequence[Chunk]) -> Iterator[str]:
    """Warnings about documents that were split here. chunks: of the whole call."""
    parts = [part for chunk in chunks if chunk.spans for part in _parts(call, chunk)]
    ends: dict[int, int] = {}
    for index, _, end in parts:
        ends[index] = max(end, ends.get(index, 0))
    split = {index for index, start, end in parts if end - start < len(call.documents[index])}
    if split:
        yield f"{len(split)} of {len(call.documents)} documents were split by the client: {len(parts)} passages in all"
    if unread := [index for index, end in ends.items() if end < len(call.documents[index])]:
        index = unread[0]
        read = f"document {index}: {ends[index]} of {len(call.documents[index])} characters"
        warning = f"{len(unread)} of {len(call.documents)} documents were read only to their last passage ({read})"
        yield f"{warning}: allow more passages, or longer ones"
