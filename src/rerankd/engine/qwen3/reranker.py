"""A Qwen3-Reranker checkpoint as the engine runs it: prompt and network together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

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
        max_tokens = int(config.get("max_position_embeddings", 0))
        self._prompt = Qwen3Prompt(folder, max_tokens)
        self._network = load_reranker(folder, config, self._prompt.yes_id, self._prompt.no_id, dtype, device, progress)
        self._info = ModelInfo(
            name=name,
            kind="qwen3",
            prompt_id=PROMPT_ID,
            max_tokens=max_tokens,
            device=str(device),
            dtype=str(dtype).removeprefix("torch."),
            num_parameters=sum(parameter.numel() for parameter in self._network.parameters()),
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
        logits: list[float] = self._network([pair.token_ids for pair in batch]).tolist()
        return logits
