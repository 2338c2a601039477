"""A loaded reranker on a Qwen network: its prompts and its forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from rerankd.engine.formats import QWEN3_RERANKER, Format
from rerankd.engine.loading.adapters import Adapter
from rerankd.engine.loading.device_memory import free_bytes
from rerankd.engine.loading.devices import Execution, return_freed_memory
from rerankd.engine.loading.dtypes import choose_dtype
from rerankd.engine.qwen3.answers import answer_ids
from rerankd.engine.qwen3.batch_tokens import batch_tokens
from rerankd.engine.qwen3.gpu_operations import gpu_operations
from rerankd.engine.qwen3.int8 import load_int8
from rerankd.engine.qwen3.kernels.choice import choose_kernels
from rerankd.engine.qwen3.kernels.native import NativeLayers, kernels_fit
from rerankd.engine.qwen3.kernels.packing import Packer
from rerankd.engine.qwen3.layers import Layers, TorchLayers
from rerankd.engine.qwen3.linear import LayerWeights, float_layers, layer_of, take_weights
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker, num_parameters
from rerankd.engine.qwen3.ops import Operations, TorchOperations
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, Progress, load_reranker, read_config
from rerankd.types import ModelInfo


class Qwen3Model(SharedPrefixForward):
    """A checkpoint, ready to score. Implements `engine.protocols.LoadedModel`.

    Args:
        name: the name in `ModelInfo`.
        folder: contains config.json, tokenizer.json and *.safetensors.
        notice: a warning for every caller, e.g. about a dtype other than the requested one.
        layout: its prompt and head.
        adapter: is merged into the weights.

    Raises:
        CheckpointInvalid: a file is damaged, or is of another kind of model.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        execution: Execution,
        progress: Progress,
        notice: str | None = None,
        layout: Format = QWEN3_RERANKER,
        adapter: Adapter | None = None,
    ) -> None:
        config = read_config(folder)
        max_tokens = config.max_position_embeddings
        self.prompts = Qwen3Prompt(folder, max_tokens, layout)
        answers = answer_ids(folder, self.prompts, config.vocab_size)
        checkpoint = Checkpoint(folder, config, *answers, layout.scale, adapter)
        network, layers = load_network(checkpoint, execution, progress)
        super().__init__(network, layers, execution.deterministic)
        itemsize = network.embed_tokens.weight.itemsize
        free = None if execution.deterministic else free_bytes(execution.device)  # chunks end where they always end
        self.max_batch_tokens = batch_tokens(config, itemsize, free)
        self.info = ModelInfo(
            name=name,
            kind="qwen2" if config.qwen2 else "qwen3",
            prompt_id=layout.prompt_id,
            max_tokens=max_tokens,
            device=str(execution.device),
            dtype=str(execution.dtype).removeprefix("torch."),
            num_parameters=num_parameters(config),
            folder=str(folder),
            notice=notice,
            kernels=layers.kernels,
            reads_instruct=layout.reads_instruct,
        )


def load_network(checkpoint: Checkpoint, execution: Execution, progress: Progress) -> tuple[Qwen3Reranker, Layers]:
    """A checkpoint's network, and the fastest layers for it.

    With int8 linear layers, the other operations use the device's best dtype.

    Where no library of kernels is there yet, it compiles while float weights load; int8 weights wait for it.

    Raises:
        CheckpointInvalid: see `load_reranker`.
        SettingsError: see `choose_kernels`.
    """
    device, quantize = execution.device, execution.dtype == torch.int8
    dtype = choose_dtype("auto", device) if quantize else execution.dtype
    with ThreadPoolExecutor(1, "rerankd-kernels") as other:
        fits = device.type == "cpu" and kernels_fit(checkpoint.config)
        choosing = other.submit(choose_kernels, dtype) if fits else None
        weights: Iterator[LayerWeights] | None = None
        if quantize:  # the weights are packed for the kernels before they are written
            kernels = choosing.result() if choosing else None
            network, weights = load_int8(checkpoint, dtype, progress, Packer(kernels) if kernels else None)
        else:
            network = load_reranker(checkpoint, dtype, device, progress)
            kernels = choosing.result() if choosing else None
    layers: Layers
    if kernels is not None:
        layers = NativeLayers(kernels, network.config, weights or take_weights(network))
    elif weights is not None:
        plain = [layer_of(one, dtype) for one in weights]
        layers = TorchLayers(network.config, plain, _plain_operations(network.config, dtype, execution))
    else:
        layers = TorchLayers(network.config, float_layers(network), _plain_operations(network.config, dtype, execution))
    return_freed_memory()
    return network, layers


def _plain_operations(config: Qwen3Config, dtype: torch.dtype, execution: Execution) -> Operations:
    """The PyTorch operations for the device. Those of GPUs depend on the batch, so they are not deterministic."""
    if execution.device.type == "cpu" or execution.deterministic:
        return TorchOperations(execution.dtype == torch.int8)
    return gpu_operations(config, execution.device, dtype)
