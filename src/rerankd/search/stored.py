"""The index of an `Index` on disk: BM25 over parts of files (tantivy; k1 1.2, b 0.75). Knows no folder of files.

Each file is one entry with its size and time, and one entry a part. A changed file is deleted and added in one commit,
so the list of files and the parts cannot disagree, whatever is killed when. Each part has the key of its text,
which identifies its vector in `vectors.py`. A part that is gone from here is no longer found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.files.lines import Line
from rerankd.runs.texts import Document
from rerankd.search.hit import Hit, document_of
from rerankd.search.keys import key_of
from rerankd.search.parts import PART_CHARS, Part, parts_of
from rerankd.search.records import Corpora, Digests, parts_of_document
from rerankd.search.tokens import VERSION, tokens_of

if TYPE_CHECKING:
    from rerankd.search.embedding import Embedding

HEAP_BYTES = 64_000_000
REPORT_EVERY = 1_000
LAYOUT = 6
FORMAT = f"{VERSION}.{LAYOUT}.{PART_CHARS}"
"""What an index of other tokens, fields or parts differs in."""

Read = Callable[[Path], Sequence[Line]]


@dataclass
class Update:
    """The result of an update.

    Attributes:
        added, changed, removed, kept: numbers of files.
        records: documents of files of records that are new or changed.
        embedded, to_embed: texts that have a vector since, and those that had none.
        skipped: the new or changed files without a text, and why.
        notes: what was left out, in sentences.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    records: int = 0
    embedded: int = 0
    to_embed: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class _Run:
    """An update while it runs. known: the files that it has not come to, with their states."""

    writer: Any
    read: Read
    known: dict[str, str]
    embedding: Embedding | None
    corpora: Corpora
    report: Callable[[Update], None]
    update: Update = field(default_factory=Update)
    read_again: set[str] = field(default_factory=set)

    @property
    def has_changes(self) -> bool:
        return bool(self.update.added or self.update.changed or self.update.removed)


