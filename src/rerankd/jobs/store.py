"""The texts of a job's documents, read once from a corpus of any size and kept in the job's folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from rerankd.errors import InvalidRequest

SHOWN = 3


class Documents:
    """Texts by document id, in a SQLite file.

    Args:
        path: of a file that `build` wrote.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def texts(self, ids: Sequence[str]) -> list[str | None]:
        """The text of each id, None for one that the corpus lacks."""
        return [self._text(doc_id) for doc_id in ids]

    def characters(self) -> dict[str, int]:
        """The length of every text."""
        return dict(self._database.execute("SELECT id, length(text) FROM documents"))

    def _text(self, doc_id: str) -> str | None:
        row = self._database.execute("SELECT text FROM documents WHERE id = ?", (doc_id,)).fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        self._database.close()


def build(path: Path, documents: Iterable[tuple[str, str]], wanted: set[str], skip_missing: bool) -> int:
    """Writes the wanted documents; the file has its name only when it is whole.

    Args:
        documents: (id, text).

    Returns:
        how many wanted documents are missing.

    Raises:
        InvalidRequest: documents are missing and `skip_missing` is not set, one has two texts, or there is no space.
    """
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        database = sqlite3.connect(unfinished)
        try:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("CREATE TABLE documents (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")
            _insert(database, documents)
            database.commit()
            found = {row[0] for row in database.execute("SELECT id FROM documents")}
        finally:
            database.close()
    except sqlite3.Error as error:
        unfinished.unlink(missing_ok=True)
        raise InvalidRequest(f"The documents cannot be kept in {path.parent}: {error}.") from error
    missing = sorted(wanted - found)
    if missing and not skip_missing:
        unfinished.unlink()
        raise InvalidRequest(
            f"The corpus lacks {len(missing):,} of {len(wanted):,} documents of the run: "
            f"{', '.join(missing[:SHOWN])}{' …' if len(missing) > SHOWN else ''}. Is it the right corpus? "
            "--skip-missing leaves them out."
        )
    unfinished.replace(path)
    return len(missing)


def _insert(database: sqlite3.Connection, documents: Iterable[tuple[str, str]]) -> None:
    for doc_id, text in documents:
        added = database.execute("INSERT OR IGNORE INTO documents VALUES (?, ?)", (doc_id, text)).rowcount
        if not added:
            [before] = database.execute("SELECT text FROM documents WHERE id = ?", (doc_id,)).fetchone()
            if before != text:
                raise InvalidRequest(f"The corpus has document {doc_id!r} twice, with different texts.")
