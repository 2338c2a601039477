"""Quantizes the linear layers of a checkpoint to int8, and caches the result on disk.

Weights have a scale per output channel, activations a scale per row, computed at run time. Embedding, norms, attention
and head are not quantized.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rerankd.engine.loading.checkpoint_files import local_weight_files
from rerankd.engine.loading.checksums import checksum
from rerankd.engine.loading.kept import NotKept, find_kept, keep
from rerankd.engine.qwen3.linear import Int8Weight, LayerWeights, layer_weights
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.engine.qwen3.weights import Checkpoint, Progress, load_reranker

logger = logging.getLogger(__name__)

LINEARS = ("qkv", "output", "gate_up", "down")

FORMAT = "2"  # of the file; part of its name, so files in other formats are ignored


def load_int8(
    checkpoint: Checkpoint, dtype: torch.dtype, progress: Progress
) -> tuple[Qwen3Reranker, Iterator[LayerWeights]]:
    """The network without its layers, and the weights of each layer, freed when they are dropped.

    Args:
        dtype: of everything but the linear layers.

    Raises:
        CheckpointInvalid: see `load_reranker`.
    """
    adapter = checkpoint.adapter and (checkpoint.adapter.scale, checksum(checkpoint.adapter.file))
    answers = (checkpoint.yes_id, checkpoint.no_id, checkpoint.scale)
    name, made_from = _names(checkpoint.folder, *answers, adapter, dtype)
    tensors = _read(f"{name}-{made_from}", progress)
    if tensors is None:
        tensors = _quantize(load_reranker(checkpoint, dtype, torch.device("cpu"), progress))
        _write(name, made_from, tensors)
    return _network(checkpoint.config, tensors), _take_layers(tensors)


def _quantize(network: Qwen3Reranker) -> dict[str, Tensor]:
    """All tensors by name. Drops each layer of the network when its int8 weights exist, to bound the peak memory."""
    layers = list(network.layers)
    network.layers = nn.ModuleList()
    tensors: dict[str, Tensor] = {}
    for index in range(len(layers)):
        quantized = _quantize_layer(layer_weights(layers.pop(0)))
        tensors |= {f"layers.{index}.{name}": tensor for name, tensor in quantized.items()}
    return tensors | {name: tensor.detach() for name, tensor in network.state_dict().items()}


def _quantize_layer(weights: LayerWeights) -> dict[str, Tensor]:
    """The tensors that `_layer_weights` reads."""
    norms = {"input_norm": weights.input_norm, "post_norm": weights.post_norm, "qk_norm": weights.qk_norm}
    linears = {name: getattr(weights, name) for name in LINEARS}
    tensors = {name: weight.detach().clone() for name, weight in norms.items()}
    if weights.qkv_bias is not None:
        tensors["qkv_bias"] = weights.qkv_bias.detach().clone()
    for name, weight in linears.items():
        quantized = Int8Weight.of(weight)
        tensors |= {f"{name}.values": quantized.values, f"{name}.scale": quantized.scale}
    return tensors


def _network(config: Qwen3Config, tensors: dict[str, Tensor]) -> Qwen3Reranker:
    with torch.device("meta"):
        network = Qwen3Reranker(replace(config, num_hidden_layers=0), head_rows=len(tensors["head"]))
    network.load_state_dict({name: tensors[name] for name in network.state_dict()}, assign=True)
    network.config = config
    return network.eval().requires_grad_(False)


def _take_layers(tensors: dict[str, Tensor]) -> Iterator[LayerWeights]:
    """Takes the layers' tensors out of `tensors`, so that each is freed when it is packed."""
    index = 0
    while (prefix := f"layers.{index}.") + "qkv.values" in tensors:
        names = [name for name in tensors if name.startswith(prefix)]
        yield _layer_weights({name.removeprefix(prefix): tensors.pop(name) for name in names})
        index += 1


def _layer_weights(tensors: dict[str, Tensor]) -> LayerWeights:
    linears = {name: Int8Weight(tensors[f"{name}.values"], tensors[f"{name}.scale"]) for name in LINEARS}
    norms = {name: tensors[name] for name in ("input_norm", "post_norm", "qk_norm")}
    return LayerWeights(**linears, **norms, qkv_bias=tensors.get("qkv_bias"))  # type: ignore[arg-type]


# The file


def _names(folder: Path, *parts: object) -> tuple[str, str]:
    """The two parts of the file name: a hash of the checkpoint's folder, and a hash of the checkpoint and `parts`.

    The disk cache keeps one file for each folder.
    """
    checkpoint = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    shards = [shard for shard in local_weight_files(folder) if shard.is_file()]
    sums = [(shard.name, total) for shard, total in zip(shards, _sums(checkpoint, shards), strict=True)]
    made_from = hashlib.sha256(repr((FORMAT, sums, (folder / "config.json").read_bytes(), parts)).encode())
    return f"int8-{checkpoint}", made_from.hexdigest()[:16]


def _sums(checkpoint: str, shards: list[Path]) -> list[str]:
    """The checksum of each shard, from the disk cache if no shard has changed since."""
    marks = [_mark(shard) for shard in shards]
    name = f"sums-{checkpoint}"
    known: dict[str, str] = {}
    if (kept := find_kept(name, ".json")) is not None:
        known = json.loads(kept.read_bytes())
    if set(marks) <= known.keys():
        return [known[mark] for mark in marks]
    sums = [checksum(shard) for shard in shards]
    try:
        content = json.dumps(dict(zip(marks, sums, strict=True)))
        keep(name, ".json", lambda path: path.write_text(content), replaces=name)
    except OSError as error:
        if not isinstance(error, NotKept):
            logger.warning("The checksums of the weights cannot be kept: %s", error)
    return sums


def _mark(shard: Path) -> str:
    """Changes when a file is written or replaced. A program can set size and mtime, but not inode and ctime."""
    found = shard.stat()
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _read(name: str, progress: Progress) -> dict[str, Tensor] | None:
    """The tensors of the file; None if it is missing or damaged."""
    file = find_kept(name, ".safetensors")
    if file is None:
        return None
    tensors: dict[str, Tensor] = {}
    try:
        size = file.stat().st_size
        with safe_open(file, "pt") as stored:
            names = list(stored.keys())
        for tensor in names:
            # Opened again for each tensor: mapped pages count as this process's memory until it is closed.
            with safe_open(file, "pt") as stored:
                tensors[tensor] = stored.get_tensor(tensor).clone()
            progress(min(size, sum(tensor.nbytes for tensor in tensors.values())), size)
    except (SafetensorError, OSError) as error:
        logger.warning("The int8 weights in %s cannot be read (%s) and are made again.", file, error)
        return None
    return tensors


def _write(checkpoint: str, made_from: str, tensors: dict[str, Tensor]) -> None:
    try:
        keep(
            f"{checkpoint}-{made_from}",
            ".safetensors",
            lambda path: save_file(tensors, path),
            replaces=checkpoint,
        )
    except NotKept:
        pass  # `kept` has logged the reason
    except (SafetensorError, OSError) as error:  # no space, or no permission
        logger.warning("The int8 weights cannot be kept (%s): the next start makes them again.", error)
