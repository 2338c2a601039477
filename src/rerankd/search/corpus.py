"""A BM25 index of a corpus: each document whole, found by its id (tantivy; k1 1.2, b 0.75). Holds no text."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.search.tokens import VERSION, tokens_of

HEAP_BYTES = 64_000_000
REPORT_EVERY = 1_000
UNFINISHED = ".index-"
ABANDONED_S = 7 * 24 * 3600.0
IDENTITY = f"bm25, tokens {VERSION}, k1 1.2, b 0.75"
"""The version of the first stage: beside the texts, candidates depend on it."""


class CorpusIndex:
    """An index in a folder that `built` made.

    Raises:
        InvalidRequest: the folder holds something else.
        MissingExtra: tantivy is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._tantivy = _library()
        try:
            self._index = self._tantivy.Index(_schema(self._tantivy), path=str(folder))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The index in {folder} cannot be opened: {error}") from None

    @classmethod
    def built(
        cls, folder: Path, documents: Iterable[tuple[str, str]], report: Callable[[int], None] = lambda done: None
    ) -> CorpusIndex:
        """The index in this folder; where there is none, it is made and appears whole.

        Args:
            documents: (id, text) of the whole corpus, read only to make the index; of two with one id the first counts.
            report: called with the number of documents that are in it.

        Raises:
            InvalidRequest: the folder cannot be written; or what reading the documents raises.
            MissingExtra: tantivy is not installed.
        """
        if folder.exists():
            return cls(folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(folder.parent)
            with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as unfinished:
                made = Path(unfinished, "index")
                made.mkdir()
                cls(made)._fill(documents, report)
                made.rename(folder)
        except (OSError, ValueError) as error:
            if not folder.exists():  # else another process was first
                raise InvalidRequest(f"The index in {folder} cannot be written: {error}") from None
        return cls(folder)

    def _fill(self, documents: Iterable[tuple[str, str]], report: Callable[[int], None]) -> None:
        writer = self._index.writer(HEAP_BYTES, 1)
        try:
            for done, (doc_id, text) in enumerate(documents, 1):
                document = self._tantivy.Document()
                document.add_bytes("id", doc_id.encode(errors="replace"))
                document.add_text("tokens", " ".join(tokens_of(text)))
                writer.add_document(document)
                if done % REPORT_EVERY == 0:
                    report(done)
            writer.commit()
        finally:
            writer.wait_merging_threads()  # they write to the folder, which goes after an error

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """(id, score above 0) of the documents that share a token with the query, at most `depth`.

        The best comes first; equal scores by id, descending, as trec_eval orders a run.
        """
        tokens = dict.fromkeys(tokens_of(query))
        if not tokens:
            return []
        library, schema = self._tantivy, self._index.schema
        terms = [(library.Occur.Should, library.Query.term_query(schema, "tokens", one, "freq")) for one in tokens]
        searcher = self._index.searcher()
        found: dict[str, float] = {}
        for score, address in searcher.search(library.Query.boolean_query(terms), limit=depth).hits:
            found.setdefault(searcher.doc(address).get_first("id").decode(), float(score))
        by_id = sorted(found.items(), reverse=True)
        return sorted(by_id, key=lambda one: -one[1])


def _remove_unfinished(folder: Path) -> None:
    """Removes what processes left that were killed long ago."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # another process was first
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _schema(library: Any) -> Any:
    fields = library.SchemaBuilder()
    fields.add_text_field("tokens", tokenizer_name="whitespace", index_option="freq")
    fields.add_bytes_field("id", stored=True)
    return fields.build()


def _library() -> Any:
    try:
        import tantivy
    except ImportError as error:
        raise MissingExtra("A first stage", error, "pass a run with --run", "search") from None
    return tantivy
