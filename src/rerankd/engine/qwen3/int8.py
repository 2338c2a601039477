"""Quantizes the linear layers of a checkpoint to int8, and caches the result on disk.

Weights have a scale per output channel, and `rounding.py` rounds them. Activations have a scale per row, computed at
run time. Embedding, norms, attention and head are not quantized.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from rerankd.engine.loading.checksums import checksum
from rerankd.engine.loading.kept import NotKept, find_kept, keep
from rerankd.engine.loading.tensor_file import map_tensors, write_tensors
from rerankd.engine.loading.weight_sums import folder_key, weight_sums
from rerankd.engine.qwen3.kernels.packing import Packer
from rerankd.engine.qwen3.linear import Int8Weight, LayerWeights, PackedWeight, layer_weights
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.engine.qwen3.rounding import quantized
from rerankd.engine.qwen3.weights import Checkpoint, LayerwiseReader, Progress

logger = logging.getLogger(__name__)

LINEARS = ("qkv", "output", "gate_up", "down")

NORMS = ("input_norm", "post_norm", "qk_norm", "qkv_bias")

FORMAT = "4"  # of the file and of its panels (layout.h); part of its name, so files in other formats are ignored


def load_int8(
    checkpoint: Checkpoint, dtype: torch.dtype, progress: Progress, packer: Packer | None
) -> tuple[Qwen3Reranker, Iterator[LayerWeights]]:
    """The network without its layers, and the weights of each layer.

    They are mapped from a file in the disk cache, which the first start writes layer by layer; where it cannot, they
    are in memory.

    Args:
        dtype: of everything but the linear layers.
        packer: packs them for the kernels that run; None for PyTorch's operations.

    Raises:
        CheckpointInvalid: see `LayerwiseReader`.
    """
    adapter = checkpoint.adapter and (checkpoint.adapter.scale, checksum(checkpoint.adapter.file))
    answers = (checkpoint.yes_id, checkpoint.no_id, checkpoint.scale)
    name, made_from = _names(checkpoint.folder, *answers, adapter, dtype, packer and packer.name)
    tensors = _read(f"{name}-{made_from}", progress)
    if tensors is None:
        tensors = _write(
            name, made_from, lambda: _tensors(checkpoint.config, LayerwiseReader(checkpoint, dtype, progress), packer)
        )
    return _network(checkpoint.config, tensors), _layers(tensors)


def _tensors(config: Qwen3Config, reader: LayerwiseReader, packer: Packer | None) -> Iterator[tuple[str, Tensor]]:
    """All tensors with their names. Those of linear layers come first: they start at multiples of a line of memory."""
    rest: dict[str, Tensor] = {}
    for index, layer in enumerate(reader.layers()):
        weights = quantized(layer_weights(layer), config)
        packed = packer.layer(weights) if packer else weights
        prefix = f"layers.{index}."
        rest |= {prefix + name: norm for name in NORMS if (norm := getattr(packed, name)) is not None}
        for name in LINEARS:
            linear = getattr(packed, name)
            for part in fields(linear):
                yield f"{prefix}{name}.{part.name}", getattr(linear, part.name)
    yield from rest.items()
    yield from reader.rest().state_dict().items()


def _network(config: Qwen3Config, tensors: dict[str, Tensor]) -> Qwen3Reranker:
    with torch.device("meta"):
        network = Qwen3Reranker(replace(config, num_hidden_layers=0), head_rows=len(tensors["head"]))
    network.load_state_dict({name: tensors[name] for name in network.state_dict()}, assign=True)
    network.config = config
    return network.eval().requires_grad_(False)


def _layers(tensors: dict[str, Tensor]) -> Iterator[LayerWeights]:
    index = 0
    while (prefix := f"layers.{index}.") + "input_norm" in tensors:
        norms = {name: tensors.get(prefix + name) for name in NORMS}
        linears = {name: _linear(tensors, prefix + name) for name in LINEARS}
        yield LayerWeights(**linears, **norms)  # type: ignore[arg-type]
        index += 1


def _linear(tensors: dict[str, Tensor], name: str) -> Int8Weight | PackedWeight:
    if f"{name}.values" in tensors:
        return Int8Weight(tensors[f"{name}.values"], tensors[f"{name}.scale"])
    return PackedWeight(tensors[f"{name}.panels"], tensors[f"{name}.scale"], tensors[f"{name}.offset"])


# The file


def _names(folder: Path, *parts: object) -> tuple[str, str]:
    """The two parts of the file name: a hash of the checkpoint's folder, and a hash of the checkpoint and `parts`.

    The disk cache keeps one file for each folder.
    """
    config = (folder / "config.json").read_bytes()
    made_from = hashlib.sha256(repr((FORMAT, weight_sums(folder), config, parts)).encode())
    return f"int8-{folder_key(folder)}", made_from.hexdigest()[:16]


def _read(name: str, progress: Progress) -> dict[str, Tensor] | None:
    """The tensors of the file; None if it is missing or damaged."""
    file = find_kept(name, ".safetensors")
    if file is None:
        return None
    try:
        tensors = map_tensors(file)
        size = file.stat().st_size
    except (SafetensorError, OSError) as error:
        logger.warning("The int8 weights in %s cannot be read (%s) and are made again.", file, error)
        return None
    progress(size, size)
    return tensors


def _write(checkpoint: str, made_from: str, make: Callable[[], Iterator[tuple[str, Tensor]]]) -> dict[str, Tensor]:
    """Makes the tensors: in a file, which is mapped, or in memory where the file cannot be written."""
    try:
        file = keep(
            f"{checkpoint}-{made_from}",
            ".safetensors",
            lambda path: write_tensors(path, make()),
            replaces=checkpoint,
        )
        return map_tensors(file)
    except NotKept:
        pass  # `kept` has logged the reason
    except (SafetensorError, OSError) as error:  # no space, or no permission
        logger.warning("The int8 weights cannot be kept (%s): the next start makes them again.", error)
    return dict(make())
