"""Unpadded attention equals the specification; a kernel that does not never serves."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rerankd.engine.qwen3.gpu_operations import gpu_operations, proven_operations
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.ops import GroupedOperations, Segments, TorchOperations
from rerankd.engine.qwen3.varlen_attention import Kernel, VarlenOperations, torch_kernel
from support.varlen import exact_kernel

TOLERANCE = 1e-5  # of values of standard deviation 1, float32

CPU = torch.device("cpu")

SMALL = Qwen3Config(
    vocab_size=8,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_position_embeddings=40_960,
    tie_word_embeddings=True,
)

Shapes = list[tuple[int, int, int]]
"""Of each segment: its prefix, its number of queries, and how many more keys it has."""


def inputs(
    shapes: Shapes, prefix_lens: list[int], seed: int = 0, first_key: int = 0
) -> tuple[Tensor, Tensor, Tensor, Segments]:
    """Strided, as the layers give them. No segment has the first keys, as in the last layer."""
    random = torch.Generator().manual_seed(seed)
    q_offsets = [0, *accumulate(queries for _, queries, _ in shapes)]
    k_offsets = list(accumulate((queries + more for _, queries, more in shapes), initial=first_key))
    prefixes = [torch.randn(2, length, 2, 16, generator=random) for length in prefix_lens]
    query = torch.randn(q_offsets[-1], 8, 16, generator=random)[:, :4]
    key, value = torch.randn(k_offsets[-1], 8, 16, generator=random)[:, 4:].chunk(2, dim=1)
    of_each = [(prefixes[which][0], prefixes[which][1]) for which, _, _ in shapes]
    return query, key, value, Segments(q_offsets, k_offsets, of_each)


# Against the specification


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20), st.sampled_from([0, 0, 1, 30])), min_size=1, max_size=8),
    st.lists(st.sampled_from([0, 1, 2, 40]), min_size=4, max_size=4),
    st.integers(0, 5),
)
def test_any_segments_and_prefixes_equal_the_specification(shapes: Shapes, prefix_lens: list[int], seed: int) -> None:
    case = inputs(shapes, prefix_lens, seed, first_key=3 * seed)
    expected = TorchOperations().attention(*case).values
    got = VarlenOperations(exact_kernel).attention(*case)
    assert got.scale is None and got.values.shape == expected.shape
    assert (got.values - expected).abs().max() <= TOLERANCE


def test_segments_share_one_copy_of_their_prefix_and_those_without_one_have_no_second_call() -> None:
    calls: list[tuple[int, int, int]] = []

    def recording(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, *rest: Any, **named: Any) -> Any:
        calls.append((len(query), len(key), len(cu_seq_q) - 1))
        return exact_kernel(query, key, value, cu_seq_q, *rest, **named)

    unpadded = VarlenOperations(recording)
    unpadded.attention(*inputs([(0, 3, 0), (1, 5, 0), (0, 2, 0), (2, 7, 0)], [40, 60, 0]))
    assert calls == [(17, 17, 4), (10, 100, 2)]
    calls.clear()
    unpadded.attention(*inputs([(0, 3, 0), (0, 5, 0)], [0]))
    assert calls == [(8, 8, 2)]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4, -1e4])
def test_sums_of_any_size_are_merged(scale: float) -> None:
    """Scores of the prefix up to ±10,000 times those of the segment: its part is all, or nothing, of the result."""
    query, key, value, segments = inputs([(0, 6, 0), (1, 4, 0)], [30, 0])
    prefixes = [(prefix_key * scale, prefix_value) for prefix_key, prefix_value in segments.prefixes]
    case = query, key, value, Segments(segments.q_offsets, segments.k_offsets, prefixes)
    got = VarlenOperations(exact_kernel).attention(*case).values
    assert got.isfinite().all()
    assert (got - TorchOperations().attention(*case).values).abs().max() <= TOLERANCE


def test_equal_and_opposite_sums_are_merged() -> None:
    for prefix_score, own_score, expected in ((1e4, -1e4, 1.0), (-1e4, 1e4, 0.0), (1e4, 1e4, 0.5), (-1e4, -1e4, 0.5)):
        query = torch.ones(1, 4, 16)
        own, prefix = (torch.full((1, 2, 16), score / 4) for score in (own_score, prefix_score))  # 16 ** -0.5 = 1 / 4
        segments = Segments([0, 1], [0, 1], [(prefix, torch.ones(1, 2, 16))])
        got = VarlenOperations(exact_kernel).attention(query, own, torch.zeros(1, 2, 16), segments).values
        assert torch.equal(got, torch.full((1, 64), expected))


def test_the_kernel_of_torch_takes_these_arguments_and_has_these_axes() -> None:
    """Torch's own description of its kernel runs, without a card."""
    query, key, value, segments = inputs([(0, 3, 0), (1, 5, 0), (0, 2, 0)], [40, 60])
    prefixes = [(one.to("meta"), other.to("meta")) for one, other in segments.prefixes]
    segments = Segments(segments.q_offsets, segments.k_offsets, prefixes)
    with torch.inference_mode():
        got = VarlenOperations(torch_kernel()).attention(query.to("meta"), key.to("meta"), value.to("meta"), segments)
    assert got.values.shape == (10, 64)


