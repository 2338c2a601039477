"""A BM25 index of files, kept on disk and updated (tantivy; k1 1.2, b 0.75).

Each file is one entry with its size and time, and one entry a part. A changed file is deleted and added in one commit,
so the list of files and the parts cannot disagree, whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.search.parts import PART_CHARS, parts_of
from rerankd.search.tokens import VERSION, tokens_of

HEAP_BYTES = 64_000_000
FORMAT = f"{VERSION}.{PART_CHARS}"
"""What an index of other tokens or other parts differs in."""

Read = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class Hit:
    """A part that was found.

    Attributes:
        path: of the file, as it was given.
        first, last: lines, from 1.
        score: BM25's, above 0.
    """

    path: str
    first: int
    last: int
    text: str
    score: float


@dataclass
class Update:
    """What an update did, in files."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    unread: int = 0


class Index:
    """An index in a folder, made if there is none.

    Raises:
        InvalidRequest: the folder cannot be written or holds something else.
        MissingExtra: tantivy is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._tantivy = _library()
        self._folder = folder / FORMAT
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._index = self._tantivy.Index(self._schema(), path=str(self._folder))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The index in {folder} cannot be opened: {error}") from None

    def _schema(self) -> Any:
        fields = self._tantivy.SchemaBuilder()
        fields.add_text_field("tokens", tokenizer_name="whitespace", index_option="freq")
        for name in ("path", "kind"):
            fields.add_text_field(name, stored=True, tokenizer_name="raw", index_option="basic")
        for name in ("text", "state"):
            fields.add_bytes_field(name, stored=True)
        for name in ("first", "last"):
            fields.add_unsigned_field(name, stored=True)
        return fields.build()

    def update(
        self, files: Iterable[Path], read: Read, report: Callable[[Update], None] = lambda update: None
    ) -> Update:
        """Makes the index hold exactly these files. A file of the same size and time is not opened.

        Args:
            read: a file's text; raises InvalidRequest for one that has none.

        Raises:
            InvalidRequest: another process updates this index, or the disk is full.
        """
        update, known = Update(), self._known()
        try:
            writer = self._index.writer(HEAP_BYTES, 1)
        except ValueError as error:
            raise InvalidRequest(f"Another process updates the index in {self._folder}: {error}") from None
        try:
            for path in files:
                self._take(writer, path, known, read, update)
                report(update)
            for name in known:
                writer.delete_documents_by_term("path", name)
                update.removed += 1
            if update.added or update.changed or update.removed:
                writer.commit()
            writer.wait_merging_threads()
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The index in {self._folder} cannot be written: {error}") from None
        self._index.reload()
        return update

    def _take(self, writer: Any, path: Path, known: dict[str, str], read: Read, update: Update) -> None:
        name, status = str(path), path.stat()
        stamp, before = f"{status.st_size} {status.st_mtime_ns}", known.pop(name, None)
        if before == stamp:
            update.kept += 1
            return
        try:
            content = read(path)
        except InvalidRequest:
            update.unread += 1
            content = ""  # known, so that it is not opened again
        writer.delete_documents_by_term("path", name)
        self._add(writer, path=name, kind="file", state=stamp.encode())
        for part in parts_of(content):
            text, tokens = part.text.encode(errors="replace"), " ".join(tokens_of(part.text))
            self._add(writer, path=name, kind="part", text=text, tokens=tokens, first=part.first, last=part.last)
        update.changed += before is not None
        update.added += before is None

    def _add(self, writer: Any, **values: str | bytes | int) -> None:
        document = self._tantivy.Document()
        add = {int: document.add_unsigned, bytes: document.add_bytes, str: document.add_text}
        for name, value in values.items():
            add[type(value)](name, value)
        writer.add_document(document)

    def _known(self) -> dict[str, str]:
        """Path → state of every file in the index."""
        searcher = self._index.searcher()
        if not searcher.num_docs:
            return {}
        query = self._tantivy.Query.term_query(self._index.schema, "kind", "file", "basic")
        hits = searcher.search(query, limit=searcher.num_docs).hits
        documents = (searcher.doc(address) for _, address in hits)
        return {document.get_first("path"): document.get_first("state").decode() for document in documents}

    def search(self, query: str, depth: int = 100) -> list[Hit]:
        """The parts that share tokens with the query, best first, at most `depth`; equal scores by path and line."""
        tokens = dict.fromkeys(tokens_of(query))
        if not tokens or depth < 1:
            return []
        library, schema = self._tantivy, self._index.schema
        terms = [(library.Occur.Should, library.Query.term_query(schema, "tokens", one, "freq")) for one in tokens]
        searcher = self._index.searcher()
        found = searcher.search(library.Query.boolean_query(terms), limit=depth).hits
        return sorted(_hits(searcher, found), key=lambda hit: (-hit.score, hit.path, hit.first))

    def __len__(self) -> int:
        """Parts and files."""
        return int(self._index.searcher().num_docs)


def _hits(searcher: Any, found: Iterable[tuple[float, Any]]) -> Iterator[Hit]:
    for score, address in found:
        document = searcher.doc(address)
        path, text = document.get_first("path"), document.get_first("text").decode()
        yield Hit(path, document.get_first("first"), document.get_first("last"), text, float(score))


def _library() -> Any:
    try:
        import tantivy
    except ImportError as error:
        raise MissingExtra("Search", error, "rank the files with rerankd rank", "search") from None
    return tantivy
