"""A checkpoint with its layers' weights in int8: quantised once, kept on disk, read from there the next time.

Only the matrix products are int8 (weights by output channel, activations by row as they come); embedding, norms,
attention and head stay as they were.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rerankd.engine.qwen3.layers import (
    PRODUCTS,
    Int8Product,
    Int8Weight,
    Layer,
    build_layer,
    joined_weights,
    norm_weights,
)
from rerankd.engine.qwen3.model import DecoderLayer, Qwen3Config, Qwen3Reranker
from rerankd.engine.qwen3.weights import Progress, load_reranker

logger = logging.getLogger(__name__)

FORMAT = "1"  # of the file; another one is not read


def load_int8(
    folder: Path, config: dict[str, Any], yes_id: int, no_id: int, dtype: torch.dtype, progress: Progress
) -> tuple[Qwen3Reranker, list[Layer]]:
    """The network without its layers, and the layers.

    Args:
        dtype: of everything but the products.

    Raises:
        CheckpointInvalid: see `load_reranker`.
    """
    file = _cache_file(folder)
    made_from = _made_from(folder, yes_id, no_id, dtype)
    tensors = _read(file, made_from, progress)
    if tensors is None:
        tensors = _quantize(load_reranker(folder, config, yes_id, no_id, dtype, torch.device("cpu"), progress))
        _write(file, made_from, tensors)
    return _network(Qwen3Config.from_json(config), tensors), _layers(tensors, dtype)


def _quantize(network: Qwen3Reranker) -> dict[str, Tensor]:
    """All tensors by name. Each layer of the network is dropped once it is done: never more memory than both take."""
    layers = list(network.layers)
    network.layers = nn.ModuleList()
    tensors: dict[str, Tensor] = {}
    for index in range(len(layers)):
        layer = layers.pop(0)
        assert isinstance(layer, DecoderLayer)
        tensors |= {f"layers.{index}.{name}": weight.detach().clone() for name, weight in norm_weights(layer).items()}
        for name, weight in joined_weights(layer).items():
            quantized = Int8Weight.of(weight)
            tensors[f"layers.{index}.{name}.values"] = quantized.values
            tensors[f"layers.{index}.{name}.scale"] = quantized.scale
    return tensors | {name: tensor.detach() for name, tensor in network.state_dict().items()}


def _network(config: Qwen3Config, tensors: dict[str, Tensor]) -> Qwen3Reranker:
    with torch.device("meta"):
        network = Qwen3Reranker(replace(config, num_hidden_layers=0), head_rows=len(tensors["head"]))
    network.load_state_dict({name: tensors[name] for name in network.state_dict()}, assign=True)
    network.config = config
    return network.eval().requires_grad_(False)


def _layers(tensors: dict[str, Tensor], dtype: torch.dtype) -> list[Layer]:
    """Packs the weights, and drops each tensor once it is packed."""
    layers: list[Layer] = []
    while (first := f"layers.{len(layers)}.") + "qkv.values" in tensors:
        part = {name.removeprefix(first): tensors.pop(name) for name in list(tensors) if name.startswith(first)}
        products = {
            name: Int8Product(Int8Weight(part.pop(f"{name}.values"), part.pop(f"{name}.scale")), dtype)
            for name in PRODUCTS
        }
        layers.append(build_layer(products, part))
    return layers


# The file


def _cache_file(folder: Path) -> Path:
    """One for each checkpoint's folder: a changed checkpoint replaces its file."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rerankd"
    return cache / f"int8-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}.safetensors"


def _made_from(folder: Path, *parts: object) -> str:
    """What the file was made from: the checkpoint's files by size and time, and how they were read."""
    files = sorted((*folder.glob("*.safetensors"), folder / "config.json"))
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr((FORMAT, stats, parts)).encode()).hexdigest()


def _read(file: Path, made_from: str, progress: Progress) -> dict[str, Tensor] | None:
    """The file's tensors; None where there is none, or it was made from something else."""
    if not file.exists():
        return None
    size = file.stat().st_size
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(file, "pt") as stored:
            if (stored.metadata() or {}).get("made_from") != made_from:
                return None
            names = list(stored.keys())
        for name in names:
            # Opened anew for each tensor: what is mapped counts as this process's memory until it is closed.
            with safe_open(file, "pt") as stored:
                tensors[name] = stored.get_tensor(name).clone()
            progress(min(size, sum(tensor.nbytes for tensor in tensors.values())), size)
    except (SafetensorError, OSError) as error:
        logger.warning("The int8 weights in %s cannot be read (%s) and are made again.", file, error)
        return None
    return tensors


def _write(file: Path, made_from: str, tensors: dict[str, Tensor]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as unfinished:
            written = Path(unfinished) / file.name
            save_file(tensors, written, {"made_from": made_from})
            written.rename(file)
    except (SafetensorError, OSError) as error:  # no space, no right to write
        logger.warning("The int8 weights cannot be kept in %s (%s): the next start makes them again.", file, error)
