"""A real SMTP server on this machine, which keeps what it receives."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller

from support.waiting import PATIENCE_S


@dataclass
class Received:
    """The mails so far, with the recipients of their envelopes. refuse: recipients that the server does not know."""

    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    port: int = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuse:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.mails.append((list(envelope.rcpt_tos), message))
        return "250 OK"


class _Listener(Controller):
    """Listens on a socket that is bound already, so that no other program has its port."""

    def __init__(self, received: Received, bound: socket.socket) -> None:
        here = "127.0.0.1"
        super().__init__(received, here, received.port, ready_timeout=PATIENCE_S, server_hostname="localhost")
        self._bound = bound

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._bound)

    def _trigger_server(self) -> None:
        """Its first connection. aiosmtpd's own gives up after a second."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE_S) as first:
            first.recv(1024)


@contextmanager
def smtp_server() -> Iterator[Received]:
    bound = socket.create_server(("127.0.0.1", 0))
    received = Received(port=bound.getsockname()[1])
    controller = _Listener(received, bound)
    controller.start()
    try:
        yield received
    finally:
        controller.stop()
