"""The kind `amx` whole, with emulated tiles: a model's logits are those of the specification, and it is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rerankd.engine.loading.devices import Execution
from rerankd.engine.qwen3 import loaded
from rerankd.engine.qwen3.kernels import choice
from rerankd.engine.qwen3.kernels.kinds import KINDS
from rerankd.engine.qwen3.loaded import Qwen3Model
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from rerankd.types import Prompt
from support.amx import AMX, EMULATED, amx_parts
from support.prompts import prompts

SHAPE = dict(head_dim=128, num_attention_heads=4, num_key_value_heads=2, intermediate_size=160)


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with AMX, but that its tiles are emulated."""
    amx_parts()  # skips where there can be no kernels
    monkeypatch.setattr(choice, "KINDS", tuple(EMULATED if kind == AMX else kind for kind in KINDS))
    monkeypatch.setattr(loaded, "choose_dtype", lambda name, device: torch.bfloat16)  # as it is with AMX


def load(folder: Path, dtype: torch.dtype) -> Qwen3Model:
    execution = Execution(torch.device("cpu"), dtype)
    return Qwen3Model("tiny", folder, execution, lambda done, in_all: None)


def batch() -> list[Prompt]:
    return [one.prompt for one in (*prompts(77, [1, 40, 105, 16]), *prompts(32, [33, 250]), *prompts(0, [12]))]


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.1), (torch.int8, 0.2)], ids=str)
def test_logits_are_those_of_the_specification(
    make_checkpoint: Callable[..., Path], dtype: torch.dtype, bound: float, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(**SHAPE)
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    exact = load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)
    expected = exact([prompt.token_ids for prompt in batch()])
    with caplog.at_level(logging.INFO):
        model = load(folder, dtype)
    assert "Kernels: amx." in caplog.text
    logits = torch.tensor(model.logits(batch()))
    assert expected.std() > 0.5
    assert (logits - expected).abs().max() <= bound


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_a_logit_has_the_same_bits_in_any_batch(make_checkpoint: Callable[..., Path], dtype: torch.dtype) -> None:
    folder, all_prompts = make_checkpoint(**SHAPE), batch()
    together = load(folder, dtype).logits(all_prompts)
    model = load(folder, dtype)
    assert [model.logits([prompt])[0] for prompt in all_prompts] == together
    assert load(folder, dtype).logits(all_prompts[::-1]) == together[::-1]


def test_it_is_the_best_kind_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "instruction_sets", lambda: [name for kind in KINDS for name in kind.instruction_sets])
    assert choice._candidates(torch.bfloat16)[0] == AMX


def test_where_the_processor_or_the_system_refuses_the_next_kind_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A virtual machine may show AMX and not have it: the library itself asks processor and system."""
    amx_parts()
    monkeypatch.setattr(choice, "instruction_sets", lambda: [name for kind in KINDS for name in kind.instruction_sets])
    with caplog.at_level(logging.INFO):
        kernels = choice.choose_kernels(torch.bfloat16)
    permitted = bool(amx_parts(hardware=True).is_available())
    assert (kernels is not None and kernels.kind == AMX) == permitted
    assert ("amx: processor or system do not permit them" in caplog.text) != permitted
