"""What a server answered, whichever API it speaks. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rerankd.results import Results, short_repr


@dataclass(frozen=True, slots=True, repr=False)
class RemoteScore:
    """One document's result.

    index: its place in the call. score: as the server gives it, from most servers in [0, 1]. logit: the log-odds of the
    score, where a rerankd or a NIM answered (their score is sigmoid(logit)), else None. document: the text as it was
    sent, None if the call did not want it.
    """

    index: int
    score: float
    logit: float | None = None
    document: str | None = None

    def __repr__(self) -> str:
        return short_repr(self)


@dataclass(frozen=True, slots=True)
class RemoteUsage:
    """What the server counted, None where it does not tell; of a call in several parts, the sum."""

    total_tokens: int | None = None
    search_units: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class RemoteRanking(Results[RemoteScore]):
    """The answer to a call; as a sequence it is `ranked`.

    ranked: by score, descending, ties by index, cut at top_n. model: what really scored where the server tells, else
    the name that it echoes, if any. warnings: one sentence for each thing that was not done as asked. request_ids:
    the server's names of the requests that the call took, for its log; usually one.
    """

    ranked: tuple[RemoteScore, ...]
    usage: RemoteUsage
    model: str | None
    warnings: tuple[str, ...] = ()
    request_ids: tuple[str, ...] = ()

    def _details(self) -> dict[str, Any]:
        return {"model": self.model, **Results._details(self), "request_ids": list(self.request_ids)}
