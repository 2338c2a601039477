"""A SentencePiece vocabulary of the Unigram kind as a `tokenizers.Tokenizer`. Knows no model.

Its file is a protocol buffer: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
This one is of an older layout: field 1 the pieces, field 3 the normaliser.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

UNKNOWN, BEGIN, END = 0, 1, 2
SPACE = "▁"

PIECES, NORMALISER = 1, 3  # of the file
TEXT, LOG_PROBABILITY = 1, 2  # of a piece
CHARACTER_MAP = 2  # of the normaliser
VARINT, FIXED_32 = 0, 5  # kinds of field; of the others, only those with a length occur


class Vocabulary:
    """Pieces of words. log_probabilities: of each id; a control piece counts as the rarest."""

    def __init__(self, file: Path) -> None:
        pieces, character_map = _read(file.read_bytes())
        rarest = min(log_probability for _, log_probability in pieces)
        self.log_probabilities = array("d", (log_probability or rarest for _, log_probability in pieces))
        self.space = next(i for i, (piece, _) in enumerate(pieces) if piece == SPACE)
        self.tokenizer = Tokenizer(models.Unigram(pieces, UNKNOWN, byte_fallback=False))
        self.tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Precompiled(character_map),
                normalizers.Strip(),
                normalizers.Replace(Regex(" {2,}"), " "),
            ]
        )
        self.tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
        self.tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")


def _read(data: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """The pieces with their log probabilities, and the normaliser's table."""
    pieces, character_map = [], b""
    for number, value in _fields(data):
        if number == PIECES:
            piece = dict(_fields(value))
            pieces.append((piece[TEXT].decode(), _float(piece.get(LOG_PROBABILITY))))
        elif number == NORMALISER:
            character_map = dict(_fields(value))[CHARACTER_MAP]
    return pieces, character_map


def _float(value: bytes | None) -> float:
    return 0.0 if value is None else float(struct.unpack("<f", value)[0])


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each field's number and value, those of variable-length integers left out."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        length, kind = 4, key & 7
        if kind != FIXED_32:
            length, position = _varint(data, position)
        if kind != VARINT:
            yield key >> 3, data[position : position + length]
            position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The integer at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
