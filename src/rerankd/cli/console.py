"""Standard output and error of every command: any encoding, a closed pipe, a full disk."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from rich.console import Console

PIPE_WIDTH = 120
"""Columns of a table that goes to a pipe."""

BROKEN_PIPE_STATUS = 128 + 13
"""The status that a shell gives a program ended by SIGPIPE."""

_OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class OutputConsole(Console):
    """A rich console that leaves a broken pipe to `ending_quietly`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output_console(pipe_width: int = PIPE_WIDTH) -> OutputConsole:
    """For tables on standard output.

    Args:
        pipe_width: columns without a terminal and without COLUMNS.
    """
    width = shutil.get_terminal_size((pipe_width, 0)).columns  # rich takes 80 columns for a dumb terminal
    return OutputConsole(width=width, highlight=False)


def error_console() -> OutputConsole:
    """For tables on standard error."""
    return OutputConsole(stderr=True, highlight=False)


def can_print(characters: str) -> bool:
    """Whether standard output can encode these characters."""
    try:
        characters.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """A text of the same length with `?` for characters that standard output cannot encode."""
    encoding = _encoding()
    return text.encode(encoding, "replace").decode(encoding)


@contextmanager
def ending_quietly(command: str) -> Iterator[None]:
    """Keeps output errors of a command from becoming tracebacks.

    Characters that the encoding lacks are written as escapes. A closed pipe ends the command silently, a full disk
    with one line.

    Raises:
        SystemExit: the output could not be written.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # there is none, or it is not a file
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _give_up(BROKEN_PIPE_STATUS)
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        with suppress(OSError):
            print(f"{command}: the output cannot be written: {error.strerror}.", file=sys.stderr)
        _give_up(1)


def _give_up(status: int) -> NoReturn:
    """Redirects stdout and stderr to nowhere, since Python flushes their buffers again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    raise SystemExit(status)


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"
