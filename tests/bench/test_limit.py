"""The limit of `rerankd bench` is the matrix products of what a timed call computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rerankd.bench.hardware import computed_tokens
from rerankd.bench.workloads import workload_of
from rerankd.engine.qwen3.layers import TorchLayers
from rerankd.engine.qwen3.linear import float_layers
from rerankd.engine.qwen3.ops import TorchOperations
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config


@pytest.mark.parametrize("name", ["1x30", "5x60", "2x300/128"])
def test_the_tokens_of_a_timed_call(tiny_checkpoint: Path, name: str) -> None:
    prompts = workload_of(name).prompts(seed=0)
    checkpoint = Checkpoint(tiny_checkpoint, read_config(tiny_checkpoint), yes_id=9693, no_id=2152)
    network = load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)
    forward = SharedPrefixForward(network, TorchLayers(network.config, float_layers(network), TorchOperations()))
    forward.logits(prompts[:1])  # the warm-up
    before = forward.tokens_computed
    forward.logits(prompts)
    assert forward.tokens_computed - before == computed_tokens(prompts)
