"""Ports for programs that do not choose one themselves, or that come back to theirs."""

from __future__ import annotations

import itertools
import random
import socket
from contextlib import suppress

LOWEST, HIGHEST = 15_000, 32_000
"""Linux chooses ports from 32,768 on, macOS from 49,152 on."""

NUMBER = 2_000

_ports = itertools.cycle(random.SystemRandom().sample(range(LOWEST, HIGHEST), NUMBER))


def free_port() -> int:
    """One on the loopback interface that nobody listens on.

    It is below the ports that the system chooses for connections and for port 0, so that no other test gets it before
    it is used. Each process of the tests has its own order.
    """
    for port in itertools.islice(_ports, NUMBER):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")
