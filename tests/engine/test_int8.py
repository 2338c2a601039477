"""int8 products: exact sums, small drift, a file that is read again, and a visible way out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes

from rerankd.engine.loading import dtypes
from rerankd.engine.loading.devices import Execution
from rerankd.engine.loading.dtypes import choose_dtype, lacks_int8
from rerankd.engine.loading.open import Choice, open_model
from rerankd.engine.protocols import LastChunk
from rerankd.engine.qwen3.linear import Int8Linear, Int8Weight
from rerankd.engine.qwen3.loaded import load_network
from rerankd.engine.qwen3.ops import quantized
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from support.prompts import prompts

CPU = torch.device("cpu")
SHAPE = dict(head_dim=128, num_attention_heads=4, num_key_value_heads=2)

needs_int8 = pytest.mark.skipif(lacks_int8(CPU) is not None, reason="this processor has no int8 products")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "rerankd"


def load(folder: Path) -> SharedPrefixForward:
    execution = Execution(CPU, torch.int8)
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    return SharedPrefixForward(*load_network(checkpoint, execution, lambda done, in_all: None))


def batch() -> list[LastChunk]:
    return prompts(50, [1, 20, 90, 200, 33])


@needs_int8
@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_rounded_matrices(rows: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = Int8Weight.of(torch.randn(96, 64, generator=generator))
    given = quantized(torch.randn(rows, 64, generator=generator))
    assert given.scale is not None
    exact = (given.values.double() - 128) @ weight.values.double().T * weight.scale.double() * given.scale[:, None]
    product = Int8Linear(weight, dtype)(given).scaled()
    assert product.dtype == dtype
    assert torch.allclose(product.double(), exact, rtol=2**-7 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


def test_rounding_moves_a_weight_by_half_a_step_at_most() -> None:
    weight = torch.randn(33, 70) * torch.logspace(-6, 3, 33)[:, None]
    weight[5] = 0
    rounded = Int8Weight.of(weight)
    error = (rounded.values * rounded.scale[:, None] - weight).abs()
    assert (error <= rounded.scale[:, None] * 0.5001).all()
    assert rounded.values.abs().amax(dim=1)[torch.arange(33) != 5].min() == 127


@needs_int8
def test_logits_stay_near_the_specification(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(**SHAPE)
    exact = load_reranker(
        Checkpoint(folder, read_config(folder), 9693, 2152), torch.float32, CPU, lambda done, in_all: None
    )
    expected = exact([one.prompt.token_ids for one in batch()])
    logits = load(folder)(batch())
    assert expected.max() - expected.min() > 1, "logits this close together would agree by accident"
    assert (logits - expected).abs().max() <= 0.3
    assert not torch.equal(logits, expected)


@needs_int8
def test_the_second_start_reads_what_the_first_one_made(
    make_checkpoint: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(**SHAPE)
    first = load(folder)(batch())
    [file] = cache.glob("int8-*.safetensors")
    with safe_open(file, "pt") as stored:
        names = {"layers.0.qkv.values", "layers.0.qkv.panels"}.intersection(stored.keys())
        assert [stored.get_tensor(name).dtype for name in names] == [torch.int8]
    monkeypatch.setattr("rerankd.engine.qwen3.int8.LayerwiseReader", None)  # the checkpoint is not read again
    assert torch.equal(load(folder)(batch()), first)


@needs_int8
def test_a_changed_checkpoint_is_quantised_anew(
    make_checkpoint: Callable[..., Path], tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    logits = []
    for seed in (0, 1):
        source = make_checkpoint(**SHAPE, seed=seed)
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_bytes((source / name).read_bytes())
        os.utime(folder / "model.safetensors", (seed, seed))
        logits.append(load(folder)(batch()))
        assert len(list(cache.glob("int8-*"))) == 1
    assert (logits[0] - logits[1]).abs().max() > 0.1


@needs_int8
@pytest.mark.parametrize("all_bytes", [True, False])
def test_weights_of_the_same_size_and_time_are_noticed(
    make_checkpoint: Callable[..., Path], tmp_path: Path, cache: Path, all_bytes: bool
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in make_checkpoint(**SHAPE).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    before, first = weights.stat(), load(folder)(batch())
    if all_bytes:
        weights.write_bytes((make_checkpoint(**SHAPE, seed=1) / weights.name).read_bytes())
    else:
        tensors = load_file(weights)
        tensors["model.layers.1.mlp.down_proj.weight"][0] += 8
        save_file(tensors, weights, {"format": "pt"})
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    assert (load(folder)(batch()) - first).abs().max() > 1e-3


def flip(content: bytearray) -> bytes:
    for position in range(5000, len(content), 37):
        content[position] ^= 1
    return bytes(content)


def without_a_tensor(content: bytearray) -> bytes:
    tensors = load_tensors(bytes(content))
    del tensors["layers.1.qkv.scale"]
    return to_bytes(tensors)


def with_another_shape(content: bytearray) -> bytes:
    tensors = load_tensors(bytes(content))
    return to_bytes(tensors | {"norm.weight": torch.ones(7)})


@needs_int8
@pytest.mark.parametrize(
    "damage",
    [flip, without_a_tensor, with_another_shape, lambda content: bytes(content[:1000]), lambda content: b""],
    ids=["flipped", "missing tensor", "wrong shape", "cut off", "empty"],
)
def test_a_damaged_file_is_made_again(
    make_checkpoint: Callable[..., Path],
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytearray], bytes],
) -> None:
    folder = make_checkpoint(**SHAPE)
    first = load(folder)(batch())
    [file] = cache.glob("int8-*.safetensors")
    content = file.read_bytes()
    file.write_bytes(damage(bytearray(content)))
    assert torch.equal(load(folder)(batch()), first)
    assert "cannot be read" in caplog.text
    assert file.read_bytes() == content


@needs_int8
def test_a_folder_that_cannot_be_written_costs_only_time(
    make_checkpoint: Callable[..., Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(make_checkpoint(**SHAPE))(batch())
    for file in cache.glob("int8-*"):
        file.unlink()
        file.mkdir()
        (file / "in the way").touch()
    assert torch.equal(load(make_checkpoint(**SHAPE))(batch()), expected)
    assert "cannot be kept" in caplog.text


def test_without_int8_products_another_dtype_serves_and_says_so(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dtypes, "instruction_sets", lambda: ["avx2"])
    other = choose_dtype("auto", CPU)
    assert choose_dtype("int8", CPU) == other
    with caplog.at_level(logging.WARNING):
        info = open_model(Choice(str(tiny_checkpoint), "cpu", "int8")).info
    assert str(other) == f"torch.{info.dtype}"
    assert info.notice is not None and "VNNI" in info.notice and info.dtype in info.notice


def test_other_models_say_that_they_do_not_heed_it() -> None:
    info = open_model(Choice("embedded", "cpu", "int8", deterministic=True)).info
    assert info.dtype == "float32"
    assert info.notice is not None and "--dtype int8 and --deterministic ignored" in info.notice
