"""The public index of a folder's files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, get_args

from rerankd.errors import InvalidRequest
from rerankd.files.folders import LeftOut, Selection, files_in, fitting
from rerankd.files.lines import lines_of
from rerankd.runs.collection import corpus_in
from rerankd.search.hit import Hit
from rerankd.search.made_by import MadeBy, made_by
from rerankd.search.records import Corpora
from rerankd.search.stored import StoredIndex, Update
from rerankd.user_folders import cache_folder

if TYPE_CHECKING:
    from rerankd.search.dense import Asked, DenseStage  # needs numpy
    from rerankd.search.embedding import Embeds

First = Literal["bm25", "dense", "hybrid"]
"""The first stage: by words, by the vectors of an embedder, or both by reciprocal rank fusion."""

MAX_NAMED = 5
"""Files in a note."""


class Index:
    """The text files of a folder, or the documents of a corpus, found by their words, by vectors or by both.

        index = Index("docs")  # or Index("docs", first="hybrid")
        hits = index.search("how are keys rotated?", depth=50)
        ranking = reranker.rank("how are keys rotated?", [hit.document for hit in hits])

    A new object reads the files that are new or changed since the index was made; `update` reads them again. Hidden
    files, what a .gitignore names and generated files are left out.

    Args:
        path: a folder, or one file. The records of JSONL and Parquet files are documents with their id, title and text;
            so are the lines of a file `docid⇥text` (MS MARCO). Of a test collection (BEIR) the corpus is read.
        folder: where the index is kept; None for one in the user's cache, for each path and choice of files.
        include, exclude: patterns of a .gitignore: only such files, no such files.
        max_bytes: of a text file; PDF and Office files may have 50 MB.
        ignoring: leave out what a .gitignore names, and generated files.
        field: of the records of JSONL and Parquet files that holds their text; None for the first known one.
        first: how `search` finds; `dense` and `hybrid` also make the vectors of all parts.
        embedder: an `Embedder`, or a model for one; None: the one that made the vectors of the index, else the embedded
            model. An index has the vectors of one embedder.
        rebuild: remove the index first.
        progress: gets the numbers of an update while it runs.

    Attributes:
        last_update: what the last update did.

    Raises:
        InvalidRequest: there is no such path, the index cannot be written, another process updates it, or another
            embedder made its vectors.
        MissingExtra: a package is not installed.
        ModelError: the embedder cannot be loaded.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        folder: str | os.PathLike[str] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        max_bytes: int = 1_000_000,
        ignoring: bool = True,
        field: str | None = None,
        first: First = "bm25",
        embedder: Asked = None,
        rebuild: bool = False,
        progress: Callable[[Update], None] = lambda update: None,
    ) -> None:
        self._path: Path | None = Path(path)
        if not self._path.exists():
            raise InvalidRequest(f"There is no {self._path}.")
        self._selection = Selection(include, exclude, max_bytes, ignoring, converting=True)
        self._field = field
        self._folder = Path(folder) if folder is not None else _default_folder(self._path, self._selection, field)
        self._first, self._asked = _checked(first), embedder
        if rebuild and self._folder.exists():
            StoredIndex(self._folder)  # refuses to remove a folder that is not an index
            if first != "bm25":
                self._asked = _loaded(self._folder, embedder)  # before anything is lost
            shutil.rmtree(self._folder)
        self._stored = StoredIndex(self._folder)
        self._dense: DenseStage | None = None
        self._lock = Lock()
        self.last_update = self.update(progress)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, first: First = "bm25", embedder: Asked = None) -> Index:
        """An index that `rerankd index` keeps in a folder. It sees each later update, and reads no file.

        Args:
            first, embedder: see `Index`; the embedder loads at the first search that needs it, or by `load_embedder`.

        Raises:
            InvalidRequest: the folder holds no index.
            MissingExtra: tantivy is not installed.
        """
        index = cls.__new__(cls)
        index._path, index._folder, index.last_update = None, Path(folder), Update()
        index._stored = StoredIndex(index._folder, make=False)
        index._first, index._asked, index._dense, index._lock = _checked(first), embedder, None, Lock()
        return index

    def update(self, progress: Callable[[Update], None] = lambda update: None) -> Update:
        """Reads the files that are new or changed, and forgets those that are gone.

        Raises:
            InvalidRequest: it was made by `open`, the index cannot be written, or another process updates it.
        """
        if self._path is None:
            raise InvalidRequest("An index that was opened without its files cannot be updated.")
        if not self._path.exists():
            raise InvalidRequest(f"There is no {self._path}.")
        path = self._path.resolve()
        named = corpus_in(path) if path.is_dir() else [path]
        left_out, corpora = LeftOut(), Corpora(self._field, named)
        files = self._files(path, named, left_out)
        if self._first == "bm25":
            update, num_cut = self._stored.update(files, lines_of, progress, corpora=corpora), 0
        else:
            with closing(self._vectors(make=True).embedding()) as embedding:
                update = self._stored.update(files, lines_of, progress, embedding, corpora)
            num_cut = embedding.num_cut
        update.notes = (*_notes(update, left_out, num_cut), *corpora.notes())
        self.last_update = update
        return update

    def search(
        self,
        query: str,
        depth: int = 100,
        *,
        first: First | None = None,
        instruct: str | None = None,
        only: Sequence[str] = (),
    ) -> list[Hit]:
        """The parts that the first stage finds, best first; equal scores by path and line.

        Args:
            query: a question or words, in any language.
            depth: the most parts.
            first: None for that of the index. `bm25`: parts that share words with the query. `dense`: those whose
                vectors are nearest to its vector, by cosine. `hybrid`: both, by the sum of 1 / (60 + rank).
            instruct: the task, for embedders that read one; None for their default.
            only: patterns of a .gitignore: search only such files of the index, `docs/` or `*.md`; none for all.

        Raises:
            InvalidRequest: the index has no vectors, another embedder made them, or a pattern is invalid.
            ModelError: the embedder cannot be loaded.
            InferenceError: the embedder failed.
        """
        first = self._first if first is None else _checked(first)
        dense = None if first == "bm25" else self._vectors()
        if self._path is None:
            self._stored.reload()
        paths = fitting(only, self._stored.paths()) if only else None
        if dense is None:
            return self._stored.search(query, depth, paths)
        near = dense.search(query, depth, instruct, None if paths is None else set(paths))
        if first == "dense":
            return near
        from rerankd.search.dense import together

        return together(self._stored.search(query, depth, paths), near)[:depth]

    def load_embedder(self) -> str:
        """Loads the embedder of the vectors now, not at the first search that needs it; returns its name.

        Raises:
            InvalidRequest, ModelError: see `search`.
            MissingExtra: a package that it needs is not installed.
        """
        return self._vectors().embedder.name

    @property
    def made_by(self) -> MadeBy | None:
        """The embedder that made the vectors of the index; None: it has none."""
        return made_by(self._folder)

    @property
    def has_all_vectors(self) -> bool:
        """Whether each part has its vector. An update with `first="bm25"` makes none."""
        made = self.made_by
        return made is not None and made.covers == self._stored.state

    def _vectors(self, *, make: bool = False) -> DenseStage:
        """Loads the embedder at the first call."""
        if not make and self.made_by is None:
            raise InvalidRequest(
                f"The index in {self._folder} has no vectors: rerankd index PATH --index {self._folder} --first hybrid"
            )
        with self._lock:
            if self._dense is None or not self._dense.fits(self.made_by):
                from rerankd.search.dense import DenseStage

                self._dense = DenseStage(self._folder, self._stored, self._asked)
            return self._dense

    def __len__(self) -> int:
        """The number of parts and files."""
        return len(self._stored)

    def _files(self, path: Path, named: Sequence[Path], left_out: LeftOut) -> Iterator[tuple[str, Path]]:
        """Name below the path, and place: of a test collection the corpus alone, of any other folder every file."""
        if not path.is_dir():
            yield path.name, path
            return
        for file in named or files_in(path, self._selection, left_out):
            yield file.relative_to(path).as_posix(), file


