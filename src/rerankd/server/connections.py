"""Bounds the number of connections, and closes idle ones to make room for new ones.

Knows no HTTP: a connection is anything that can be closed.
"""

from __future__ import annotations

import sys
from typing import Protocol

if sys.platform != "win32":
    import resource

WANTED_FILES = 65_536
"""The soft limit on open files is raised to this, or to the hard limit where that is lower."""

MAX_CONNECTIONS = 8192
"""The bound, even if more files may be open: an idle connection takes about 10 KB."""


class Idle(Protocol):
    """A connection that waits for a request."""

    def give_way(self) -> None:
        """Closes it."""


class Connections:
    """Bounds the number of connections. At the bound, the connection that has been idle longest is closed.

    Args:
        most: connections at the same time.
    """

    def __init__(self, most: int = MAX_CONNECTIONS) -> None:
        self._most = most
        self._idle: dict[Idle, None] = {}  # in the order in which they became idle
        self._count = 0

    def opened(self, connection: Idle) -> bool:
        """Counts a new connection. False: there are too many, and none is idle."""
        if has_room := self._count < self._most or self._make_room():
            self._idle[connection] = None
        self._count += 1
        return has_room

    def busy(self, connection: Idle) -> None:
        """The connection has sent the head of a request."""
        self._idle.pop(connection, None)

    def idle(self, connection: Idle) -> None:
        """The connection's request was answered."""
        self._idle[connection] = None

    def closed(self, connection: Idle) -> None:
        """The connection has ended."""
        self._idle.pop(connection, None)
        self._count -= 1

    def _make_room(self) -> bool:
        longest = next(iter(self._idle), None)
        if longest is None:
            return False
        del self._idle[longest]
        longest.give_way()
        return True


def most_connections() -> int:
    """The number of connections that the limit on open files allows, after raising that limit."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    # The other files: the model, the accounts, the logs, and connections that are closing.
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(16, min(MAX_CONNECTIONS, soft - soft // 4))
