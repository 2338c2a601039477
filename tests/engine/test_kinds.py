"""A checkpoint that is not served is called by its name; whatever stands in its files, the answer is one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rerankd.bench.random_weights import config_json
from rerankd.engine.loading.kinds import layout_of, refuse_foreign
from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.errors import CheckpointInvalid, ModelError

QWEN3 = config_json("0.6B")
WEIGHTS = ("model.safetensors", "tokenizer.json")


def refusal(folder: Path, config: Any, *files: str) -> str:
    """What is said of a folder with this config.json, and files of these names."""
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    names = ["config.json"] * (config is not None) + list(files)
    with pytest.raises(CheckpointInvalid) as raised:
        refuse_foreign("org/model", folder, names)
        layout_of("org/model", folder)
    told = str(raised.value)
    assert "\n" not in told and "trust_remote_code" not in told and "hf.co//" not in told
    return told


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "AWQ, 4 bit"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "GPTQ, 8 bit"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}, "FP8"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes, 4 bit"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX, 4 bit"),
        ({name: {"group_size": 64, "bits": 8} for name in ("quantization", "quantization_config")}, "MLX, 8 bit"),
        ({"quantization_config": "x"}, "unknown method"),
        ({"architectures": ["Qwen3VLForConditionalGeneration"], "vision_config": {}}, "images and text"),
        ({"architectures": ["NewForSequenceClassification"], "auto_map": {"AutoModel": "m.M"}}, "code of its own"),
        ({"architectures": ["LlamaForCausalLM"]}, "not a reranker"),
        ({"architectures": 5}, "architectures"),
    ],
    ids=str,
)
def test_what_is_not_served_is_called_by_its_name(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    assert named in refusal(tmp_path, {**QWEN3, **changes}, *WEIGHTS)


def test_an_adapter_alone_says_how_it_is_merged(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-Reranker-0.6B"}')
    told = refusal(tmp_path, None, "adapter_config.json", "adapter_model.safetensors")
    assert "LoRA adapter for Qwen/Qwen3-Reranker-0.6B" in told and "Merge it" in told


@pytest.mark.parametrize(("file", "named"), [("m-Q4_K_M.gguf", "GGUF"), ("weights.npz", "MLX"), ("model.onnx", "ONNX")])
def test_other_formats_are_named(file: str, named: str, tmp_path: Path) -> None:
    assert named in refusal(tmp_path, QWEN3, "tokenizer.json", file)


def test_qwen3_embedding_is_no_reranker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "embedding"
    shutil.copytree(tiny_checkpoint, folder)
    save_file({"embed_tokens.weight": torch.ones(4, 64)}, folder / "model.safetensors")
    with pytest.raises(CheckpointInvalid, match="Qwen3-Embedding"):
        open_model(Choice(str(folder), dtype="float32"))


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = (*QWEN3, "rope_parameters", "rope_scaling", "quantization_config", "vision_config", "auto_map", "quantization")


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
@settings(max_examples=500, deadline=None)
def test_any_config_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    config = {**QWEN3, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    try:
        refuse_foreign("org/model", folder, ["config.json", *WEIGHTS])
        layout_of("org/model", folder)
        Qwen3Config.from_json(config)
    except ModelError as error:
        assert "\n" not in str(error)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_weights_are_refused_in_a_sentence(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        shutil.copytree(tiny_checkpoint, folder)
    whole = (tiny_checkpoint / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    place = data.draw(st.integers(0, header - 1))
    damaged = whole[:place] + data.draw(st.binary(min_size=1, max_size=4)) + whole[place + 1 : header + 100]
    (folder / "model.safetensors").write_bytes(damaged)
    with pytest.raises(ModelError) as raised:
        open_model(Choice(str(folder), dtype="float32"))
    assert len(str(raised.value)) < 1000
