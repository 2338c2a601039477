"""Warnings of a ranking with sources in place of indices, and one line for all truncated documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

CHUNK = r"(?:documents from (?P<start>\d+) on: )?"
TRUNCATED = re.compile(
    rf"{CHUNK}(?:(?P<count>\d+) of \d+ documents were truncated \(longest: )?"
    r"document (?P<index>\d+),? (?:truncated )?from (?P<more>more than )?(?P<before>\d+) to (?P<kept>\d+) tokens\)?"
)
NAMED = re.compile(r"\bdocument (\d+)\b")


@dataclass(frozen=True, slots=True)
class _Truncated:
    """One warning about truncated documents, with the longest of them."""

    count: int
    index: int
    before: int
    kept: int
    more: str

    @classmethod
    def of(cls, found: re.Match[str]) -> _Truncated:
        index = int(found["start"] or 0) + int(found["index"])
        return cls(int(found["count"] or 1), index, int(found["before"]), int(found["kept"]), found["more"] or "")


def in_words(warnings: Sequence[str], sources: Sequence[str]) -> list[str]:
    """The warnings of a call, with the source of each document by index."""
    read = [(warning, TRUNCATED.fullmatch(warning)) for warning in warnings]
    others = [_named(warning, sources) for warning, found in read if not found]
    truncated = [_Truncated.of(found) for _, found in read if found]
    return [*others, *([_summary(truncated, sources)] if truncated else [])]


def _summary(truncated: Sequence[_Truncated], sources: Sequence[str]) -> str:
    longest = max(truncated, key=lambda one: one.before)
    lengths = f"{longest.more}{longest.before:,} tokens, of which {longest.kept:,} were read"
    name = _source(longest.index, sources)
    count = sum(one.count for one in truncated)
    if count == 1:
        return f"{name} was truncated: {lengths}"
    return f"{count:,} of {len(sources):,} documents were truncated (longest: {name}, {lengths})"


def _named(warning: str, sources: Sequence[str]) -> str:
    """Replaces indices by sources; in a part of a call, indices count from its first document."""
    found = re.match(CHUNK, warning)
    start = int(found["start"]) if found and found["start"] else 0
    rest = warning[found.end() :] if found else warning
    return NAMED.sub(lambda match: _source(start + int(match[1]), sources), rest)


def _source(index: int, sources: Sequence[str]) -> str:
    return sources[index] if index < len(sources) else f"document {index}"
