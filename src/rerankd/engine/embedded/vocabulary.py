"""Reads a SentencePiece Unigram vocabulary into a `tokenizers.Tokenizer`. Knows no model.

The file is a protocol buffer: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
This one has an older layout: field 1 contains the pieces, field 3 the normalizer.
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
CHARACTER_MAP = 2  # of the normalizer
VARINT, FIXED_32 = 0, 5  # wire types; the only other type in this file has a length prefix


class Vocabulary:
    """The pieces. log_probabilities: one per id; a control piece has the lowest one."""

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
    """The pieces with their log probabilities, and the table of the normalizer."""
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
    """The number and value of each field. Skips variable-length integers."""
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
    """The integer at a position, and the next position."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
