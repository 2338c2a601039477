"""The tensors of a checkpoint as its files store them, under the names of Qwen3's text network.

Strips the prefixes of models that contain the network, leaves out their other parts, dequantizes FP8, and merges a LoRA
adapter. Knows no network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rerankd.engine.loading.adapters import Adapter
from rerankd.engine.loading.checkpoint_files import local_weight_files
from rerankd.engine.loading.kinds import SERVED
from rerankd.errors import CheckpointInvalid

TEXT_NETWORK = "model.language_model."
"""The prefix of the text network in a model for images and text."""

OTHER_NETWORKS = ("model.visual.", "visual.")

SCALES = ("weight_scale_inv", "weight_scale")
"""Beside an FP8 `weight`: its scale for each block, for each row, or for the whole."""

NOT_WEIGHTS = (*SCALES, "input_scale", "activation_scale")

BLOCK = 128
"""Rows, and columns, with one scale in FP8 checkpoints of DeepSeek's and Qwen's kind."""

ADAPTER_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class _Place:
    file: Path
    name: str


class StoredTensors:
    """The tensors of a folder.

    Args:
        embedding: it is an embedding model, whose names may lack the prefix `model.`.

    Raises:
        CheckpointInvalid: a file is damaged, a tensor is there twice, a shard is missing, the adapter does not fit, or
            it is an embedding model where a reranker is wanted.
    """

    def __init__(self, folder: Path, adapter: Adapter | None = None, *, embedding: bool = False) -> None:
        stored = _stored(folder)
        _check_index(folder, stored)
        self._scales = {name: place for name, place in stored.items() if name.rpartition(".")[2] in NOT_WEIGHTS}
        self._places = {_text_name(name): place for name, place in stored.items() if name not in self._scales}
        for name in [name for name in self._places if name.startswith(OTHER_NETWORKS)]:
            del self._places[name]
        if "embed_tokens.weight" in self._places:  # Qwen3-Embedding's names lack the prefix `model.`
            if not embedding:
                raise CheckpointInvalid(
                    f"{folder} holds an embedding model (Qwen3-Embedding), not a reranker. {SERVED}"
                )
            self._places = {f"model.{name}": place for name, place in self._places.items()}
        self._adapter = adapter
        self._changes = {} if adapter is None else _changes(adapter, self._places)
        self.num_bytes = sum(file.stat().st_size for file in {place.file for place in stored.values()})

    def __contains__(self, name: str) -> bool:
        return name in self._places

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        place = self._places[name]
        with safe_open(place.file, "pt") as shard:
            return tuple(shard.get_slice(place.name).get_shape())

    def rows(self, name: str, rows: Sequence[int]) -> Tensor:
        """Some rows of a matrix, (len(rows), …) float32."""
        place = self._places[name]
        if name in self._changes or self._scale_of(place) is not None:
            return self.read(name)[list(rows)].float()
        with safe_open(place.file, "pt") as shard:
            stored = shard.get_slice(place.name)
            return torch.cat([stored[row : row + 1] for row in rows]).float()

    def read(self, name: str) -> Tensor:
        """One tensor, dequantized and merged; float32 if it was changed, else as it is stored."""
        place = self._places[name]
        tensor = _read(place)
        if (scale := self._scale_of(place)) is not None:
            tensor = _dequantized(name, tensor, _read(scale))
        if (change := self._changes.get(name)) is not None and self._adapter is not None:
            down, up = (_read(part).float() for part in change)
            if tensor.shape != (up.shape[0], down.shape[1]):
                raise CheckpointInvalid(f"{self._adapter.file} does not fit {name} of {place.file.parent}.")
            tensor = tensor.float() + self._adapter.scale * (up @ down)
        return tensor

    def _scale_of(self, place: _Place) -> _Place | None:
        module, _, _ = place.name.rpartition(".")
        return next((self._scales[f"{module}.{end}"] for end in SCALES if f"{module}.{end}" in self._scales), None)


def _stored(folder: Path) -> dict[str, _Place]:
    """Each tensor by its name in the files."""
    stored: dict[str, _Place] = {}
    for path in (one for one in local_weight_files(folder) if one.is_file()):
        for name in _names(path):
            if name in stored:
                raise CheckpointInvalid(f"{path} holds tensors that {stored[name].file} holds too: {[name]}.")
            stored[name] = _Place(path, name)
    return stored


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, "pt") as shard:
            return list(shard.keys())
    except (SafetensorError, OSError) as error:
        raise CheckpointInvalid(f"{path} is damaged or incomplete: {error}") from error


def _check_index(folder: Path, stored: dict[str, _Place]) -> None:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        promised = set(json.loads(index.read_text())["weight_map"])
        if missing := sorted(promised - set(stored)):
            raise CheckpointInvalid(f"{folder} lacks shards: {len(missing)} tensors of {index.name} are not there.")


def _text_name(name: str) -> str:
    return f"model.{name.removeprefix(TEXT_NETWORK)}" if name.startswith(TEXT_NETWORK) else name


def _read(place: _Place) -> Tensor:
    # Reopens the file for each tensor: mapped pages count as memory of the process until it is closed.
    with safe_open(place.file, "pt") as shard:
        tensor: Tensor = shard.get_tensor(place.name)
        return tensor


def _dequantized(name: str, values: Tensor, scale: Tensor) -> Tensor:
    """values × scale: one scale for the whole, for each row, or for each block of 128 rows and columns."""
    if values.dtype not in (torch.float8_e4m3fn, torch.float8_e5m2):
        raise CheckpointInvalid(f"{name} has a scale, and its values are {values.dtype}, not FP8: that is not read.")
    scale = scale.float()
    scale = scale[:, None] if scale.dim() == 1 and len(scale) > 1 else scale
    if scale.dim() == 2:
        for dim, (size, parts) in enumerate(zip(values.shape, scale.shape, strict=True)):
            if parts not in (1, size, -(-size // BLOCK)):
                raise CheckpointInvalid(
                    f"{name}: scales of shape {tuple(scale.shape)} do not fit {tuple(values.shape)}."
                )
            if parts not in (1, size):
                scale = scale.repeat_interleave(BLOCK, dim).narrow(dim, 0, size)
    return values.float() * scale


def _changes(adapter: Adapter, places: dict[str, _Place]) -> dict[str, tuple[_Place, _Place]]:
    """For each changed weight, where A and B are."""
    found: dict[str, dict[str, _Place]] = {}
    for stored in _names(adapter.file):
        name = _text_name(stored.removeprefix(ADAPTER_PREFIX).replace(".default.", "."))
        module, _, part = name.removesuffix(".weight").rpartition(".")
        target = f"{module}.weight"
        if part not in ("lora_A", "lora_B") or target not in places:
            raise CheckpointInvalid(f"{adapter.file} changes {stored}, which is not a linear layer of {adapter.base}.")
        found.setdefault(target, {})[part] = _Place(adapter.file, stored)
    if broken := [name for name, parts in found.items() if len(parts) < 2]:
        raise CheckpointInvalid(f"{adapter.file} is incomplete: {broken[0]} has only one of lora_A and lora_B.")
    return {name: (parts["lora_A"], parts["lora_B"]) for name, parts in found.items()}
