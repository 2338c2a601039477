"""A loaded Qwen3-Reranker: its prompts and its forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import rerankd.types as types
from rerankd.engine import protocols
from rerankd.engine.loading.devices import Execution, return_freed_memory
from rerankd.engine.loading.dtypes import choose_dtype
from rerankd.engine.qwen3.answers import answer_ids
from rerankd.engine.qwen3.int8 import load_int8
from rerankd.engine.qwen3.kernels.choice import choose_kernels
from rerankd.engine.qwen3.kernels.native import NativeLayers, kernels_fit
from rerankd.engine.qwen3.layers import Layers, TorchLayers
from rerankd.engine.qwen3.linear import LayerWeights, float_layers, layer_of, take_weights
from rerankd.engine.qwen3.model import num_parameters
from rerankd.engine.qwen3.ops import GroupedOperations, Operations, TorchOperations
from rerankd.engine.qwen3.prompt import PROMPT_ID, Qwen3Prompt
from rerankd.engine.qwen3.shared_prefix import Reading, SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, Progress, load_reranker, read_config
from rerankd.types import CacheStats, ModelInfo, RerankRequest


class TokenModel:
    """Computes logits of tokenized prompts. Implements `SharesPrefixes` and `ReadsInChunks`."""

    _forward: SharedPrefixForward

    def logits(self, batch: Sequence[types.Prompt]) -> list[float]:
        """logit(yes) − logit(no) of each prompt, float32."""
        return self.read((), [protocols.LastChunk(prompt) for prompt in batch])

    def begin(self, last: protocols.LastChunk, num_tokens: int) -> Reading:
        """See `engine.protocols.ReadsInChunks`."""
        return self._forward.begin(last, num_tokens)

    def read(self, chunks: Sequence[protocols.Chunk], last: Sequence[protocols.LastChunk]) -> list[float]:
        """See `engine.protocols.ReadsInChunks`."""
        logits: list[float] = self._forward(last, chunks).tolist()
        return logits

    @property
    def prefix_stats(self) -> CacheStats:
        """See `engine.protocols.SharesPrefixes`."""
        return self._forward.prefix_stats

    @property
    def tokens_computed(self) -> int:
        """See `engine.protocols.SharesPrefixes`."""
        return self._forward.tokens_computed


class Qwen3Model(TokenModel):
    """Implements `engine.protocols.LoadedModel`, `SharesPrefixes` and `ReadsInChunks`.

    Args:
        name: the name in `ModelInfo`.
        folder: contains config.json, tokenizer.json and *.safetensors.
        notice: a warning for every caller, e.g. about a dtype other than the requested one.

    Raises:
        CheckpointInvalid: a file is damaged, or is not from a Qwen3-Reranker.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        execution: Execution,
        progress: Progress,
        notice: str | None = None,
    ) -> None:
        config = read_config(folder)
        max_tokens = config.max_position_embeddings
        self._prompt = Qwen3Prompt(folder, max_tokens)
        yes_id, no_id = answer_ids(folder, self._prompt, config.vocab_size)
        self._forward = load_forward(Checkpoint(folder, config, yes_id, no_id), execution, progress)
        self._info = ModelInfo(
            name=name,
            kind="qwen3",
            prompt_id=PROMPT_ID,
            max_tokens=max_tokens,
            device=str(execution.device),
            dtype=str(execution.dtype).removeprefix("torch."),
            num_parameters=num_parameters(config),
            folder=str(folder),
            notice=notice,
            kernels=self._forward.kernels,
        )

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self._info

    def encode(self, request: RerankRequest) -> list[types.Prompt]:
        """See Qwen3Prompt.encode."""
        return self._prompt.encode(request)

    def decode(self, token_ids: Sequence[int]) -> str:
        """See Qwen3Prompt.decode."""
        return self._prompt.decode(token_ids)

    def tokenize(self, text: str) -> list[int]:
        """See Qwen3Prompt.tokenize."""
        return self._prompt.tokenize(text)


def load_forward(checkpoint: Checkpoint, execution: Execution, progress: Progress) -> SharedPrefixForward:
    """The fastest forward pass for a checkpoint. With int8 linear layers, the rest is in the device's best dtype.

    Where no library of kernels is there yet, it compiles while the weights load.

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
        if quantize:
            network, weights = load_int8(checkpoint, dtype, progress)
        else:
            network = load_reranker(checkpoint, dtype, device, progress)
        kernels = choosing.result() if choosing else None
    layers: Layers
    if kernels is not None:
        layers = NativeLayers(kernels, network.config, weights or take_weights(network))
    elif weights is not None:
        plain = [layer_of(one, dtype) for one in weights]
        layers = TorchLayers(network.config, plain, _plain_operations(execution))
    else:
        layers = TorchLayers(network.config, float_layers(network), _plain_operations(execution))
    return_freed_memory()
    return SharedPrefixForward(network, layers, execution.deterministic)


def _plain_operations(execution: Execution) -> Operations:
    """The PyTorch operations for the device. Grouped operations depend on the batch, so they are not deterministic."""
    if execution.device.type == "cpu" or execution.deterministic:
        return TorchOperations(execution.dtype == torch.int8)
    return GroupedOperations()
