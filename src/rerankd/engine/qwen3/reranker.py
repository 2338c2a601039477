"""A Qwen3-Reranker checkpoint as the engine runs it: prompt and network together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import torch

from rerankd.engine.qwen3.fast import Prompt, SharedPrefixForward
from rerankd.engine.qwen3.kernels import build_kernels, kernels_fit
from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.engine.qwen3.prompt import PROMPT_ID, Qwen3Prompt
from rerankd.engine.qwen3.weights import Progress, load_reranker
from rerankd.types import EncodedPair, Limits, ModelInfo, Pair


class Qwen3Model:
    """Implements `engine.model.Model`.

    Args:
        name: what callers know it by.
        folder: config.json, tokenizer.json and *.safetensors.
        progress: called with (bytes read, bytes in all).

    Raises:
        CheckpointInvalid: a file is damaged or is not a Qwen3-Reranker's.
    """

    def __init__(self, name: str, folder: Path, device: torch.device, dtype: torch.dtype, progress: Progress) -> None:
        config = json.loads((folder / "config.json").read_text())
        max_tokens = Qwen3Config.from_json(config).max_position_embeddings
        self._prompt = Qwen3Prompt(folder, max_tokens)
        network = load_reranker(folder, config, self._prompt.yes_id, self._prompt.no_id, dtype, device, progress)
        self._forward = served_forward(network)
        self._info = ModelInfo(
            name=name,
            kind="qwen3",
            prompt_id=PROMPT_ID,
            max_tokens=max_tokens,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            num_parameters=sum(parameter.numel() for parameter in network.parameters()),
            folder=str(folder),
        )

    @property
    def info(self) -> ModelInfo:
        """What was loaded."""
        return self._info

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """See Qwen3Prompt.encode."""
        return self._prompt.encode(pairs, instruct, limits)

    def logits(self, batch: Sequence[EncodedPair]) -> list[float]:
        """logit(yes) − logit(no) of each prompt, float32."""
        logits: list[float] = self._forward([Prompt(pair.token_ids, pair.shared_len) for pair in batch]).tolist()
        return logits


def served_forward(network: Qwen3Reranker) -> SharedPrefixForward:
    """The fastest forward pass for the network's device and dtype.

    Kernels are compiled in the background, once a machine; until they are ready the plain operations serve.
    """
    forward = SharedPrefixForward(network)
    weight = network.embed_tokens.weight
    if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and kernels_fit(network.config):
        Thread(target=_use_kernels, args=(forward,), name="rerankd-kernels", daemon=True).start()
    return forward


def _use_kernels(forward: SharedPrefixForward) -> None:
    kernels = build_kernels()
    if kernels is not None:
        forward.operations = kernels
