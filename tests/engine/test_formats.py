"""Other families of rerankers: their makers' token ids, and the logits of transformers on random checkpoints."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rerankd.engine.formats import format_of
from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.protocols import LoadedModel
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.errors import CheckpointInvalid
from rerankd.types import DEFAULT_INSTRUCT, Limits, RerankRequest
from support.families import FAMILIES, Family, Triple, change
from support.texts import make_text

TOLERANCE = 1e-4

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@pytest.fixture(scope="module")
def checkpoint_of(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    made: dict[str, Path] = {}

    def make(family: Family) -> Path:
        if family.name not in made:
            made[family.name] = folder = tmp_path_factory.mktemp("family") / family.name
            folder.mkdir()
            torch.manual_seed(0)
            family.write(folder)
            for file in tokenizer_folder.iterdir():
                (folder / file.name).symlink_to(file)
        return made[family.name]

    return make


def load(folder: Path, dtype: str = "float32") -> LoadedModel:
    return open_model(Choice(str(folder), device="cpu", dtype=dtype))


def triples(count: int, seed: int) -> list[Triple]:
    rng = random.Random(seed)
    return [
        (
            make_text(rng, rng.choice([0, 0, 5, 20])),
            make_text(rng, rng.randint(1, 12)),
            make_text(rng, rng.randint(0, 60)),
        )
        for _ in range(count)
    ]


def request(triple: Triple) -> RerankRequest:
    instruct, query, document = triple
    return RerankRequest((query,), (document,), instruct or DEFAULT_INSTRUCT, limits=Limits())


@each_family
def test_300_prompts_in_16_scripts_are_their_makers(
    family: Family, checkpoint_of: Callable[[Family], Path], reference_tokenizer: Any
) -> None:
    folder = checkpoint_of(family)
    layout = format_of(family.name, folder, json.loads((folder / "config.json").read_text()))
    assert layout is not None and layout.prompt_id == family.prompt_id
    prompts = Qwen3Prompt(folder, 40_960, layout)
    for triple in triples(300, seed=3):
        [ours] = prompts.encode(request(triple))
        assert list(ours.token_ids) == family.prompt_ids(reference_tokenizer, triple), triple
        assert tuple(ours.token_ids[: ours.shared_len]) == ours.prefix


@each_family
def test_the_logits_are_those_of_transformers(
    family: Family, checkpoint_of: Callable[[Family], Path], reference_tokenizer: Any
) -> None:
    folder = checkpoint_of(family)
    model = load(folder)
    assert model.info.prompt_id == family.prompt_id
    some = triples(12, seed=4)
    prompts = [model.prompts.encode(request(triple))[0] for triple in some]
    theirs = family.logits(folder, reference_tokenizer, [list(prompt.token_ids) for prompt in prompts])
    ours = model.logits(prompts)
    assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= TOLERANCE
    assert max(theirs) - min(theirs) > 0.3, "logits this close together would agree by accident"


@each_family
def test_int8_stays_near_float32(family: Family, checkpoint_of: Callable[[Family], Path]) -> None:
    folder = checkpoint_of(family)
    some = [request(triple) for triple in triples(8, seed=5)]
    exact, int8 = load(folder), load(folder, "int8")
    spread = [exact.logits(exact.prompts.encode(one))[0] for one in some]
    for one, logit in zip(some, spread, strict=True):
        assert abs(int8.logits(int8.prompts.encode(one))[0] - logit) < 0.5 * (max(spread) - min(spread))


@each_family
def test_documents_of_one_query_share_its_prefix(family: Family, checkpoint_of: Callable[[Family], Path]) -> None:
    model = load(checkpoint_of(family))
    first, second = model.prompts.encode(RerankRequest(("a red planet",), ("Mars is red.", "Venus is white.")))
    assert first.prefix == second.prefix and first.shared_len > len(model.prompts.tokenize("a red planet"))


def test_zerank_reads_no_instruct(checkpoint_of: Callable[[Family], Path]) -> None:
    assert not load(checkpoint_of(FAMILIES[0])).info.reads_instruct


@each_family
def test_a_long_document_loses_its_end_and_never_the_template(
    family: Family, checkpoint_of: Callable[[Family], Path]
) -> None:
    model = load(checkpoint_of(family))
    short, long = (
        RerankRequest(("planet",), ("Mars is red. " * n,), limits=Limits(max_prompt_tokens=400)) for n in (1, 900)
    )
    [whole], [cut] = model.prompts.encode(short), model.prompts.encode(long)
    assert len(cut.token_ids) <= 400 and cut.truncations
    assert list(cut.token_ids[-5:]) == list(whole.token_ids[-5:])


def test_a_model_for_images_that_is_no_reranker_is_refused(
    checkpoint_of: Callable[[Family], Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoint_of(FAMILIES[3]), folder := tmp_path / "Qwen3-VL-2B-Instruct", symlinks=True)
    with pytest.raises(CheckpointInvalid, match="images and text"):
        load(folder)


def test_a_qwen2_of_no_known_format_is_no_reranker(checkpoint_of: Callable[[Family], Path], tmp_path: Path) -> None:
    shutil.copytree(checkpoint_of(FAMILIES[1]), folder := tmp_path / "Qwen2.5-0.5B", symlinks=True)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointInvalid, match="not a reranker"):
        load(folder)


# Weights that are changed as they are read


def logits(folder: Path) -> list[float]:
    model = load(folder)
    return model.logits(model.prompts.encode(RerankRequest(("capital of China?",), ("Beijing.", "It is Beijing.", ""))))


def test_fp8_weights_are_dequantized(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    original = make_checkpoint(hidden_size=192, intermediate_size=320)
    quantized, plain = tmp_path / "fp8", tmp_path / "dequantized"
    for folder in (quantized, plain):
        shutil.copytree(original, folder, symlinks=True)
    stored, expected = {}, {}
    for name, weight in load_file(original / "model.safetensors").items():
        if not name.endswith("proj.weight"):
            stored[name] = expected[name] = weight
            continue
        rows, columns = weight.shape
        scale = torch.rand(-(-rows // 128), -(-columns // 128)) * 0.02 + 0.001
        full = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        stored[name] = (weight / full).clamp(-440, 440).to(torch.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scale
        expected[name] = stored[name].float() * full
    save_file(stored, quantized / "model.safetensors", {"format": "pt"})
    save_file(expected, plain / "model.safetensors", {"format": "pt"})
    change(quantized, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    assert logits(quantized) == logits(plain)


@pytest.mark.parametrize("rank_scaled", [False, True])
def test_a_lora_adapter_is_merged(make_checkpoint: Callable[..., Path], tmp_path: Path, rank_scaled: bool) -> None:
    base, adapter, merged = make_checkpoint(), tmp_path / "adapter", tmp_path / "merged"
    adapter.mkdir()
    shutil.copytree(base, merged, symlinks=True)
    weights = load_file(base / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    changes: dict[str, torch.Tensor] = {}
    for name in [name for name in weights if name.endswith(("q_proj.weight", "down_proj.weight"))]:
        outputs, inputs = weights[name].shape
        down, up = (torch.randn(shape, generator=generator) * 0.1 for shape in ((4, inputs), (outputs, 4)))
        module = f"base_model.model.{name.removesuffix('.weight')}"
        changes |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        weights[name] = weights[name].float() + 8 / (4**0.5 if rank_scaled else 4) * (up @ down)
    save_file(changes, adapter / "adapter_model.safetensors")
    save_file(weights, merged / "model.safetensors", {"format": "pt"})
    config = {
        "base_model_name_or_path": str(base),
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": rank_scaled,
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert logits(adapter) == pytest.approx(logits(merged), abs=1e-5)
    assert abs(logits(adapter)[0] - logits(base)[0]) > 1e-2
    assert load(adapter).info.name == "adapter"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "only LoRA"),
        ({"base_model_name_or_path": None}, "base model"),
        ({"r": 0}, "r is 0"),
    ],
    ids=str,
)
def test_other_adapters_are_refused_by_their_name(changed: dict[str, Any], named: str, tmp_path: Path) -> None:
    config = {"base_model_name_or_path": "Qwen/Qwen3-Reranker-0.6B", "peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changed}))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointInvalid, match=named):
        load(tmp_path)


def test_an_adapter_of_pickled_weights_is_refused(tmp_path: Path) -> None:
    config = {"base_model_name_or_path": "Qwen/Qwen3-Reranker-0.6B", "peft_type": "LORA", "r": 4, "lora_alpha": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointInvalid, match=r"adapter_model\.bin, which is not read\. Merge it: "):
        load(tmp_path)
