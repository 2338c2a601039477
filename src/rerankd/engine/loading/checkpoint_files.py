"""The list of files of a checkpoint, from its own JSON files. Needs no hub and reads no weights."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from rerankd.engine.loading.checkpoint_json import read_json, read_object
from rerankd.errors import CheckpointInvalid

CONFIG, MODULES = "config.json", "modules.json"
INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
TEXTS = ("*.json", "*.jinja", "merges.txt", "vocab.txt")
TOKENIZER = "tokenizer.json"
VOCABULARIES = ("vocab.txt", "vocab.json", "*.model")
"""Files of a tokenizer without tokenizer.json; transformers converts them."""

IGNORED_WEIGHTS = ("adapter_*", "consolidated*")
"""Weights of adapters, or duplicates of the model's weights."""

WITHOUT_FILES = {"Normalize"}
WITH_WEIGHTS = {"Dense", "LayerNorm", "CNN", "LSTM", "WeightedLayerPooling", "StaticEmbedding", "Transformer"}
POINTER = b"version https://git-lfs"


class Modules:
    """modules.json: the steps of a sentence-transformers model, in order.

    Raises:
        CheckpointInvalid: it is damaged, has a path outside its folder, or needs code outside sentence-transformers.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, list) or not all(map(_is_module, value)):
            raise CheckpointInvalid(f"{where} is damaged: it is not a list of objects with a 'path' and a 'type'.")
        for module in value:
            path = PurePosixPath(module["path"])
            if path.is_absolute() or ".." in path.parts:
                raise CheckpointInvalid(f"{where} is damaged: a path leaves the folder.")
            if not module["type"].startswith("sentence_transformers."):
                raise CheckpointInvalid(
                    f"{where} asks for {module['type'][:100]!r}: code that comes with a model is never run. "
                    "Take a model that sentence-transformers loads without it."
                )
        self.kinds = [str(module["type"]).rpartition(".")[2] for module in value]
        self.paths = [str(module["path"]).strip("/") for module in value]

    def folders(self) -> list[tuple[str, str]]:
        """(path, kind) of each module with its own folder."""
        return [(path, kind) for path, kind in zip(self.paths, self.kinds, strict=True) if path not in ("", ".")]


def _is_module(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("path", "type"))


def read_modules(folder: Path) -> Modules | None:
    """Reads modules.json; None if it is missing. Raises CheckpointInvalid."""
    path = folder / MODULES
    return Modules(read_json(path), str(path)) if path.is_file() else None


def text_files(names: Collection[str]) -> list[str]:
    """The files of configuration and tokenizer."""
    wanted = TEXTS if TOKENIZER in names else (*TEXTS, "*.model")
    return [name for name in names if "/" not in name and any(fnmatchcase(name, each) for each in wanted)]


def module_files(names: Collection[str], modules: Modules | None) -> list[str]:
    """The files in the modules' own folders."""
    wanted: list[str] = []
    for path, _ in modules.folders() if modules else ():
        inside = {name for name in names if name.startswith(f"{path}/") and "/" not in name.removeprefix(f"{path}/")}
        wanted += sorted(name for name in inside if name.endswith(".json"))
        wanted += _weights_in(inside, f"{path}/", lambda _: None)
    return list(dict.fromkeys(wanted))


def weight_files(names: Collection[str], index: Callable[[str], Path | None]) -> list[str]:
    """The files of the model's own weights: safetensors if there are any, else .bin.

    An index lists them. Without an index, they are all weight files that are not in `IGNORED_WEIGHTS`.

    Args:
        index: the path of the index with that name; None if there is none.

    Raises:
        CheckpointInvalid: the index is damaged.
    """
    return _weights_in({name for name in names if "/" not in name}, "", index)


def _weights_in(names: Collection[str], prefix: str, index: Callable[[str], Path | None]) -> list[str]:
    for suffix, index_name in ((".safetensors", INDEX), (".bin", BIN_INDEX)):
        if (path := index(index_name)) is not None:
            return _in_index(path)
        found = sorted(name for name in names if _is_weights(name.removeprefix(prefix), suffix))
        if found:
            return found
    return []


def _is_weights(name: str, suffix: str) -> bool:
    if suffix == ".bin" and not name.startswith("pytorch_model"):
        return False  # training_args.bin
    return name.endswith(suffix) and not any(fnmatchcase(name, each) for each in IGNORED_WEIGHTS)


def _in_index(path: Path) -> list[str]:
    try:
        files = set(read_object(path)["weight_map"].values())
        if not files or not all(isinstance(file, str) and Path(file).name == file for file in files):
            raise ValueError("its weight_map names no files of this folder")
    except (CheckpointInvalid, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointInvalid(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return sorted(files)


def local_weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, see `weight_files`. Files that an index lists may be missing.

    Raises:
        CheckpointInvalid: the index is damaged.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    return [folder / name for name in weight_files(names, lambda name: folder / name if name in names else None)]


def missing_files(folder: Path) -> list[str]:
    """The files that a complete checkpoint has and this folder lacks.

    Raises:
        CheckpointInvalid: one of its JSON files is damaged.
    """
    if not (folder / CONFIG).is_file():
        return [CONFIG]
    weights = local_weight_files(folder)
    missing = [path.name for path in weights if not path.is_file()] if weights else ["*.safetensors"]
    if not _has_tokenizer(folder):
        missing.append(TOKENIZER)
    for path, kind in modules.folders() if (modules := read_modules(folder)) else ():
        if kind not in WITHOUT_FILES and not any((folder / path).glob("*.json")):
            missing.append(f"{path}/config.json")
        if kind in WITH_WEIGHTS and not any(
            (folder / path / file).is_file() for file in ("model.safetensors", "pytorch_model.bin")
        ):
            missing.append(f"{path}/model.safetensors")
    return missing


def _has_tokenizer(folder: Path) -> bool:
    if (folder / TOKENIZER).is_file():
        return True
    if any(str(name).startswith(("Qwen2", "Qwen3")) for name in _architectures(folder)):
        return False
    return any(path.is_file() for pattern in VOCABULARIES for path in folder.glob(pattern))


def _architectures(folder: Path) -> list[Any]:
    """Ignores errors in the file, because the code that loads it reports them."""
    try:
        named = read_object(folder / CONFIG).get("architectures")
    except CheckpointInvalid:
        return []
    return named if isinstance(named, list) else []


def pointers(folder: Path) -> list[str]:
    """Files that are Git LFS pointers instead of contents."""
    found = []
    for path in (*local_weight_files(folder), folder / TOKENIZER):
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(POINTER):
            found.append(path.name)
    return found
