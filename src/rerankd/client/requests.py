"""What one call is to the client: its arguments, the requests that it takes, and how far they are. Sends nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rerankd.calibration.apply import Named
from rerankd.client.bounded import max_reply_bytes
from rerankd.client.late import Late
from rerankd.client.reply import Reply
from rerankd.types import Passages

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A call's arguments, checked, in texts that UTF-8 can encode.

    Attributes:
        sent: the indices of the documents to send. Blank documents are left out if the API refuses calls with them.
        warnings: those that are known before anything is sent.
        deadline: by time.monotonic.
    """

    query: str
    documents: tuple[str, ...]
    sent: tuple[int, ...]
    top_n: int | None
    instruct: str | None
    with_documents: bool
    model: str | None
    warnings: tuple[str, ...]
    passages: Passages | None = None
    min_score: float | Named | None = None
    calibration: str | None = None
    deadline: float | None = None

    @property
    def own_fields(self) -> dict[str, object]:
        """The options that only rerankd reads; a plain threshold needs no server."""
        if self.calibration is None:
            return {}
        given = {"min_score": self.min_score, "calibration": self.calibration}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Chunk:
    """The documents of one request.

    Attributes:
        indices: their places in the call.
        content: the request's body.
        num_results: how many are asked for.
        num_passages: of each result, at most.
        may_be_fewer: the server leaves out results under a threshold.
        spans: the part of each document, where the client splits them; empty: whole documents.
    """

    indices: Sequence[int]
    content: bytes
    num_results: int
    num_passages: int = 0
    may_be_fewer: bool = False
    spans: Sequence[tuple[int, int]] = ()

    @property
    def max_reply_bytes(self) -> int:
        """The size of the largest reply to the request."""
        return max_reply_bytes(len(self.indices) * (1 + self.num_passages))


@dataclass(frozen=True, slots=True)
class Divided:
    """The requests in place of one with too much for the server."""

    chunks: Sequence[Chunk]


Answered = tuple[Chunk, Reply | Late]
"""A request, and what came of it."""


class Progress:
    """Counts the scored documents of a call and reports the number to the caller."""

    def __init__(self, call: Call, callback: Callable[[int], None] | None) -> None:
        self._done = len(call.documents) - len(call.sent)
        self._callback = callback

    def add(self, chunk: Chunk) -> None:
        """Counts an answered chunk. A callback that fails is not called again, and the call continues."""
        self._done += len(chunk.indices)
        try:
            if self._callback:
                self._callback(self._done)
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self._callback = None
