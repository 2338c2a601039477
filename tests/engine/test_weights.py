"""Checkpoints that are not what they should be: refused, with the reason. And how much memory loading takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.errors import CheckpointInvalid, ModelError
from rerankd.types import Limits
from support.pairs_request import pairs_request

Tensors = dict[str, torch.Tensor]
SMALL = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=8)


@pytest.fixture
def copy(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A small checkpoint to damage: `copy(tie_word_embeddings=False)`."""
    folder = tmp_path / "damaged"

    def make(**changes: Any) -> Path:
        return shutil.copytree(make_checkpoint(**{**SMALL, **changes}), folder, symlinks=True)

    yield make
    shutil.rmtree(folder)  # pytest would keep ten megabytes a test


def change_tensors(folder: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def logits(folder: Path) -> list[float]:
    model = open_model(Choice(str(folder), "cpu", "float32"))
    return model.logits(model.prompts.encode(pairs_request([("q", "one"), ("q", "another document")], "i", Limits())))


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointInvalid) as caught:
        open_model(Choice(str(folder), "cpu", "float32"))
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


# Tensors


def test_a_missing_tensor(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_tensors(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert_refused(folder, "lack 1 tensor", "layers.1.mlp.up_proj.weight")


def test_a_missing_embedding(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_tensors(folder, lambda tensors: tensors.pop("model.embed_tokens.weight"))
    assert_refused(folder, "lack model.embed_tokens.weight")


def test_a_missing_head(copy: Callable[..., Path]) -> None:
    folder = copy(tie_word_embeddings=False)
    change_tensors(folder, lambda tensors: tensors.pop("lm_head.weight"))
    assert_refused(folder, "lack lm_head.weight")


def test_a_left_over_tensor(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_tensors(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(16)}))
    assert_refused(folder, "layers.0.self_attn.q_proj.bias", "another kind of model")


def test_a_layer_more_than_the_config_says(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_config(folder, num_hidden_layers=1)
    assert_refused(folder, "layers.1.")


def test_a_tensor_of_another_shape(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(17)}))
    assert_refused(folder, "do not fit config.json", "norm.weight", "17")


def test_a_head_that_lacks_the_rows_of_yes_and_no(copy: Callable[..., Path]) -> None:
    folder = copy(tie_word_embeddings=False)
    # The row of `no` (2152) is there, that of `yes` (9693) is not.
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": torch.ones(5000, 16)}))
    assert_refused(folder, "lm_head.weight", "5000")


def test_a_classifier_with_two_labels(copy: Callable[..., Path]) -> None:
    folder = copy(seq_cls=True)
    change_tensors(folder, lambda tensors: tensors.update({"score.weight": torch.ones(2, 16)}))
    assert_refused(folder, "2 labels", "a reranker has one")


def test_a_tied_checkpoint_that_also_stores_its_head(copy: Callable[..., Path]) -> None:
    folder = copy()
    before = logits(folder)
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(151669, 16)}))
    assert logits(folder) == before


# Files


def test_a_truncated_file(copy: Callable[..., Path]) -> None:
    weights = copy() / "model.safetensors"
    whole = weights.read_bytes()
    for size in (len(whole) - 1, len(whole) // 2, 4, 0):
        weights.write_bytes(whole[:size])
        assert_refused(weights.parent, "model.safetensors", "damaged or incomplete")


def test_a_missing_shard(copy: Callable[..., Path]) -> None:
    folder = copy(shard_size="3MB", tie_word_embeddings=False)
    shard = max(folder.glob("*.safetensors"))
    shard.unlink()
    assert_refused(folder, "lacks", shard.name)


def test_a_shard_that_lacks_a_promised_tensor(copy: Callable[..., Path]) -> None:
    folder = copy(shard_size="3MB", tie_word_embeddings=False)
    shard = max(folder.glob("*.safetensors"))
    tensors = load_file(shard)
    tensors.popitem()
    save_file(tensors, shard)
    assert_refused(folder, "lacks shards", "1 tensor")


def test_the_same_tensor_twice(copy: Callable[..., Path]) -> None:
    folder = copy()
    save_file({"model.norm.weight": torch.zeros(16)}, folder / "other.safetensors")
    assert_refused(folder, "other.safetensors", "holds too", "model.norm.weight")


def test_a_tokenizer_of_another_model(copy: Callable[..., Path]) -> None:
    folder = copy()
    tokenizer = folder / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "</think>"]
    tokenizer.unlink()
    tokenizer.write_text(json.dumps(content))
    assert_refused(folder, "'</think>'", "another model")
    tokenizer.write_text("{}")
    assert_refused(folder, "tokenizer.json cannot be read")


# config.json


@pytest.mark.parametrize(
    "field",
    [
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim", "rms_norm_eps"),
        *("max_position_embeddings", "tie_word_embeddings"),
    ],
)
@pytest.mark.parametrize("null", [False, True])
def test_a_config_without_a_field(copy: Callable[..., Path], field: str, null: bool) -> None:
    folder = copy()
    config = json.loads((folder / "config.json").read_text())
    config.pop(field)
    (folder / "config.json").write_text(json.dumps(config | ({field: None} if null else {})))
    assert_refused(folder, "config.json lacks", field)