# At load


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "config",
    [SMALL, replace(SMALL, num_attention_heads=16, num_key_value_heads=8, head_dim=128)],
    ids=["small", "0.6B"],
)
def test_a_right_kernel_serves(config: Qwen3Config, dtype: torch.dtype, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        chosen = proven_operations(config, CPU, dtype, lambda: exact_kernel)
    assert isinstance(chosen, VarlenOperations) and chosen.kernels == "varlen"
    assert [(one.levelname, "unpadded" in one.message) for one in caplog.records] == [("INFO", True)]


def falls_back(open_kernel: Callable[[], Kernel], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        chosen = proven_operations(SMALL, CPU, torch.bfloat16, open_kernel)
    assert isinstance(chosen, GroupedOperations) and chosen.kernels == "plain"
    [line] = caplog.records
    assert line.levelname == "WARNING" and reason in line.getMessage() and "\n" not in line.getMessage()


def causal_from_the_first_key(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """FlashAttention before 2.1 began to count at the other end: the last position saw the first key only."""
    query, _, value, *rest = arguments
    output, lse = exact_kernel(*arguments, **named)
    ones = rest[2] == 1 and named["window_size"] == (-1, 0)
    firsts = rest[1][:-1].long()
    return (value[firsts].repeat_interleave(query.shape[1] // value.shape[1], dim=1), lse) if ones else (output, lse)


def groups_in_another_order(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """The heads of a group and the sequences of one query, exchanged in the log-sum-exps only."""
    output, lse = exact_kernel(*arguments, **named)
    if arguments[5] > 1 or named["window_size"] == (-1, 0):
        return output, lse
    heads, queries = lse.shape
    return output, lse.view(2, heads // 2, queries).transpose(1, 2).reshape(heads, queries)


def changed(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Kernel:
    def kernel(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        return change(*exact_kernel(*arguments, **named))

    return kernel


WRONG: dict[str, tuple[Kernel, str]] = {
    "causal from the first key": (causal_from_the_first_key, "largest error"),
    "not causal": (lambda *rest, **named: exact_kernel(*rest, window_size=(-1, -1)), "largest error"),
    "groups in another order": (groups_in_another_order, "largest error"),
    "base 2": (changed(lambda output, lse: (output, lse / math.log(2))), "largest error"),
    "not a number": (changed(lambda output, lse: (output * math.nan, lse)), "largest error is nan"),
    "one head": (changed(lambda output, lse: (output[:, :1].expand_as(output).clone(), lse)), "largest error"),
    "other axes": (changed(lambda output, lse: (output, lse.T)), "ValueError: output (423, 4, 16), log-sum-exps"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_kernel_does_not_serve(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    kernel, reason = WRONG[fault]
    falls_back(lambda: kernel, reason, caplog)


def test_a_kernel_that_raises_does_not_serve(caplog: pytest.LogCaptureFixture) -> None:
    def old_card(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nException raised from mha_varlen_fwd")

    falls_back(lambda: old_card, "RuntimeError: FlashAttention only supports Ampere GPUs or newer.", caplog)


def test_torchs_kernel_does_not_serve_where_it_cannot_run(caplog: pytest.LogCaptureFixture) -> None:
    falls_back(torch_kernel, "NotImplementedError", caplog)  # on CPUs


def test_a_torch_without_the_kernel_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    falls_back(torch_kernel, "ModuleNotFoundError", caplog)


@pytest.mark.parametrize(("device", "dtype"), [("mps", torch.float16), ("cuda", torch.float32)], ids=str)
def test_what_the_kernel_cannot_take_is_grouped_without_a_word(
    device: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert isinstance(gpu_operations(SMALL, torch.device(device), dtype), GroupedOperations)
    assert not caplog.records
