"""Sends mail through one SMTP server, on a thread of its own. Knows no account and no page."""

from __future__ import annotations

import logging
import re
import smtplib
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import localtime, make_msgid
from queue import Full, Queue
from urllib.parse import unquote, urlsplit

from rerankd.errors import SettingsError
from rerankd.loopback import is_loopback

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0
MAX_WAITING = 1000
"""Mails that wait for the SMTP server; more are dropped, and logged."""

ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
"""What HTML takes for an e-mail address. It has no space, comma, quote or line feed: it cannot become a second header
or a second recipient."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is sent. has_tls: from the first byte on; otherwise STARTTLS, where the server offers it."""

    host: str
    port: int
    has_tls: bool
    user: str | None
    password: str | None

    @classmethod
    def parse(cls, url: str) -> SmtpServer:
        """Reads `smtp://USER:PASSWORD@HOST:587` or `smtps://HOST`. Raises SettingsError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname or parts.path.strip("/"):
            raise SettingsError("smtp: not an address such as smtp://USER:PASSWORD@HOST:587 or smtps://HOST.")
        has_tls = parts.scheme == "smtps"
        user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
        return cls(parts.hostname, port or (465 if has_tls else 587), has_tls, user, password)

    @property
    def is_this_machine(self) -> bool:
        """Nobody reads a message on its way there: no TLS is needed."""
        return is_loopback(self.host)

    def send(self, message: EmailMessage, to: str) -> None:
        """Raises OSError or smtplib.SMTPException."""
        context = ssl.create_default_context()
        with (
            smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context)
            if self.has_tls
            else smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
        ) as smtp:
            smtp.ehlo()
            is_private = self.has_tls or self.is_this_machine
            if not self.has_tls and smtp.has_extn("starttls") and not self.is_this_machine:
                smtp.starttls(context=context)
                smtp.ehlo()
                is_private = True
            if not is_private:
                raise smtplib.SMTPException("the server offers no TLS: links would be readable on the way")
            if self.user is not None:
                smtp.login(self.user, self.password or "")
            smtp.send_message(message, to_addrs=[to])


class Mailer:
    """Sends mails one after the other.

    Args:
        server: see `SmtpServer.parse`.
        sender: the address in From.

    Raises:
        SettingsError: the server or the sender is malformed.
    """

    def __init__(self, server: str, sender: str) -> None:
        self._server = SmtpServer.parse(server)
        self._sender = _address(sender)
        if self._sender is None:
            raise SettingsError("mail_from: not an e-mail address such as rerank@example.org.")
        self._jobs: Queue[Callable[[], object] | None] = Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def later(self, job: Callable[[], object]) -> None:
        """Runs a job on the mail thread, so that its duration reveals nothing to a caller."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rerankd-mail", daemon=True)
                self._thread.start()
        try:
            self._jobs.put_nowait(job)
        except Full:
            logger.error("A mail is dropped: %d wait for the SMTP server", MAX_WAITING)

    def send(self, to: str, subject: str, text: str) -> bool:
        """Sends one mail now. Logs a failure, without the address; returns whether the server took the mail.

        Args:
            subject: one line.
        """
        recipient = _address(to)
        if recipient is None:
            logger.warning("An e-mail address cannot be mailed to: it has characters that SMTP does not carry")
            return False
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = self._sender, recipient, subject
        message["Date"], message["Message-ID"] = localtime(), make_msgid(domain="rerankd.invalid")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        try:
            self._server.send(message, recipient.addr_spec)
        except (OSError, smtplib.SMTPException) as error:
            reason = type(error).__name__ if isinstance(error, smtplib.SMTPRecipientsRefused) else error
            logger.error("A mail cannot be sent: %s", reason)
            return False
        return True

    def close(self) -> None:
        """Waits for the mails that wait."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                logger.exception("A mail cannot be written: this is a bug, or the database does not answer")


def _address(text: str) -> Address | None:
    """None for a text that is not a plain address."""
    return Address(addr_spec=text) if ADDRESS.fullmatch(text) and ".." not in text else None
