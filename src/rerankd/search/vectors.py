"""The vectors of an index on disk: one for each text, found by the hash of the text. Knows no part and no model.

Two files only grow: the keys, and the vectors in float32, which are mapped. A vector is on disk before its key, and
only whole pairs count, so a process may be killed at any moment. Nothing is removed from the files; once more than half
of the vectors belong to no text of the index, they are written again under the next generation's name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rerankd.search.keys import KEY_BYTES
from rerankd.search.made_by import FOLDER, MadeBy, made_by, record

BLOCK_ROWS = 8192
"""Rows of one product: 16 MB for 512 dimensions, so that scores of a large index need little memory."""

FIRST_ROWS = 1024
"""The best rows that are sorted first."""

SPARE = 1000
"""Rows without a text that are never worth the work of removing them."""


class _Held(NamedTuple):
    """What a reader sees. mark: changes with the files; keys: (number, KEY_BYTES); rows: (number, dimensions)."""

    mark: tuple[int, int, int]
    keys: NDArray[np.uint8]
    rows: NDArray[np.float32]


class Vectors:
    """The vectors in the folder of an index. One process at a time adds to them; others may read meanwhile.

    Args:
        made: the embedder; it is recorded where none is.
    """

    def __init__(self, index: Path, made: MadeBy) -> None:
        self._index = index
        if made_by(index) is None:
            record(index, made)
        self._held = _Held((0, 0, 0), np.empty((0, KEY_BYTES), np.uint8), np.empty((0, made.dimensions), np.float32))
        self.reload()

    @property
    def made(self) -> MadeBy:
        """The record."""
        made = made_by(self._index)
        assert made is not None, "This is a bug: the record is gone."
        return made

    def __len__(self) -> int:
        """The number of vectors, those without a text included."""
        return len(self._held.keys)

    def keys(self) -> set[str]:
        """Of all vectors."""
        return {bytes(key).hex() for key in self._held.keys}

    def reload(self) -> None:
        """Sees what another process added."""
        made = self.made
        keys, rows = self._files(made.generation)
        number = _whole(keys, rows, made.dimensions)
        mark = (made.generation, number, rows.stat().st_ino if number else 0)
        if mark == self._held.mark:
            return
        if number == 0:  # an empty file cannot be mapped
            self._held = _Held(mark, self._held.keys[:0], np.empty((0, made.dimensions), np.float32))
            return
        read = np.fromfile(keys, np.uint8, number * KEY_BYTES).reshape(number, KEY_BYTES)
        mapped = np.memmap(rows, np.float32, "r", shape=(number, made.dimensions))
        self._held = _Held(mark, read, mapped)

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Appends vectors of texts that have none, (len(keys), dimensions). They are on disk when it returns.

        Raises:
            OSError: the disk is full, or the files cannot be written.
        """
        made = self.made
        key_file, row_file = self._files(made.generation)
        number = _whole(key_file, row_file, made.dimensions)
        rows = np.ascontiguousarray(vectors, np.float32)
        assert rows.shape == (len(keys), made.dimensions), "This is a bug: vectors of another shape."
        _append(row_file, number * made.dimensions * rows.itemsize, rows.tobytes())
        _append(key_file, number * KEY_BYTES, b"".join(map(bytes.fromhex, keys)))

    def nearest(self, query: NDArray[np.float32]) -> Iterator[tuple[str, float]]:
        """Key and cosine of all vectors, nearest first.

        Args:
            query: (dimensions,) of length 1.
        """
        held = self._held
        rows, keys = held.rows, held.keys
        scores = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            np.dot(np.asarray(block), query, out=scores[start : start + len(block)])
        for place in _best_first(scores):
            yield bytes(keys[place]).hex(), float(scores[place])

    def cover(self, state: str) -> None:
        """Records that all parts of a state of the index have vectors."""
        record(self._index, self.made.covering(state))

    def is_sparse(self, num_texts: int) -> bool:
        """Whether most vectors belong to none of the index's `num_texts` texts."""
        self.reload()
        return len(self) > 2 * num_texts + SPARE

    def keep_only(self, live: Collection[str]) -> None:
        """Writes the vectors with these keys to new files, which then are the files.

        Raises:
            OSError: the disk is full.
        """
        self.reload()
        made = self.made
        key_file, row_file = self._files(made.generation + 1)
        places = [place for place, key in enumerate(self._held.keys) if bytes(key).hex() in live]
        _append(row_file, 0, b"")
        for start in range(0, len(places), BLOCK_ROWS):
            some = places[start : start + BLOCK_ROWS]
            end = start * made.dimensions * self._held.rows.itemsize
            _append(row_file, end, np.asarray(self._held.rows[some]).tobytes())
        _append(key_file, 0, self._held.keys[places].tobytes())
        record(self._index, replace(made, generation=made.generation + 1))
        self.reload()
        for path in self._files(made.generation - 1):  # a reader may just open those of this generation
            path.unlink(missing_ok=True)

    def _files(self, generation: int) -> tuple[Path, Path]:
        folder = self._index / FOLDER
        return folder / f"keys-{generation}", folder / f"rows-{generation}"


def _whole(keys: Path, rows: Path, dimensions: int) -> int:
    """The number of vectors that are there with their keys."""
    try:
        sizes = keys.stat().st_size // KEY_BYTES, rows.stat().st_size // (dimensions * np.float32().itemsize)
    except FileNotFoundError:
        return 0
    return min(sizes)


def _append(path: Path, end: int, content: bytes) -> None:
    """Writes behind the first `end` bytes; what stood behind them was not whole."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _best_first(scores: NDArray[np.float32]) -> Iterator[int]:
    """Places by descending score. The first ones are found without sorting all."""
    rest = np.arange(len(scores))
    if len(scores) > 2 * FIRST_ROWS:
        parted = np.argpartition(-scores, FIRST_ROWS)
        first, rest = parted[:FIRST_ROWS], parted[FIRST_ROWS:]
        yield from first[np.argsort(-scores[first], kind="stable")].tolist()
    yield from rest[np.argsort(-scores[rest], kind="stable")].tolist()
