"""A password that is typed on the terminal, or read from stdin."""

from __future__ import annotations

import sys
from getpass import getpass

from rerankd.accounts.passwords import PASSWORD_LENGTH, check_password_length
from rerankd.errors import InvalidRequest


def read_password(from_stdin: bool) -> str:
    """The password: the first line of stdin, or typed twice on the terminal."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidRequest("There is no terminal to ask for the password on: pass --password-stdin.")
    print(f"It must have from {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters.", file=sys.stderr)
    try:
        password = getpass("Password: ")
        check_password_length(password)
        again = getpass("The same again: ")
    except EOFError:
        raise InvalidRequest("No password was typed.") from None
    if again != password:
        raise InvalidRequest("The two passwords differ.")
    return password
