"""Reads tokenizers; tokenizes texts in pieces, without Python's lock, one large piece at a time in the whole process.

An encoding takes a hundred times the memory of its text while it lives, and one text of a megabyte takes seconds:
pieces bound both, and the pieces of several calls take turns. Knows no limit of a call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from tokenizers import Encoding, Tokenizer

from rerankd.errors import CheckpointInvalid

PIECE_CHARS = 65_536
"""Characters of a piece, unless a single text has more."""

PIECE_TEXTS = 64

SMALL_CHARS = 4096
"""Characters. A piece of at most this many does not wait for its turn."""


class Line:
    """A fair lock: threads get it in the order in which they ask for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def __enter__(self) -> None:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket)
            except BaseException:  # interrupted: the others must not wait for it
                self._waiting.remove(ticket)
                self._changed.notify_all()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._waiting.popleft()
            self._changed.notify_all()


_line = Line()


def read_tokenizer(file: Path) -> Tokenizer:
    """A `tokenizer.json`, with neither padding nor truncation switched on. Raises CheckpointInvalid."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointInvalid(f"{file} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def without_added(full: Tokenizer) -> Tokenizer:
    """The same vocabulary without the added tokens: what a user writes can never become a control token."""
    plain = Tokenizer(full.model)
    plain.normalizer = full.normalizer
    plain.pre_tokenizer = full.pre_tokenizer
    return plain


def encodings(tokenizer: Tokenizer, texts: Iterable[str], *, offsets: bool = False) -> Iterator[Encoding]:
    """One encoding for each text, in order, without special tokens.

    Args:
        tokenizer: with neither padding nor truncation switched on.
        offsets: whether the encodings say where in the text each token is; with them they take longer.
    """
    for piece in _pieces(texts):
        yield from _encoded(tokenizer, piece, offsets)


def _pieces(texts: Iterable[str]) -> Iterator[list[str]]:
    piece: list[str] = []
    chars = 0
    for text in texts:
        if piece and (chars + len(text) > PIECE_CHARS or len(piece) == PIECE_TEXTS):
            yield piece
            piece, chars = [], 0
        piece.append(text)
        chars += len(text)
    if piece:
        yield piece


def _encoded(tokenizer: Tokenizer, piece: list[str], offsets: bool) -> list[Encoding]:
    # Also a single text goes through encode_batch: it releases Python's lock, encode does not.
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    if sum(map(len, piece)) <= SMALL_CHARS:
        return list(encode(piece, add_special_tokens=False))
    with _line:
        return list(encode(piece, add_special_tokens=False))