class StoredIndex:
    """An index in a folder.

    Args:
        make: an empty one where there is none.

    Raises:
        InvalidRequest: the folder cannot be written, holds something else or no index.
        MissingExtra: tantivy is not installed.
    """

    def __init__(self, folder: Path, *, make: bool = True) -> None:
        self._tantivy = _library()
        self._folder = folder / FORMAT
        if not make and not (self._folder / "meta.json").exists():
            raise InvalidRequest(f"{folder} holds no index of this version: rerankd index PATH --index {folder}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._index = self._tantivy.Index(self._schema(), path=str(self._folder))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The index in {folder} cannot be opened: {error}") from None

    def _schema(self) -> Any:
        fields = self._tantivy.SchemaBuilder()
        fields.add_text_field("tokens", tokenizer_name="whitespace", index_option="freq")
        for name in ("path", "kind", "key", "entry"):
            fields.add_text_field(name, stored=True, tokenizer_name="raw", index_option="basic")
        for name in ("text", "heading", "id", "state"):
            fields.add_bytes_field(name, stored=True)
        for name in ("first", "last"):
            fields.add_unsigned_field(name, stored=True)
        return fields.build()

    def update(
        self,
        files: Iterable[tuple[str, Path]],
        read: Read,
        report: Callable[[Update], None] = lambda update: None,
        embedding: Embedding | None = None,
        corpora: Corpora | None = None,
    ) -> Update:
        """Makes the index hold exactly these files, by name. A file of the same size and time is not opened.

        Args:
            read: a file's lines; raises InvalidRequest for one that has none, MissingExtra for one to try again.
            embedding: makes the vectors of all parts that have none; None: nobody does.
            corpora: reads the files of records; None: those with known fields.

        Raises:
            InvalidRequest: another process updates this index, or the disk is full.
        """
        run = _Run(self._writer(), read, self._known(), embedding, corpora or Corpora(), report)
        try:
            for name, path in files:
                self._take(run, name, path)
                report(run.update)
            for name in run.known:
                run.writer.delete_documents_by_term("path", name)
                run.update.removed += 1
            self._embed(run, report)
            if run.has_changes:
                run.writer.commit()
            self._index.reload()
            if embedding is not None:
                embedding.finish(self.state, self._num_parts(), self._keys)
            run.writer.wait_merging_threads()
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"The index in {self._folder} cannot be written: {error}") from None
        finally:
            run.writer = None  # its lock is free, whatever holds this frame
        self._index.reload()
        return run.update

    def _writer(self) -> Any:
        try:
            return self._index.writer(HEAP_BYTES, 1)
        except ValueError as error:
            raise InvalidRequest(f"Another process updates the index in {self._folder}: {error}") from None

    @property
    def state(self) -> str:
        """Changes with each commit."""
        return f"{FORMAT} {json.loads((self._folder / 'meta.json').read_text('utf-8'))['opstamp']}"

    def _embed(self, run: _Run, report: Callable[[Update], None]) -> None:
        """Has the vectors made, also those that an update without an embedder left out."""
        if run.embedding is None:
            return
        if not run.embedding.is_covered(self.state):
            gone = run.read_again | run.known.keys()
            for document in self._with("kind", "part"):
                if (hit := _hit(document, 0.0)).path not in gone:
                    run.embedding.take(hit.document)
        update = run.update
        for update.embedded, update.to_embed in run.embedding.run():
            report(update)

    def _take(self, run: _Run, name: str, path: Path) -> None:
        if (stamp := _stamp(path, run.corpora.field)) is None:  # it was removed a moment ago
            return
        before, update = run.known.pop(name, None), run.update
        if before == stamp:
            update.kept += 1
            return
        self._read(run, name, path, stamp)
        update.changed += before is not None
        update.added += before is None

    def _read(self, run: _Run, name: str, path: Path, stamp: str) -> None:
        lines: Sequence[Line] = ()  # a file without a text is known, so that it is not opened again
        try:
            if (documents := run.corpora.documents(path)) is not None:
                self._take_records(run, name, stamp, documents)
                return
            lines = run.read(path)
        except InvalidRequest as error:
            run.update.skipped[name] = str(error)
        except MissingExtra as error:
            run.update.skipped[name], stamp = str(error), ""
        self._forget(run, name)
        self._add_file(run, name, stamp)
        for part in parts_of(lines):
            self._add_part(run, name, part)

    def _forget(self, run: _Run, name: str) -> None:
        run.writer.delete_documents_by_term("path", name)
        run.read_again.add(name)

    def _take_records(self, run: _Run, name: str, stamp: str, documents: Iterable[Document]) -> None:
        """Only the documents that differ from those of the last update are read into the index."""
        before = self._digests(name)
        if not before:  # it was new, or a file without records
            self._forget(run, name)
        digests = Digests(before)
        for document in documents:
            if not digests.is_new(document):
                continue
            if digests.was_there(document.number):
                run.writer.delete_documents_by_term("entry", _entry(name, document.number))
            for part in parts_of_document(document):
                self._add_part(run, name, part, document.doc_id)
            run.update.records += 1
            if run.update.records % REPORT_EVERY == 0:
                run.report(run.update)
        for number in digests.gone():
            run.writer.delete_documents_by_term("entry", _entry(name, number))
        run.writer.delete_documents_by_term("entry", _entry(name))
        self._add_file(run, name, stamp)
        self._add(run.writer, path=name, kind="digests", entry=_entry(name), state=digests.to_bytes())

    def _digests(self, name: str) -> bytes:
        """What the last update knew of the records of a file; nothing where it had none."""
        documents = self._with("entry", _entry(name))
        return next((bytes(one.get_first("state")) for one in documents if one.get_first("kind") == "digests"), b"")

    def _add_file(self, run: _Run, name: str, stamp: str) -> None:
        self._add(run.writer, path=name, kind="file", entry=_entry(name), state=stamp.encode())

    def _add_part(self, run: _Run, name: str, part: Part, doc_id: str = "") -> None:
        """The words of its headings and of its file's name, or of its id, count as its own."""
        words = f"{doc_id or PurePosixPath(name).with_suffix('')}\n{part.heading}\n{part.text}"
        text, heading = (one.encode(errors="replace") for one in (part.text, part.heading))
        document = document_of(heading.decode(), text.decode())
        of_record: dict[str, str | bytes] = {}
        if doc_id:
            of_record = {"id": doc_id.encode(errors="replace"), "entry": _entry(name, part.first)}
        self._add(
            run.writer,
            path=name,
            kind="part",
            key=key_of(document),
            text=text,
            heading=heading,
            tokens=" ".join(tokens_of(words)),
            first=part.first,
            last=part.last,
            **of_record,
        )
        if run.embedding is not None:
            run.embedding.take(document)

    def _add(self, writer: Any, **values: str | bytes | int) -> None:
        document = self._tantivy.Document()
        add = {int: document.add_unsigned, bytes: document.add_bytes, str: document.add_text}
        for name, value in values.items():
            add[type(value)](name, value)
        writer.add_document(document)

    def _with(self, field: str, value: str) -> Iterator[Any]:
        """The entries with this value of a field, in no order."""
        searcher = self._index.searcher()
        if most := searcher.doc_freq(field, value):
            for _, address in searcher.search(self._term(field, value), limit=most).hits:
                yield searcher.doc(address)

    def _term(self, field: str, value: str) -> Any:
        return self._tantivy.Query.term_query(self._index.schema, field, value, "basic")

    def _num_parts(self) -> int:
        return int(self._index.searcher().search(self._term("kind", "part"), limit=1).count)

    def _keys(self) -> set[str]:
        return {document.get_first("key") for document in self._with("kind", "part")}

    def with_key(self, key: str, score: float) -> list[Hit]:
        """The parts with the text of a key, by path and line; none where all of them are gone."""
        hits = (_hit(document, score) for document in self._with("key", key))
        return sorted(hits, key=lambda hit: (hit.path, hit.first))

    def _known(self) -> dict[str, str]:
        """Path → state of every file in the index."""
        files = self._with("kind", "file")
        return {file.get_first("path"): file.get_first("state").decode() for file in files}

    def paths(self) -> list[str]:
        """Of all files in the index."""
        return list(self._known())

    def search(self, query: str, depth: int = 100, paths: Sequence[str] | None = None) -> list[Hit]:
        """The parts that share tokens with the query, best first, at most `depth`; equal scores by path and line.

        Args:
            paths: of the files that are searched; None: all.
        """
        tokens = dict.fromkeys(tokens_of(query))
        if not tokens or depth < 1:
            return []
        library, schema = self._tantivy, self._index.schema
        terms = [(library.Occur.Should, library.Query.term_query(schema, "tokens", one, "freq")) for one in tokens]
        searcher = self._index.searcher()
        asked = library.Query.boolean_query(terms)
        if paths is not None:
            among = library.Query.const_score_query(library.Query.term_set_query(schema, "path", list(paths)), 0.0)
            asked = library.Query.boolean_query([(library.Occur.Must, asked), (library.Occur.Must, among)])
        found = searcher.search(asked, limit=depth).hits
        hits = (_hit(searcher.doc(address), score) for score, address in found)
        return sorted(hits, key=lambda hit: (-hit.score, hit.path, hit.first))

    def reload(self) -> None:
        """Sees what another process committed."""
        self._index.reload()

    def __len__(self) -> int:
        """Parts and files."""
        return int(self._index.searcher().num_docs)


def _stamp(path: Path, field: str | None) -> str | None:
    """Identifies a version of a file: its size and time, and the field that is read of its records."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size} {status.st_mtime_ns}{f' {field}' if field else ''}"


def _entry(name: str, number: int | None = None) -> str:
    """The key of a file's own entry, or of the parts of one of its records."""
    return f"{'' if number is None else number}:{name}"


def _hit(document: Any, score: float) -> Hit:
    lines = document.get_first("first"), document.get_first("last")
    text, heading = (document.get_first(name).decode() for name in ("text", "heading"))
    doc_id = (document.get_first("id") or b"").decode()
    return Hit(document.get_first("path"), *lines, text, float(score), heading, doc_id)


def _library() -> Any:
    try:
        import tantivy
    except ImportError as error:
        raise MissingExtra("Search", error, "rank the files with rerankd rank", "search") from None
    return tantivy
