"""Mail through a real SMTP server on this machine."""

from __future__ import annotations

import pytest

from rerankd.errors import SettingsError
from rerankd.mail import Mailer, SmtpServer
from support.ports import free_port
from support.smtp import smtp_server


def test_a_mail_arrives_as_it_was_written() -> None:
    with smtp_server() as received:
        assert Mailer(received.url, "rerank@example.org").send("ann@example.com", "A subject: ü", "A text: é\n\n.\nEnd")
    [(recipients, mail)] = received.mails
    assert recipients == ["ann@example.com"]
    assert (mail["from"], mail["to"], mail["subject"]) == ("rerank@example.org", "ann@example.com", "A subject: ü")
    assert mail["auto-submitted"] == "auto-generated" and mail["date"] and mail["message-id"]
    assert mail.get_content().splitlines() == ["A text: é", "", ".", "End"]


@pytest.mark.parametrize(
    "address",
    [
        "ann@example.com\r\nBcc: eve@example.com",
        "ann@example.com\nRCPT TO:<eve@example.com>",
        "ann@example.com,eve@example.com",
        "ann@example.com>,<eve@example.com",
        '"ann eve"@example.com',
        "<eve@example.com>",
        "ann@exa\0mple.com",
        "ann@[127.0.0.1]",
        "ännchen@example.com",
        "ann@example..com",
        "@example.com",
        "",
    ],
)
def test_an_address_never_becomes_a_header_or_a_second_recipient(address: str) -> None:
    with smtp_server() as received:
        assert not Mailer(received.url, "rerank@example.org").send(address, "subject", "text")
    assert received.mails == []


def test_a_subject_is_one_line() -> None:
    with smtp_server() as received, pytest.raises(ValueError, match=r"linefeed|carriage"):
        Mailer(received.url, "rerank@example.org").send("ann@example.com", "a\r\nBcc: eve@example.com", "text")
    assert received.mails == []


def test_a_failure_is_logged_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    with smtp_server() as received:
        received.refuse.add("ann@example.com")
        assert not Mailer(received.url, "rerank@example.org").send("ann@example.com", "subject", "text")
    assert not Mailer(f"smtp://127.0.0.1:{free_port()}", "rerank@example.org").send("ann@example.com", "s", "t")
    assert len(caplog.records) == 2 and "ann@" not in caplog.text


def test_later_mails_are_sent_in_order_and_a_bug_ends_none(caplog: pytest.LogCaptureFixture) -> None:
    with smtp_server() as received:
        mailer = Mailer(received.url, "rerank@example.org")
        for number in range(3):
            mailer.later(lambda number=number: mailer.send("ann@example.com", str(number), ""))  # type: ignore[misc]
            mailer.later(lambda: 1 // 0)
        mailer.close()
    assert [mail["subject"] for _, mail in received.mails] == ["0", "1", "2"]
    assert caplog.text.count("ZeroDivisionError") == 3


def test_addresses_of_servers() -> None:
    assert SmtpServer.parse("smtp://a%40b:p%2Fw@mail.example") == SmtpServer("mail.example", 587, False, "a@b", "p/w")
    assert SmtpServer.parse("smtps://mail.example:1465").has_tls and SmtpServer.parse("smtps://[::1]").is_this_machine
    assert not SmtpServer.parse("smtp://mail.example").is_this_machine
    for wrong in ("http://mail.example", "smtp://", "smtp://host:port", "smtp://host/path", "mail.example"):
        with pytest.raises(SettingsError, match="smtp: not an address"):
            SmtpServer.parse(wrong)
    with pytest.raises(SettingsError, match="mail_from"):
        Mailer("smtp://mail.example", "Rerank <rerank@example.org>")
