"""Finds the files of a folder that are not hidden, ignored, too large or generated. Reads no documents."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from rerankd.errors import InvalidRequest
from rerankd.files import documents

GENERATED = (
    *("node_modules/", "bower_components/", "__pycache__/", "dist/", "site-packages/", "venv/"),
    *(
        "*.min.js",
        "*.min.css",
        "*.map",
        "*.lock",
        "package-lock.json",
        "npm-shrinkwrap.json",
        "pnpm-lock.yaml",
        "go.sum",
    ),
)
"""Generated files, as patterns of a .gitignore."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice of files in a folder.

    Attributes:
        include: patterns of a .gitignore; none includes all files.
        exclude: patterns of a .gitignore.
        max_bytes: the largest file.
        ignoring: skip what a .gitignore names, and GENERATED.
        converting: files that are converted to text may have `documents.MAX_BYTES`.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    max_bytes: int = 1_000_000
    ignoring: bool = True
    converting: bool = False

    def most_bytes(self, path: Path) -> int:
        """The most bytes of this file that are read."""
        is_converted = self.converting and path.suffix.lower() in documents.SUFFIXES
        return max(self.max_bytes, documents.MAX_BYTES) if is_converted else self.max_bytes


@dataclass
class LeftOut:
    """Counts of skipped files by reason, with one example each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: object) -> None:
        self.counts[reason] += 1
        self.examples.setdefault(reason, str(example))

    def __str__(self) -> str:
        """One line: `left out: 3 files that are not text (first: a.pdf), 1 unreadable (first: b.txt)`."""
        parts = (f"{count} {reason} ({self._example(reason, count)})" for reason, count in self.counts.items())
        return f"left out: {', '.join(parts)}" if self.counts else ""

    def _example(self, reason: str, count: int) -> str:
        return f"first: {self.examples[reason]}" if count > 1 else self.examples[reason]


def files_in(folder: Path, selection: Selection, left_out: LeftOut) -> Iterator[Path]:
    """Files sorted by path; links to folders are not followed, so there are no loops.

    Raises:
        InvalidRequest: a pattern of the selection is invalid.
    """
    ignores = _ignores_above(folder) if selection.ignoring else []
    yield from _Walk(folder, selection, left_out).files(folder, ignores)


def fitting(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """The paths, relative and with `/`, that fit patterns of a .gitignore.

    Raises:
        InvalidRequest: a pattern is invalid.
    """
    return list(_spec(patterns).match_files(names))


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines([patterns] if isinstance(patterns, str) else patterns)
    except ValueError as error:
        raise InvalidRequest(f"A pattern cannot be read as one of a .gitignore: {error}.") from None


@dataclass(frozen=True, slots=True)
class _Ignore:
    """Patterns, matched with a path relative to `folder`, prefixed by `between`."""

    folder: Path
    spec: GitIgnoreSpec
    between: str = ""

    def verdict(self, path: Path, is_folder: bool) -> bool | None:
        """True: it matches; False: a later pattern negates the match; None: no pattern matches."""
        name = (PurePosixPath(self.between) / path.relative_to(self.folder)).as_posix()
        return self.spec.check_file(f"{name}/" if is_folder else name).include


class _Walk:
    def __init__(self, folder: Path, selection: Selection, left_out: LeftOut) -> None:
        self._selection, self._left_out = selection, left_out
        self._include = _Ignore(folder, _spec(selection.include))
        self._exclude = _Ignore(folder, _spec(selection.exclude))
        self._generated = _Ignore(folder, GitIgnoreSpec.from_lines(GENERATED))

    def files(self, folder: Path, ignores: list[_Ignore]) -> Iterator[Path]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            self._left_out.add("unreadable", folder)
            return
        if self._selection.ignoring and any(entry.name == ".gitignore" for entry in entries):
            ignores = [*ignores, *_ignores_of(folder, folder)]
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if self._takes(path, ignores, is_folder=True):
                    yield from self.files(path, ignores)
            elif self._takes(path, ignores, is_folder=False) and self._is_readable(path):
                yield path

    def _takes(self, path: Path, ignores: Sequence[_Ignore], is_folder: bool) -> bool:
        if self._exclude.verdict(path, is_folder):
            return False
        if not is_folder and self._selection.include and not self._include.verdict(path, is_folder):
            return False
        if not self._selection.ignoring:
            return True
        if _ignored(path, ignores, is_folder):
            return False
        if self._generated.verdict(path, is_folder):
            self._left_out.add("generated, see --no-ignore", f"{path}/" if is_folder else path)
            return False
        return True

    def _is_readable(self, path: Path) -> bool:
        """Whether it is a regular file of at most `max_bytes`."""
        try:
            status = path.stat()
        except OSError:  # a link to nowhere, or to itself
            self._left_out.add("unreadable", path)
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        most = self._selection.most_bytes(path)
        if status.st_size > most:
            self._left_out.add(f"larger than {_size(most)}, see --max-filesize", path)
            return False
        return True


def _ignored(path: Path, ignores: Sequence[_Ignore], is_folder: bool) -> bool:
    """The deepest .gitignore with a matching pattern decides."""
    verdicts = (ignore.verdict(path, is_folder) for ignore in reversed(ignores))
    return next((verdict for verdict in verdicts if verdict is not None), False)


def _ignores_above(folder: Path) -> list[_Ignore]:
    """The .gitignore files from the root of the folder's repository, if it is in one, down to the folder."""
    there = folder.resolve()
    chain = [there, *there.parents]
    depth = next((depth for depth, parent in enumerate(chain) if (parent / ".git").exists()), 0)
    return [ignore for parent in reversed(chain[1 : depth + 1]) for ignore in _ignores_of(parent, folder)]


def _ignores_of(holder: Path, folder: Path) -> list[_Ignore]:
    """The patterns in the .gitignore of `holder` for paths in `folder`, which is `holder` or in it."""
    try:
        lines = (holder / ".gitignore").read_text("utf-8-sig", "replace").splitlines()
        spec = GitIgnoreSpec.from_lines(lines)
    except (OSError, ValueError):  # there is no such file, or a pattern is invalid
        return []
    between = "" if holder == folder else folder.resolve().relative_to(holder).as_posix()
    return [_Ignore(folder, spec, between)]


def _size(num_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes} bytes"
