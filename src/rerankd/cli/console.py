"""Standard output and error as every command uses them: any encoding, a reader that leaves, a disk that is full."""

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
"""Columns of a table that is not printed on a terminal."""

BROKEN_PIPE_STATUS = 128 + 13
"""Of a program that SIGPIPE ended, as a shell counts it."""

_OUTPUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class OutputConsole(Console):
    """A console of rich's that leaves a broken pipe to `ending_quietly`."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def output_console(pipe_width: int = PIPE_WIDTH) -> OutputConsole:
    """For tables on standard output. pipe_width: where it is no terminal and COLUMNS is not set."""
    width = shutil.get_terminal_size((pipe_width, 0)).columns  # Rich takes a dumb terminal for one of 80 columns
    return OutputConsole(width=width, highlight=False)


def error_console() -> OutputConsole:
    """For tables on standard error."""
    return OutputConsole(stderr=True, highlight=False)


def can_print(characters: str) -> bool:
    """Whether standard output's encoding has these."""
    try:
        characters.encode(_encoding())
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """A text with `?` for what standard output's encoding lacks: as many characters as before."""
    encoding = _encoding()
    return text.encode(encoding, "replace").decode(encoding)


@contextmanager
def ending_quietly(command: str) -> Iterator[None]:
    """Lets a command write what it likes: nothing it prints raises a traceback.

    A character that the encoding lacks is written as an escape. Where the reader of a pipe has left, the command ends
    without a word; where the disk is full, with one line.

    Raises:
        SystemExit: the output could not be written.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # there is none, or it is no file
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
    """Python writes what is left in its buffers once more when it ends: let it go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    raise SystemExit(status)


def _encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"
