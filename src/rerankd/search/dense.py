"""The dense first stage: the vectors of an index with the embedder that made them, and fusion with BM25."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from rerankd.embedder import DEFAULT, EmbedderChoice
from rerankd.errors import InvalidRequest
from rerankd.search.embedding import Embedding, Embeds
from rerankd.search.hit import Hit
from rerankd.search.made_by import MadeBy, made_by
from rerankd.search.order import fused
from rerankd.search.stored import StoredIndex
from rerankd.search.vectors import Vectors

Asked = Embeds | EmbedderChoice | str | os.PathLike[str] | None
"""An embedder, how to load one, or the name or folder of a model; None for that of the index."""


class DenseStage:
    """The vectors of an index.

    Args:
        folder: of the index.
        asked: the embedder; None: the one that made the vectors, else the embedded model.

    Raises:
        InvalidRequest: another embedder made the vectors.
        ModelError: the embedder cannot be loaded.
        MissingExtra: a package that it needs is not installed.
    """

    def __init__(self, folder: Path, stored: StoredIndex, asked: Asked) -> None:
        made = made_by(folder)
        self.embedder = embedder_of(made, asked)
        own = MadeBy(self.embedder.name, self.embedder.digest, self.embedder.dimensions)
        if made is not None and (made.digest, made.dimensions) != (own.digest, own.dimensions):
            raise InvalidRequest(
                f"The vectors in {folder} come from {made.embedder} with {made.dimensions} dimensions, not from "
                f"{own.embedder} with {own.dimensions}, as it is now: name the embedder that made them, keep the index "
                "of another one in another folder (--index), or build this one again (--rebuild)."
            )
        self._own, self._stored, self._vectors = own, stored, Vectors(folder, own)

    def fits(self, made: MadeBy | None) -> bool:
        """Whether the embedder is still the one that made the vectors."""
        return made is not None and (made.digest, made.dimensions) == (self._own.digest, self._own.dimensions)

    def embedding(self) -> Embedding:
        """Makes the vectors of an update; close it."""
        return Embedding(self._vectors, self.embedder)

    def search(
        self, query: str, depth: int, instruct: str | None = None, paths: Container[str] | None = None
    ) -> list[Hit]:
        """The parts whose vectors are nearest to that of the query, best first; equal scores by path and line.

        Args:
            paths: of the files that are searched; None: all.
        """
        if depth < 1 or not query.strip():
            return []
        [vector] = self.embedder.queries([query.encode(errors="replace").decode()], instruct)
        if not vector.any():  # the embedder knows nothing of the query
            return []
        self._vectors.reload()
        found: dict[str, list[Hit]] = {}
        number, last = 0, 0.0
        for key, score in self._vectors.nearest(vector):
            if number >= depth and score < last:
                break
            if key in found:
                continue
            if hits := [hit for hit in self._stored.with_key(key, score) if paths is None or hit.path in paths]:
                found[key], last = hits, score
                number += len(hits)
        return sorted((hit for hits in found.values() for hit in hits), key=_place_last)[:depth]


def embedder_of(made: MadeBy | None, asked: Asked) -> Embeds:
    """The embedder that is asked for, else the one that made the vectors, else the embedded model."""
    choice = EmbedderChoice(os.fspath(asked)) if isinstance(asked, (str, os.PathLike)) else asked or EmbedderChoice()
    if not isinstance(choice, EmbedderChoice):
        return choice
    if made is None:
        return choice.load(DEFAULT)
    found = choice.load(made.embedder)
    if choice.dimensions is None and found.digest == made.digest and found.dimensions != made.dimensions:
        found = replace(choice, dimensions=made.dimensions).load(made.embedder)
    return found


def together(*found: Sequence[Hit]) -> list[Hit]:
    """The parts of all first stages by reciprocal rank fusion; equal scores by path and line."""
    hits = {_place(hit): hit for some in found for hit in some}
    scores = fused([list(dict.fromkeys(map(_place, some))) for some in found])
    return sorted((replace(hit, score=scores[place]) for place, hit in hits.items()), key=_place_last)


def _place(hit: Hit) -> tuple[str, int, int, str]:
    return hit.path, hit.first, hit.last, hit.text


def _place_last(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.path, hit.first
