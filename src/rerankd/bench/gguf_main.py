"""Writes a checkpoint as GGUF, for llama.cpp. Runs alone, in the environment that has the package gguf.

    python gguf_main.py model.gguf < job.json

The job is `peer_main.Job`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf


def write_gguf(job: dict[str, Any], path: Path) -> None:
    """The checkpoint as llama.cpp's converter writes it, but for the tokenizer, whose words are the token ids."""
    config = json.loads(Path(job["folder"], "config.json").read_text())
    kind = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0"}[job["dtype"]]
    writer = gguf.GGUFWriter(path, "qwen3", use_temp_file=True)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    writer.add_chat_template([{"name": "rerank", "template": "{query} {document}"}])
    writer.add_tokenizer_model("bert")  # the one that splits at spaces and looks whole words up
    writer.add_token_list([f"▁{token_id}" for token_id in range(config["vocab_size"])])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    head_name = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    for name, values in _tensors(Path(job["folder"])):
        if name == head_name:
            writer.add_tensor("cls.output.weight", values[[job["yes_id"], job["no_id"]]])
        stored = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        converted = gguf.quants.quantize(values, stored)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), converted, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(folder: Path) -> Iterator[tuple[str, Any]]:
    """The tensors of all safetensors files, as float32 arrays; NumPy knows no bfloat16."""
    import numpy as np

    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header_len = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_len))
        data = np.memmap(path, np.uint8, "r", 8 + header_len)
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            raw = data[begin:end]
            if entry["dtype"] == "BF16":
                values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = raw.view({"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
            yield name, values.reshape(entry["shape"])


if __name__ == "__main__":
    write_gguf(json.load(sys.stdin), Path(sys.argv[1]))
