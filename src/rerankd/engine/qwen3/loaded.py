"""A loaded Qwen3-Reranker: its prompts and its forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import torch

import rerankd.types as types
from rerankd.engine import protocols
from rerankd.engine.loading.devices import Execution, return_freed_memory
from rerankd.engine.loading.dtypes import choose_dtype
from rerankd.engine.qwen3.answers import answer_ids
from rerankd.engine.qwen3.int8 import load_int8
from rerankd.engine.qwen3.kernels import build_kernels, kernels_fit
from rerankd.engine.qwen3.linear import float_layers
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

    The kernels compile in the background, once per machine, while the plain operations serve. A deterministic
    execution waits for them.

    Raises:
        CheckpointInvalid: see `load_reranker`.
    """
    device, quantize = execution.device, execution.dtype == torch.int8
    if quantize:
        network, layers = load_int8(checkpoint, choose_dtype("auto", device), progress)
    else:
        network = load_reranker(checkpoint, execution.dtype, device, progress)
        layers = float_layers(network)
    return_freed_memory()
    forward = SharedPrefixForward(network, layers, _plain_operations(execution), execution.deterministic)
    weight = network.embed_tokens.weight
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and kernels_fit(network.config):
        compiling = Thread(target=_use_kernels, args=(forward, quantize), name="rerankd-kernels", daemon=True)
        compiling.start()
        if execution.deterministic:
            compiling.join()
    return forward


def _plain_operations(execution: Execution) -> Operations:
    """The PyTorch operations for the device. Grouped operations depend on the batch, so they are not deterministic."""
    if execution.device.type == "cpu" or execution.deterministic:
        return TorchOperations(execution.dtype == torch.int8)
    return GroupedOperations()


def _use_kernels(forward: SharedPrefixForward, quantize: bool) -> None:
    kernels = build_kernels(quantize)
    if kernels is not None:
        forward.operations = kernels
