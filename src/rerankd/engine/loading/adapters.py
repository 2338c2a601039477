"""A folder with a LoRA adapter: which model it belongs to, and how it changes the model's weights. Reads no weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.engine.loading.checkpoint_files import CONFIG
from rerankd.engine.loading.checkpoint_json import Field, check_fields, read_object
from rerankd.errors import CheckpointInvalid

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias")
"""Options of PEFT that change more than W + scale · B · A, or change it by module."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Adds `scale` · B · A to the weights that the file names.

    Attributes:
        file: the adapter's safetensors.
        base: the name or folder of its model.
    """

    file: Path
    base: str
    scale: float


def adapter_in(folder: Path) -> Adapter | None:
    """The adapter of a folder that holds one without its model, or None.

    Raises:
        CheckpointInvalid: its configuration is damaged, or asks for something other than plain LoRA.
    """
    path = folder / ADAPTER_CONFIG
    if not path.is_file() or (folder / CONFIG).is_file():
        return None
    config = read_object(path)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointInvalid(f"{path} names no base model (base_model_name_or_path).")
    if config.get("peft_type", "LORA") != "LORA" or config.get("bias", "none") != "none":
        raise CheckpointInvalid(f"{path}: only LoRA adapters without biases are merged. {merge_by_hand(base)}")
    if asked := [name for name in UNSUPPORTED if config.get(name)]:
        raise CheckpointInvalid(f"{path} uses {', '.join(asked)}, which is not merged at load. {merge_by_hand(base)}")
    if (folder / "adapter_model.bin").is_file() and not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointInvalid(
            f"{folder} has its weights as adapter_model.bin, which is not read. {merge_by_hand(base)}"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise CheckpointInvalid(f"{folder} lacks {ADAPTER_WEIGHTS}.")
    return Adapter(folder / ADAPTER_WEIGHTS, base, _scale(str(path), config))


def merge_by_hand(base: str) -> str:
    """How a user merges an adapter."""
    return (
        'Merge it: python -c "from peft import AutoPeftModelForCausalLM as M; '
        "M.from_pretrained('ADAPTER').merge_and_unload().save_pretrained('FOLDER')\", copy the tokenizer files of "
        f"{base[:200]} there, and pass FOLDER."
    )


def _scale(where: str, config: Mapping[str, Any]) -> float:
    check_fields(where, config, {"r": Field(int, 1, 65_536), "lora_alpha": Field(float, 0, 1e6)})
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
