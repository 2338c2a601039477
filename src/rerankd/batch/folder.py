"""The output folder of a batch: its manifest, its finished units, its lock. Knows no model.

OUTPUT/part-000000.jsonl …       one file for each unit, there only when it is whole
OUTPUT/_rerankd/manifest.json    what the units are
OUTPUT/_rerankd/…                unfinished files
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rerankd.batch.files import write_rows
from rerankd.batch.manifest import Manifest
from rerankd.batch.rows import ScoredPair
from rerankd.disk import lock_alone, sync
from rerankd.errors import InvalidRequest
from rerankd.resumable import differences, to_json


class OutputFolder:
    """Writes each unit once: a file has its name only when it is whole and on disk."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path, self._own, self._manifest = path, path / "_rerankd", manifest

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, or checks that its manifest is the same.

        Raises:
            InvalidRequest: it belongs to another batch, holds other files, or another process writes there.
        """
        self._own.mkdir(parents=True, exist_ok=True)
        with (self._own / "lock").open("w") as lock:
            lock_alone(lock, f"Another process writes to {self._path}.")
            self._remove_unfinished()
            self._check_manifest()
            yield

    def _check_manifest(self) -> None:
        kept = self._own / "manifest.json"
        if kept.exists():
            if found := differences(kept.read_text(), self._manifest):
                raise InvalidRequest(
                    f"{self._path} has the results of another batch. It differs in {'; '.join(found)}. Pass another "
                    "folder, or the same input and settings to resume."
                )
            return
        if foreign := next(iter(sorted(self._path.glob("part-*"))), None):
            raise InvalidRequest(f"{self._path} holds {foreign.name} and no manifest: pass another folder.")
        with self._unfinished("manifest.json") as path:
            path.write_text(to_json(self._manifest))
            sync(path)
            path.replace(kept)
        sync(self._own)

    def missing(self) -> list[int]:
        """The units without an output, in order."""
        there = {path.name for path in self._path.glob(f"part-*.{self._manifest.output}")}
        return [unit for unit in range(len(self._manifest.parts)) if self._manifest.file_of(unit) not in there]

    def write(self, unit: int, rows: Sequence[ScoredPair]) -> None:
        """Stores the rows of a unit.

        Raises:
            InvalidRequest: there is no space, or no permission; nothing is left behind.
        """
        name = self._manifest.file_of(unit)
        try:
            with self._unfinished(name) as path:
                write_rows(path, rows, with_passages=self._manifest.passages is not None)
                path.replace(self._path / name)
            sync(self._path)
        except OSError as error:
            raise InvalidRequest(
                f"{self._path / name} cannot be written: {error.strerror or error}. The same command continues after "
                "the finished units."
            ) from error

    @contextmanager
    def _unfinished(self, name: str) -> Iterator[Path]:
        """A path in the same file system, removed if the block fails."""
        folder = Path(tempfile.mkdtemp(prefix="unfinished-", dir=self._own))
        try:
            yield folder / name
        finally:
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
                folder.rmdir()

    def _remove_unfinished(self) -> None:
        """Removes the files of killed processes."""
        for folder in self._own.glob("unfinished-*"):
            with suppress(OSError):
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
