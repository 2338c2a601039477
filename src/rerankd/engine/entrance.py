"""Refuses requests at the queue of an engine, here or in front of replicas. Knows no request and no lock."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

from rerankd.errors import Busy, MadeBeforeFork, Stopping

MAX_QUEUE_BYTES = 500_000_000
"""Upper bound on the memory of waiting prompts. A request that waits alone may need more."""


class Entrance:
    """Refuses requests in another process, after the end, and where the queue is full.

    Args:
        max_queue: requests in the queue; one more is refused.

    Attributes:
        closed: set by the engine under its lock; there is no way back.
    """

    def __init__(self, max_queue: int) -> None:
        self.closed = False
        self._max_queue = max_queue
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this is a child of the process that made the engine: no thread of the engine runs here."""
        return os.getpid() != self._process

    def refuse_after_fork(self) -> None:
        """Raises MadeBeforeFork in a child process."""
        if self.is_forked:
            raise MadeBeforeFork

    def refuse_when_closed(self) -> None:
        """Raises Stopping after the end."""
        if self.closed:
            raise Stopping("The server is shutting down; send the request again.", 5)

    def refuse_when_full(
        self, num_documents: int, num_bytes: int, waiting: Sequence[int], seconds_to_room: Callable[[], float]
    ) -> None:
        """Raises Busy.

        Args:
            num_documents, num_bytes: of the new request.
            waiting: the bytes of each request in the queue.
            seconds_to_room: a guess, until the oldest of them is done.
        """
        if len(waiting) >= self._max_queue:
            message = f"The queue is full ({len(waiting)} requests are waiting). Try again later."
        elif waiting and sum(waiting) + num_bytes > MAX_QUEUE_BYTES:
            message = (
                f"The queue is full: {len(waiting)} requests are waiting, and this one has {num_documents} documents. "
                "Try again later, or send fewer documents at a time."
            )
        else:
            return
        raise Busy(message, math.ceil(seconds_to_room()))
