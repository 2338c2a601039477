"""Makes the vectors of an update's texts before the update is committed: so every part that can be found has one.

What was embedded stays when the process is killed, and the next update goes on behind it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Protocol

from rerankd.search.keys import key_of
from rerankd.search.vectors import Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BATCH = 256
"""Texts between two writes to the disk."""


class Embeds(Protocol):
    """What an index needs of an embedder; `rerankd.Embedder` is one. See there."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def num_truncated(self) -> int: ...

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]: ...

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


class Embedding:
    """The texts of one update. They wait on disk until their number is known."""

    def __init__(self, vectors: Vectors, embedder: Embeds) -> None:
        self._vectors, self._embedder = vectors, embedder
        self._known: set[str] | None = None
        self._waiting: IO[bytes] | None = None
        self._number = 0
        self._cut_before = embedder.num_truncated

    @property
    def num_cut(self) -> int:
        """Texts of which the embedder has not read the end."""
        return self._embedder.num_truncated - self._cut_before

    def take(self, text: str) -> None:
        """A text of the index as it will be."""
        if self._known is None:  # now nobody else adds any
            self._vectors.reload()
            self._known = self._vectors.keys()
        key = key_of(text)
        if key in self._known:
            return
        self._known.add(key)
        if self._waiting is None:
            self._waiting = tempfile.TemporaryFile()  # closed by `close`
        self._waiting.write(json.dumps([key, text]).encode() + b"\n")
        self._number += 1

    def run(self) -> Iterator[tuple[int, int]]:
        """Embeds what waits, and says after each batch how many texts are done, and of how many.

        Raises:
            OSError: the vectors cannot be written.
        """
        done = 0
        for batch in _batches(self._texts()):
            self._vectors.add([key for key, _ in batch], self._embedder.documents([text for _, text in batch]))
            done += len(batch)
            yield done, self._number
        self._vectors.reload()

    def is_covered(self, state: str) -> bool:
        """Whether all parts of a state of the index have vectors."""
        return self._vectors.made.covers == state

    def finish(self, state: str, num_parts: int, keys: Callable[[], Collection[str]]) -> None:
        """Records that all parts of a state have vectors, and removes vectors once most have no part.

        Args:
            num_parts: of the index.
            keys: of all parts; they are asked for only then.

        Raises:
            OSError: the disk is full.
        """
        if self.is_covered(state):
            return
        if self._vectors.is_sparse(num_parts):
            self._vectors.keep_only(keys())
        self._vectors.cover(state)

    def close(self) -> None:
        """Forgets what waits."""
        if self._waiting is not None:
            self._waiting.close()

    def _texts(self) -> Iterator[tuple[str, str]]:
        if self._waiting is not None:
            self._waiting.seek(0)
            yield from (tuple(json.loads(line)) for line in self._waiting)


def _batches(texts: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for one in texts:
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
