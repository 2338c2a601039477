"""Tells the kinds of checkpoints apart, and refuses unsupported kinds with a message that names an alternative.

It needs file names and JSON files only, so that a model is refused before its weights are downloaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rerankd.engine.formats import ARCHITECTURES, QWEN3, Format, format_of
from rerankd.engine.loading.adapters import merge_by_hand
from rerankd.engine.loading.checkpoint_files import CONFIG, Modules, read_modules
from rerankd.engine.loading.checkpoint_json import read_object
from rerankd.errors import CheckpointInvalid

ORIGINALS = "Qwen/Qwen3-Reranker-0.6B, -4B and -8B"
SERVED = (
    f"Served are {ORIGINALS}, checkpoints fine-tuned from them, zerank-1, mxbai-rerank-v2, Prism-Qwen3-Reranker, the "
    "texts of Qwen3-VL-Reranker, and sentence-transformers' cross-encoders."
)

OTHER_FORMATS = {
    ".gguf": "GGUF, llama.cpp's format",
    ".onnx": "ONNX",
    ".h5": "TensorFlow's format",
    ".msgpack": "Flax's format",
    ".ot": "Rust's format",
    ".npz": "MLX's format",
}

QUANTIZED = {
    "awq": "AWQ",
    "gptq": "GPTQ",
    "fp8": "FP8",
    "fbgemm_fp8": "FP8",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
}

QUANTIZED_BY_FILE = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ", "hf_quant_config.json": "ModelOpt"}


def refuse_foreign(name: str, folder: Path, names: Collection[str], *, embedding: bool = False) -> None:
    """Refuses the known unsupported kinds.

    Args:
        folder: holds the JSON files.
        names: of all files, including those not downloaded yet.
        embedding: whether an embedding model is wanted.

    Raises:
        CheckpointInvalid: the kind is unsupported, or a JSON file is damaged.
    """
    top = {file for file in names if "/" not in file}
    if CONFIG not in top:
        if "adapter_config.json" in top:
            raise CheckpointInvalid(_lone_adapter(name, folder / "adapter_config.json"))
        if other := _other_format(names):
            raise CheckpointInvalid(f"{name} is in {other}, which is not read. {_instead()}")
        return
    config = read_object(folder / CONFIG)
    if (method := _quantization(config, top)) and not _is_fp8(config):
        raise CheckpointInvalid(
            f"{name} is a quantised checkpoint ({method}), which is not read. Take the original in 16 or 32 bits, "
            f"e.g. {ORIGINALS}; --dtype int8 quantises it here."
        )
    named = architectures(config)
    reads_images = "vision_config" in config or any("VL" in each or "Vision" in each for each in named)
    if reads_images and format_of(name, folder, config) is None:
        raise CheckpointInvalid(
            f"{name} is a reranker or model for images and text ({', '.join(named) or 'with a vision_config'}), which "
            f"is not served. {SERVED}"
        )
    if not embedding:
        refuse_embedding(name, named, read_modules(folder))
    _refuse_weights(name, named, config, top, names)


def layout_of(name: str, folder: Path) -> Format | None:
    """The prompt and head of a supported checkpoint on a Qwen network; None for a cross-encoder.

    Raises:
        CheckpointInvalid: the kind is unsupported.
    """
    config = read_object(folder / CONFIG)
    named = architectures(config)
    if (layout := format_of(name, folder, config)) is not None:
        return layout
    if "auto_map" in config:
        raise CheckpointInvalid(
            f"{name} ({', '.join(named) or 'no architecture'}) needs code of its own (auto_map in config.json), and "
            f"code that comes with a model is never run. {SERVED}"
        )
    # transformers would add a random classifier if there is none.
    if not (folder / "modules.json").exists() and not any("SequenceClassif" in each for each in named):
        raise CheckpointInvalid(f"{name} is a {', '.join(named) or 'model of no kind'}, not a reranker. {SERVED}")
    return None


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The architectures that config.json names.

    Raises:
        CheckpointInvalid: the field is not a list of strings.
    """
    named = config.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise CheckpointInvalid("config.json: architectures is not a list of strings.")
    return named