def _notes(update: Update, left_out: LeftOut, num_cut: int) -> Iterator[str]:
    """Sentences about what is not in the index."""
    if num_cut:
        yield f"{num_cut:,} parts are longer than the embedder reads: their vectors miss the ends"
    if str(left_out):
        yield str(left_out)
    reasons = Counter(_reason(name, why) for name, why in update.skipped.items())
    for reason in reasons:
        names = [name for name, why in update.skipped.items() if _reason(name, why) == reason]
        more = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
        yield f"left out: {', '.join(names[:MAX_NAMED])}{more}: {reason}"


def _reason(name: str, why: str) -> str:
    """Without what differs between the files of one kind."""
    before, _, after = why.partition(f"{name} ")
    return (after if before.endswith(os.sep) or not before else why).rstrip(".")


def _checked(first: First) -> First:
    if first not in get_args(First):
        raise InvalidRequest(f"first is {first!r}; it may be {', '.join(get_args(First))}.")
    return first


def _loaded(folder: Path, asked: Asked) -> Embeds:
    from rerankd.search.dense import embedder_of

    return embedder_of(made_by(folder), asked)


def _default_folder(path: Path, selection: Selection, field: str | None) -> Path:
    chosen = json.dumps([str(path.resolve()), list(selection.include), list(selection.exclude), selection.max_bytes])
    key = hashlib.sha256(f"{chosen}{selection.ignoring}{field or ''}".encode()).hexdigest()[:16]
    return cache_folder() / "search" / key
