"""Checkpoints with random weights in the shapes of Qwen3-Reranker, for measuring speed only."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rerankd.engine.qwen3.model import Qwen3Config, Qwen3Reranker
from rerankd.user_folders import cache_folder


@dataclass(frozen=True, slots=True)
class Shape:
    """The differences of the published sizes. tied: the head is the embedding."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    tied: bool


SHAPES = {
    "0.6B": Shape(hidden_size=1024, intermediate_size=3072, num_layers=28, num_heads=16, tied=True),
    "4B": Shape(hidden_size=2560, intermediate_size=9728, num_layers=36, num_heads=32, tied=True),
    "8B": Shape(hidden_size=4096, intermediate_size=12288, num_layers=36, num_heads=32, tied=False),
}
INITIALIZER_RANGE = 0.02
YES_ID, NO_ID = 9693, 2152


def config_json(size: str) -> dict[str, Any]:
    """The fields of a published `config.json` that describe the shape."""
    shape = SHAPES[size]
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 151669,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "attention_bias": False,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
    }


def random_checkpoint(size: str, seed: int = 0) -> Path:
    """Writes the checkpoint once, in bfloat16, in the user's cache folder, and returns its folder.

    It has no tokenizer; prompts must be token ids.
    """
    cache = cache_folder()
    folder = cache / f"random-{size}-seed{seed}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=cache))
    try:
        (unfinished / "config.json").write_text(json.dumps(config_json(size), indent=2))
        save_file(_tensors(size, seed), unfinished / "model.safetensors", {"format": "pt"})
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    return folder


def _tensors(size: str, seed: int) -> dict[str, torch.Tensor]:
    config = Qwen3Config.from_json(config_json(size))
    with torch.device("meta"):
        names = {f"model.{name}": tensor.shape for name, tensor in Qwen3Reranker(config, 1).state_dict().items()}
    del names["model.head"]
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = torch.Size([config.vocab_size, config.hidden_size])
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in names.items():
        if name.endswith("norm.weight"):
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            tensors[name] = torch.empty(shape, dtype=torch.bfloat16).normal_(0, INITIALIZER_RANGE, generator=generator)
    return tensors