def refuse_embedding(name: str, named: Collection[str], modules: Modules | None) -> None:
    """Raises CheckpointInvalid for an embedding model."""
    if modules is None or not modules.kinds or modules.kinds[-1] not in ("Pooling", "Normalize"):
        return
    family = "Qwen3-Embedding" if set(named) & QWEN3 else "it ends in " + modules.kinds[-1]
    raise CheckpointInvalid(f"{name} is an embedding model ({family}), not a reranker. {SERVED}")


def _refuse_weights(
    name: str, named: Collection[str], config: Mapping[str, Any], top: Collection[str], names: Collection[str]
) -> None:
    if any(file.endswith(".safetensors") and not file.startswith("adapter_") for file in top):
        return
    has_bin = any(file.startswith("pytorch_model") for file in top)
    if has_bin and not set(named) & ARCHITECTURES and named:
        return  # sentence-transformers reads it without running code from it
    if has_bin:
        raise CheckpointInvalid(
            f"{name} has its weights as pytorch_model.bin only: it lacks *.safetensors. Of Qwen3-Reranker that is not "
            'read; convert it: python -c "from transformers import AutoModelForCausalLM as M; '
            "M.from_pretrained('FOLDER').save_pretrained('NEW_FOLDER')\", and copy the tokenizer's files."
        )
    if other := _other_format(names):
        raise CheckpointInvalid(f"{name} has its weights in {other} only, which is not read. {_instead()}")


def _lone_adapter(name: str, path: Path) -> str:
    base = read_object(path).get("base_model_name_or_path")
    of = f" for {base[:200]}" if isinstance(base, str) and base else ""
    return (
        f"{name} is a LoRA adapter{of}, not a whole model. Download it into a folder and pass the folder: it is merged "
        f"with its model at load. Or: {merge_by_hand('the base model')}"
    )


def _other_format(names: Collection[str]) -> str | None:
    return next((what for suffix, what in OTHER_FORMATS.items() if any(file.endswith(suffix) for file in names)), None)


def foreign_file(name: str) -> str | None:
    """The message for a single file given instead of a folder; None if its format is unknown."""
    other = _other_format([name.lower()])
    return f"{name} is in {other}, which is not read. {_instead()}" if other else None


def _instead() -> str:
    return f"Take the original checkpoint (config.json and *.safetensors), e.g. {ORIGINALS}."


def _quantization(config: Mapping[str, Any], files: Collection[str]) -> str | None:
    """The quantization of the weights, or None."""
    if given := config.get("quantization"):  # MLX writes the same as quantization_config, too, without a method
        return f"MLX{_bits(given) if isinstance(given, dict) else ''}"
    given = config.get("quantization_config") or config.get("compression_config")
    if given:
        method = given.get("quant_method") if isinstance(given, dict) else None
        bits = _bits(given) if isinstance(given, dict) else ""
        return f"{QUANTIZED.get(str(method), str(method)[:40] if method else 'of an unknown method')}{bits}"
    return next((method for file, method in QUANTIZED_BY_FILE.items() if file in files), None)


def _is_fp8(config: Mapping[str, Any]) -> bool:
    """Whether weights are FP8 with their scales beside them, which are dequantized as they are read."""
    given = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(given, dict):
        return False
    method = given.get("quant_method")
    blocks = given.get("weight_block_size") or [128, 128]
    return (method in ("fp8", "fbgemm_fp8") and blocks == [128, 128]) or (
        method == "compressed-tensors" and given.get("format") == "float-quantized"
    )


def _bits(given: Mapping[str, Any]) -> str:
    bits = given.get("bits") or (4 if given.get("load_in_4bit") else 8 if given.get("load_in_8bit") else None)
    return f", {bits} bit" if isinstance(bits, int) else ""
