"""The public index of a folder's files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rerankd.errors import InvalidRequest
from rerankd.files.folders import LeftOut, Selection, files_in
from rerankd.files.lines import lines_of
from rerankd.search.stored import Hit, StoredIndex, Update
from rerankd.user_folders import cache_folder

MAX_NAMED = 5
"""Files in a note."""


class Index:
    """The text files of a folder, found by their words: the first stage before a reranker.

        index = Index("docs")
        hits = index.search("how are keys rotated?", depth=50)
        ranking = reranker.rank("how are keys rotated?", [hit.document for hit in hits])

    A new object reads the files that are new or changed since the index was made; `update` reads them again. Hidden
    files, what a .gitignore names and generated files are left out.

    Args:
        path: a folder, or one file.
        folder: where the index is kept; None for one in the user's cache, for each path and choice of files.
        include, exclude: patterns of a .gitignore: only such files, no such files.
        max_bytes: of a text file; PDF and Office files may have 50 MB.
        ignoring: leave out what a .gitignore names, and generated files.
        rebuild: remove the index first.
        progress: gets the numbers of an update while it runs.

    Attributes:
        last_update: what the last update did.

    Raises:
        InvalidRequest: there is no such path, the index cannot be written, or another process updates it.
        MissingExtra: tantivy is not installed.
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
        rebuild: bool = False,
        progress: Callable[[Update], None] = lambda update: None,
    ) -> None:
        self._path: Path | None = Path(path)
        if not self._path.exists():
            raise InvalidRequest(f"There is no {self._path}.")
        self._selection = Selection(include, exclude, max_bytes, ignoring, converting=True)
        kept = Path(folder) if folder is not None else _default_folder(self._path, self._selection)
        if rebuild and kept.exists():
            StoredIndex(kept)  # refuses to remove a folder that is no index
            shutil.rmtree(kept)
        self._stored = StoredIndex(kept)
        self.last_update = self.update(progress)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Index:
        """An index that `rerankd index` keeps in a folder. It sees each later update, and reads no file.

        Raises:
            InvalidRequest: the folder holds no index.
            MissingExtra: tantivy is not installed.
        """
        index = cls.__new__(cls)
        index._path, index._stored, index.last_update = None, StoredIndex(Path(folder), make=False), Update()
        return index

    def update(self, progress: Callable[[Update], None] = lambda update: None) -> Update:
        """Reads the files that are new or changed, and forgets those that are gone.

        Raises:
            InvalidRequest: it was made by `open`, the index cannot be written, or another process updates it.
        """
        if self._path is None:
            raise InvalidRequest("An index that was opened without its files cannot be updated.")
        left_out = LeftOut()
        self.last_update = self._stored.update(self._files(self._path.resolve(), left_out), lines_of, progress)
        self.last_update.notes = tuple(_notes(self.last_update, left_out))
        return self.last_update

    def search(self, query: str, depth: int = 100) -> list[Hit]:
        """The parts that share words with the query, best first by BM25; equal scores by path and line.

        Args:
            query: a question or words, in any language.
            depth: the most parts.
        """
        if self._path is None:
            self._stored.reload()
        return self._stored.search(query, depth)

    def __len__(self) -> int:
        """The number of parts and files."""
        return len(self._stored)

    def _files(self, path: Path, left_out: LeftOut) -> Iterator[tuple[str, Path]]:
        """Name below the path, and place."""
        if not path.is_dir():
            yield path.name, path
            return
        for file in files_in(path, self._selection, left_out):
            yield file.relative_to(path).as_posix(), file


def _notes(update: Update, left_out: LeftOut) -> Iterator[str]:
    """Sentences about the files that are not in the index."""
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


def _default_folder(path: Path, selection: Selection) -> Path:
    chosen = json.dumps([str(path.resolve()), list(selection.include), list(selection.exclude), selection.max_bytes])
    key = hashlib.sha256(f"{chosen}{selection.ignoring}".encode()).hexdigest()[:16]
    return cache_folder() / "search" / key
