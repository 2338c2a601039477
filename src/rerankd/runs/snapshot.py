"""Finds the test collections of a Hugging Face snapshot: by the list `configs` at the head of its README.md, else by
the names of its folders.

A collection has a config of documents (`corpus`), one of queries (`queries`) and one of judgements (`qrels` or
`default`). A set of several collections has the name of each before or behind these words, as in `de-corpus` or
`corpus-de`; its judgements may have the name alone. https://huggingface.co/docs/hub/datasets-manual-configuration
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.runs.lines import kind_of

HEAD = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
NAMED = re.compile(r"(?:(.+)[-_.])?(corpus|queries|qrels|default)(?:[-_.](.+))?")
SHARD = re.compile(r"(.+?)(?:-\d{5}-of-\d{5}(?:-\w+)?)?(?:\.\w+)+")

Files = Mapping[str, Sequence[Path]]
"""The split of a config → its files."""

Kinds = Mapping[str, Files]
"""`corpus`, `queries` and `qrels`, as far as a collection has them."""


def collection_files(folder: Path, subset: str | None, known: frozenset[str]) -> Kinds:
    """The files of one collection; nothing where the folder lists none.

    Args:
        subset: its name; None for the only one, or the one without a name.
        known: suffixes of files that can be read.

    Raises:
        InvalidRequest: there are several collections and none is named, or none has this name.
        MissingExtra: README.md lists files, and PyYAML is not installed.
    """
    found = collections_in(folder, known)
    if subset is not None and subset not in found:
        names = ", ".join(name for name in sorted(found) if name) or "none with a name"
        raise InvalidRequest(f"{folder} has no collection {subset!r}: there is {names}.")
    if subset is None and len(found) > 1 and "" not in found:
        shown = ", ".join(sorted(found))
        raise InvalidRequest(f"{folder} has {len(found)} collections: pass --subset with one of {shown}.")
    return found.get(subset or "", {}) if subset is not None or "" in found else next(iter(found.values()), {})


def collections_in(folder: Path, known: frozenset[str]) -> Mapping[str, Kinds]:
    """All collections of a folder by name, see `collection_files`; the one without a name has the name ''.

    Raises:
        MissingExtra: README.md lists files, and PyYAML is not installed.
    """
    return _by_subset(_listed(folder, known) or _in_folders(folder, known))


def split_of(path: Path) -> str:
    """The split that a file's name says: `test` of `test-00000-of-00002.parquet`."""
    matched = SHARD.fullmatch(path.name)
    return matched[1] if matched else path.name


def _by_subset(configs: Mapping[str, Files]) -> dict[str, Kinds]:
    """The configs of each collection that has documents and queries."""
    found: dict[str, dict[str, Files]] = {}
    for name, files in configs.items():
        if matched := NAMED.fullmatch(name):
            before, kind, behind = matched.groups()
            found.setdefault(before or behind or "", {})["qrels" if kind == "default" else kind] = files
    for name, kinds in found.items():
        if "qrels" not in kinds and name in configs:
            kinds["qrels"] = configs[name]
    return {name: kinds for name, kinds in found.items() if {"corpus", "queries"} <= kinds.keys()}


def _in_folders(folder: Path, known: frozenset[str]) -> dict[str, Files]:
    configs = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        files: dict[str, list[Path]] = {}
        for path in _files(inner, "*", known):
            files.setdefault(split_of(path), []).append(path)
        configs[inner.name] = files
    return {name: files for name, files in configs.items() if files}


def _listed(folder: Path, known: frozenset[str]) -> dict[str, Files]:
    configs: dict[str, Files] = {}
    for config in _configs(folder / "README.md"):
        base = folder / str(config.get("data_dir") or "")
        files: dict[str, list[Path]] = {}
        for split, pattern in _patterns(config.get("data_files")):
            files.setdefault(split, []).extend(_files(base, pattern, known))
        files = {split: some for split, some in files.items() if some}
        if files:
            configs[str(config.get("config_name"))] = files
    return configs


def _configs(readme: Path) -> list[Mapping[str, Any]]:
    """The list in the head of the file; none where it cannot be read."""
    try:
        head = HEAD.match(readme.read_text("utf-8", "replace"))
    except OSError:
        return []
    if head is None or not re.search(r"^configs:", head[1], re.MULTILINE):
        return []
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra(f"The list of files in {readme}", error, "pass --queries and --corpus", "parquet") from None
    try:
        values = yaml.safe_load(head[1])
    except yaml.YAMLError as error:
        raise InvalidRequest(f"The head of {readme} is not YAML: {error}") from None
    configs = values.get("configs") if isinstance(values, dict) else None
    return [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []


def _patterns(data_files: Any) -> Iterator[tuple[str, str]]:
    """(split, pattern of paths) in each of the forms that the hub reads."""
    if isinstance(data_files, str):
        yield "train", data_files
    elif isinstance(data_files, dict):
        for split, patterns in data_files.items():
            yield from ((str(split), str(one)) for one in (patterns if isinstance(patterns, list) else [patterns]))
    elif isinstance(data_files, list):
        for one in data_files:
            if isinstance(one, dict) and "path" in one:
                yield from _patterns({one.get("split", "train"): one["path"]})
            elif isinstance(one, str):
                yield "train", one


def _files(folder: Path, pattern: str, known: frozenset[str]) -> list[Path]:
    """The files below a folder that fit, and can be read."""
    if not folder.is_dir() or pattern.startswith("/") or ".." in pattern or "://" in pattern:
        return []
    return sorted(path for path in folder.glob(pattern) if path.is_file() and kind_of(path) in known)
