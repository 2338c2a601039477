"""Small random Qwen3 checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

TINY = dict(
    vocab_size=151669,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=16,  # 8 heads × 16 = 128, not hidden_size
    max_position_embeddings=40960,
    rope_theta=1_000_000.0,
    tie_word_embeddings=True,
    initializer_range=0.15,  # large enough that logits differ by whole units
)


def write_checkpoint(
    folder: Path,
    tokenizer_folder: Path,
    *,
    seq_cls: bool = False,
    shard_size: str = "5GB",
    seed: int = 0,
    **changes: Any,
) -> None:
    """Writes one, with the real tokenizer.

    Args:
        seq_cls: converted as tomaarsen's checkpoints are: one row, yes − no.
        changes: of the configuration.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(**{**TINY, **changes})
    model: Any = Qwen3ForCausalLM(config).eval()
    if seq_cls:
        config.num_labels = 1
        converted = Qwen3ForSequenceClassification(config).eval()
        converted.model.load_state_dict(model.model.state_dict())
        head = model.lm_head.weight
        converted.score.weight.data = (head[9693] - head[2152])[None]
        model = converted
    model.save_pretrained(folder, max_shard_size=shard_size)
    for file in tokenizer_folder.iterdir():
        (folder / file.name).symlink_to(file)