def test_a_config_without_rope_theta(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_config(folder, rope_parameters=None, rope_theta=None)
    assert_refused(folder, "config.json lacks rope_theta")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "rope"),
        ({"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope"),
        # `type` is how it was written before transformers 4.45.
        ({"rope_parameters": None, "rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope"),
    ],
    ids=str,
)
def test_a_config_that_asks_for_another_computation(
    copy: Callable[..., Path], changes: dict[str, Any], named: str
) -> None:
    folder = copy()
    change_config(folder, **changes)
    assert_refused(folder, "config.json asks for what Qwen3-Reranker does not have", named)


@pytest.mark.parametrize("text", ["", "[]", "{", '"Qwen3ForCausalLM"'])
def test_a_config_that_is_no_config(copy: Callable[..., Path], text: str) -> None:
    folder = copy()
    (folder / "config.json").write_text(text)
    assert_refused(folder, "config.json cannot be read")


@pytest.mark.parametrize("architectures", [["Qwen2ForCausalLM"], ["BertForMaskedLM"], ["Qwen3Model"], [], None])
def test_another_kind_of_model(copy: Callable[..., Path], architectures: list[str] | None) -> None:
    folder = copy()
    change_config(folder, architectures=architectures)
    assert_refused(folder, "damaged", "not a reranker", *(architectures or []))


def test_every_refusal_is_a_model_error() -> None:
    assert issubclass(CheckpointInvalid, ModelError)


# Memory

BIG = dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=17, num_attention_heads=8, head_dim=64)
LOAD = """
import json, sys
from pathlib import Path
import torch
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

folder, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
before = memory("VmRSS")
model = load_reranker(checkpoint, dtype, torch.device("cpu"), lambda done, in_all: None)
weights = sum(parameter.nbytes for parameter in model.parameters())
print(json.dumps({"weights": weights, "growth": memory("VmHWM") - before}))
"""


@pytest.fixture(scope="module")
def big_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 MB of random bfloat16 weights, without a tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("big")
    config = Qwen3Config(**BIG, vocab_size=151669, num_key_value_heads=8, tie_word_embeddings=True)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Qwen3ForCausalLM(config).state_dict().items()}
    shapes.pop("lm_head.weight")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_takes_little_more_memory_than_the_weights(big_checkpoint: Path, dtype: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOAD, big_checkpoint, dtype], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["weights"] > 290_000_000
    assert measured["growth"] <= measured["weights"] + 300_000_000
    assert measured["growth"] >= 0.9 * measured["weights"], "the weights are not in memory: nothing was measured"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers"),
        ({"num_hidden_layers": "28"}, "num_hidden_layers"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_parameters": "x"}, "rope_parameters"),
        ({"head_dim": 15}, "head_dim"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"max_position_embeddings": "9"}, "max_position_embeddings"),
        ({"vocab_size": []}, "vocab_size"),
    ],
    ids=str,
)
def test_a_malformed_shape_is_named_in_one_sentence(changes: dict[str, object], named: str) -> None:
    from rerankd.bench.random_weights import config_json

    with pytest.raises(CheckpointInvalid, match=named) as raised:
        Qwen3Config.from_json({**config_json("0.6B"), **changes})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


def copied(checkpoint: Path, target: Path) -> Path:
    shutil.copytree(checkpoint, target)
    return target


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_weights_beside_the_adapter_that_was_merged_into_them(
    dtype: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = copied(tiny_checkpoint, tmp_path / "merged")
    save_file({"base_model.model.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert open_model(Choice(str(folder), dtype=dtype)).info.num_parameters > 0


def test_of_two_copies_the_index_says_which_counts(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = copied(make_checkpoint(shard_size="100KB"), tmp_path / "both")
    assert (folder / "model.safetensors.index.json").exists()
    save_file({"model.norm.weight": torch.ones(64)}, folder / "model.safetensors")
    assert open_model(Choice(str(folder), dtype="float32")).info.num_parameters > 0


# The tokens that answer


def add_logit_score(folder: Path, **config: Any) -> Path:
    modules = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "1_LogitScore", "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_LogitScore").mkdir(exist_ok=True)
    (folder / "1_LogitScore/config.json").write_text(json.dumps(config))
    return folder


def test_the_tokens_that_logit_score_names_are_compared(copy: Callable[..., Path]) -> None:
    folder = copy()
    plain = logits(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    yes_id, no_id = tokenizer.token_to_id("yes"), tokenizer.token_to_id("no")
    assert logits(add_logit_score(folder, true_token_id=yes_id, false_token_id=no_id)) == plain
    swapped = logits(add_logit_score(folder, true_token_id=no_id, false_token_id=yes_id))
    assert swapped == pytest.approx([-logit for logit in plain], abs=1e-6)


@pytest.mark.parametrize("ids", [{"true_token_id": 1}, {"true_token_id": 1, "false_token_id": 10**7}])
def test_logit_score_without_two_tokens_of_the_vocabulary(copy: Callable[..., Path], ids: dict[str, int]) -> None:
    assert_refused(add_logit_score(copy(), **ids), "1_LogitScore/config.json", "false_token_id")


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows(copy: Callable[..., Path]) -> None:
    folder = copy()
    change_config(folder, vocab_size=1000)
    assert_refused(folder, "tokenizer.json", "only 1000 rows")
