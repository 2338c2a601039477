"""The served forward pass equals its specification, and the kernels equal the plain operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.engine.protocols import LastChunk
from rerankd.engine.qwen3.kernels import KernelOperations, build_kernels
from rerankd.engine.qwen3.kv_cache import PrefixCache, num_shared
from rerankd.engine.qwen3.linear import float_layers
from rerankd.engine.qwen3.model import Qwen3Reranker
from rerankd.engine.qwen3.ops import GroupedOperations, Operations, Rows, Segments, TorchOperations
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from support.prompts import prompts

TOLERANCE = 1e-4  # logits, float32

SMALL = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=48, num_attention_heads=4, head_dim=8)


def network(folder: Path) -> Qwen3Reranker:
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    return load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)


def fast_forward(network: Qwen3Reranker, operations: Operations | None = None) -> SharedPrefixForward:
    return SharedPrefixForward(network, float_layers(network), operations or TorchOperations())


@pytest.fixture(scope="module")
def plain(make_checkpoint: Callable[..., Path]) -> Qwen3Reranker:
    return network(make_checkpoint(**SMALL))


@pytest.fixture(scope="module")
def fast(make_checkpoint: Callable[..., Path]) -> SharedPrefixForward:
    return fast_forward(network(make_checkpoint(**SMALL)))


def largest_difference(fast: SharedPrefixForward, plain: Qwen3Reranker, batch: list[LastChunk]) -> float:
    expected = plain([one.prompt.token_ids for one in batch])
    assert expected.abs().max() > 0.01, "a comparison of zeros shows nothing"
    return float((fast(batch) - expected).abs().max())


@pytest.mark.parametrize(
    ("prefix_len", "own_lens"),
    [
        (40, [1, 2, 3, 100, 1000, 7]),
        (77, [105] * 12),
        (4000, [1, 500, 30]),
        (1, [1, 1]),
        (0, [5, 50]),
        pytest.param(77, [8192, 10], marks=pytest.mark.slow),
    ],
)
def test_equals_the_specification(
    fast: SharedPrefixForward, plain: Qwen3Reranker, prefix_len: int, own_lens: list[int]
) -> None:
    assert largest_difference(fast, plain, prompts(prefix_len, own_lens)) <= TOLERANCE


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 60), st.lists(st.integers(1, 40), min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_any_mix_of_prefixes_equals_the_specification(
    fast: SharedPrefixForward, plain: Qwen3Reranker, groups: list[tuple[int, int, list[int]]]
) -> None:
    # Groups of one seed have heads of one another as prefixes: the cache's entries are reused in part.
    batch = [prompt for seed, prefix, own in groups for prompt in prompts(prefix, own, seed)]
    assert largest_difference(fast, plain, batch) <= TOLERANCE


def test_the_order_of_calls_does_not_matter(plain: Qwen3Reranker, make_checkpoint: Callable[..., Path]) -> None:
    long, short = prompts(60, [9, 30]), prompts(25, [12])
    for order in ((long, short), (short, long)):
        fresh = fast_forward(network(make_checkpoint(**SMALL)))
        for batch in (*order, *order):
            assert largest_difference(fresh, plain, batch) <= TOLERANCE


def test_the_rearranged_network_still_works(plain: Qwen3Reranker, fast: SharedPrefixForward) -> None:
    batch = [one.prompt.token_ids for one in prompts(10, [5, 20])]
    assert torch.equal(fast._network(batch), plain(batch))


# The operations of GPUs, on CPU


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 60), st.lists(st.integers(1, 40), min_size=1, max_size=6)),
        min_size=1,
        max_size=4,
    )
)
def test_grouped_attention_equals_the_specification(
    plain: Qwen3Reranker, grouped: SharedPrefixForward, groups: list[tuple[int, int, list[int]]]
) -> None:
    batch = [prompt for seed, prefix, own in groups for prompt in prompts(prefix, own, seed)]
    assert largest_difference(grouped, plain, batch) <= TOLERANCE


def test_grouped_attention_pads_near_lengths_only(plain: Qwen3Reranker, grouped: SharedPrefixForward) -> None:
    assert largest_difference(grouped, plain, prompts(77, [1, 2, 3, 100, 101, 1000, 7, 1400])) <= TOLERANCE


@pytest.fixture(scope="module")
def grouped(make_checkpoint: Callable[..., Path]) -> SharedPrefixForward:
    return fast_forward(network(make_checkpoint(**SMALL)), GroupedOperations())


# The prefix cache


def test_prefixes_are_dropped_least_recently_used_first() -> None:
    entry = torch.zeros(1, 2, 4, 1, 1)
    cache = PrefixCache(max_bytes=2 * entry.nbytes)
    cache.put(("", (1, 1, 1, 1)), entry)
    cache.put(("", (2, 2, 2, 2)), entry)
    assert cache.get(("", (1, 1, 1, 1))) is not None
    cache.put(("", (3, 3, 3, 3)), entry)
    assert cache.get(("", (2, 2, 2, 2))) is None
    assert cache.get(("", (1, 1, 1, 1))) is not None and cache.get(("", (3, 3, 3, 3))) is not None


def test_a_prefix_larger_than_the_cache_is_not_kept_and_drives_no_other_out() -> None:
    entry = torch.zeros(1, 2, 1, 1, 1)
    cache = PrefixCache(max_bytes=entry.nbytes)
    cache.put(("", (1,)), entry)
    cache.put(("", (2, 3)), torch.zeros(1, 2, 2, 1, 1))
    assert cache.get(("", (2, 3))) is None and cache.get(("", (1,))) is not None
    assert cache.stats.bytes == entry.nbytes


def test_a_part_of_a_larger_entry_is_copied() -> None:
    whole = torch.zeros(1, 2, 100, 1, 1)
    cache = PrefixCache(max_bytes=10**6)
    cache.put(("", (1,)), whole[:, :, :1])
    kept = cache.get(("", (1,)))
    assert kept is not None and kept.untyped_storage().nbytes() == kept.nbytes == cache.stats.bytes


def test_an_owner_finds_only_its_own_prefixes() -> None:
    cache = PrefixCache(max_bytes=10**6)
    cache.put(("a", (1, 2)), torch.zeros(1, 2, 2, 1, 1))
    assert cache.get(("b", (1, 2))) is None and cache.longest_head(("b", (1, 2))) is None
    assert cache.get(("a", (1, 2))) is not None and cache.longest_head(("a", (1, 3))) is not None


def test_the_longest_common_head_is_found() -> None:
    cache = PrefixCache(max_bytes=10**6)
    for prefix in ((1, 2, 3, 4), (1, 2, 9), (5,)):
        cache.put(("", prefix), torch.full((1, 2, len(prefix), 1, 1), float(len(prefix))))
    head = cache.longest_head(("", (1, 2, 3, 8)))
    assert head is not None and head.shape[2] == 3 and head.max() == 4
    assert cache.longest_head(("", (7, 1))) is None
    assert num_shared([1, 2, 3], [1, 2]) == 2


# The kernels


@pytest.fixture(scope="module", params=[False, True], ids=["bfloat16", "int8"])
def quantize(request: pytest.FixtureRequest) -> bool:
    """Whether the operations give the products bytes."""
    return bool(request.param)


@pytest.fixture(scope="module")
def kernels(quantize: bool, tmp_path_factory: pytest.TempPathFactory) -> KernelOperations:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        built = build_kernels(quantize)
    if built is None:
        pytest.skip("this processor has no AVX512_BF16, so there are no kernels for it")
    return built


@pytest.fixture(scope="module")
def plain_operations(quantize: bool) -> TorchOperations:
    return TorchOperations(quantize)


def bfloat16(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def scales(rows: int, quantize: bool) -> torch.Tensor | None:
    return torch.rand(rows, generator=torch.Generator().manual_seed(9)) + 0.5 if quantize else None


def meant(rows: Rows) -> torch.Tensor:
    """What the rows stand for, float32."""
    if rows.values.dtype != torch.uint8:
        return rows.values.float()
    assert rows.scale is not None
    return (rows.values.float() - 128) * rows.scale[:, None]


def close(left: Rows, right: Rows) -> bool:
    """Equal to two units in the last place of bfloat16, which keeps 8 bits, or to 0.01 near zero; bytes to a step."""
    if left.scale is not None and left.values.dtype == torch.uint8:
        step = left.scale.max().item()
        return bool((meant(left) - meant(right)).abs().max() <= 1.01 * step + 2**-6 * meant(right).abs().max() / 4)
    return torch.allclose(meant(left), meant(right), rtol=2**-6, atol=0.01)


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (7, 1024), (33, 2560)])
def test_kernel_add_rmsnorm(
    kernels: KernelOperations, plain_operations: TorchOperations, quantize: bool, rows: int, size: int
) -> None:
    x, delta, weight = bfloat16(rows, size), bfloat16(rows, size, seed=1), bfloat16(size, seed=2)
    for change in (None, Rows(delta, scales(rows, quantize))):
        ours, theirs = x.clone(), x.clone()
        expected = plain_operations.add_rmsnorm(theirs, change, weight, 1e-6)
        assert close(kernels.add_rmsnorm(ours, change, weight, 1e-6), expected)
        assert close(Rows(ours), Rows(theirs))


def test_kernel_norm_rope_only_scales_the_values(kernels: KernelOperations, quantize: bool) -> None:
    values, weight, angles = bfloat16(9, 32 * 128), bfloat16(24, 128, seed=1), torch.rand(9, 64) * 6
    scale = scales(9, quantize)
    ours = kernels.norm_rope(Rows(values.clone(), scale), weight, angles.cos(), angles.sin(), 1e-6)
    expected = TorchOperations().norm_rope(
        Rows(values.float(), scale), weight.float(), angles.cos(), angles.sin(), 1e-6
    )
    assert ours.shape == (9, 32, 128)
    assert close(Rows(ours), Rows(expected))
    if scale is None:
        assert torch.equal(ours[:, 24:], values.view(9, 32, 128)[:, 24:])


def test_kernel_silu_mul(kernels: KernelOperations, plain_operations: TorchOperations, quantize: bool) -> None:
    gate_up = torch.cat([bfloat16(11, 6144) * 4, torch.tensor([[-80.0, 80.0] * 3072, [-200.0, 1.0] * 3072]).bfloat16()])
    scale = scales(13, quantize)
    assert close(kernels.silu_mul(Rows(gate_up, scale)), plain_operations.silu_mul(Rows(gate_up.float(), scale)))


def test_rows_of_zeros_stay_zero(kernels: KernelOperations, plain_operations: TorchOperations) -> None:
    for operations in (kernels, plain_operations):
        assert meant(operations.silu_mul(Rows(torch.zeros(2, 64).bfloat16()))).abs().max() == 0


@pytest.mark.parametrize("place", [0, 17, 63])
def test_what_is_no_number_stays_none(kernels: KernelOperations, plain_operations: TorchOperations, place: int) -> None:
    for operations in (kernels, plain_operations):
        gate_up = torch.ones(3, 128).bfloat16()
        gate_up[1, place] = float("nan")
        numbers = [bool(row.isfinite().all()) for row in meant(operations.silu_mul(Rows(gate_up)))]
        assert numbers == [True, False, True]


@pytest.mark.parametrize("heads", [(16, 8), (32, 8), (8, 8)])
@pytest.mark.parametrize("prefix_len", [0, 1, 15, 16, 77])
def test_kernel_attention(
    kernels: KernelOperations, plain_operations: TorchOperations, heads: tuple[int, int], prefix_len: int
) -> None:
    num_heads, num_kv_heads = heads
    own = [1, 2, 3, 5, 16, 17, 33, 100]
    offsets = [sum(own[:i]) for i in range(len(own) + 1)]
    qkv = bfloat16(offsets[-1], num_heads + 2 * num_kv_heads, 128)
    query, key, value = qkv.split([num_heads, num_kv_heads, num_kv_heads], dim=1)  # type: ignore[no-untyped-call]
    prefix = (bfloat16(prefix_len, num_kv_heads, 128, seed=1), bfloat16(prefix_len, num_kv_heads, 128, seed=2))
    every = Segments(offsets, offsets, [prefix] * len(own))
    expected = plain_operations.attention(
        query.float(),
        key.float(),
        value.float(),
        Segments(offsets, offsets, [(prefix[0].float(), prefix[1].float())] * len(own)),
    )
    assert close(kernels.attention(query, key, value, every), expected)
    last = Segments(list(range(len(own) + 1)), offsets, [prefix] * len(own))
    rows = torch.tensor(offsets[1:]) - 1
    expected_last = Rows(expected.values[rows], None if expected.scale is None else expected.scale[rows])
    assert close(kernels.attention(query[rows].contiguous(), key, value, last), expected_last)


def test_kernels_move_a_score_less_than_bfloat16_does(
    kernels: KernelOperations, quantize: bool, make_checkpoint: Callable[..., Path]
) -> None:
    if quantize:
        pytest.skip("test_int8.py does this for int8")
    folder = make_checkpoint(head_dim=128, num_attention_heads=4, num_key_value_heads=2)
    exact = network(folder)
    batch = prompts(50, [1, 20, 90, 200, 33])
    expected = exact([one.prompt.token_ids for one in batch])
    rounded = network(folder).bfloat16()
    rounded.head.data = exact.head.data
    forward = fast_forward(rounded)
    drift = (forward(batch) - expected).abs().max()
    assert (fast_forward(rounded, kernels)(batch) - expected).abs().max() <= 2 * drift + 0.02
