"""The served forward pass equals its specification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.engine.protocols import Chunk, LastChunk
from rerankd.engine.qwen3.layers import TorchLayers
from rerankd.engine.qwen3.linear import float_layers
from rerankd.engine.qwen3.model import Qwen3Reranker
from rerankd.engine.qwen3.ops import GroupedOperations, Operations, TorchOperations
from rerankd.engine.qwen3.shared_prefix import PrefixCache, SharedPrefixForward, num_shared
from rerankd.engine.qwen3.varlen_attention import VarlenOperations
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from rerankd.types import Prompt
from support.prompts import prompts
from support.varlen import exact_kernel

TOLERANCE = 1e-4  # logits, float32

SMALL = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=48, num_attention_heads=4, head_dim=8)


def network(folder: Path) -> Qwen3Reranker:
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    return load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)


def fast_forward(network: Qwen3Reranker, operations: Operations | None = None) -> SharedPrefixForward:
    layers = TorchLayers(network.config, float_layers(network), operations or TorchOperations())
    return SharedPrefixForward(network, layers)


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
def test_attention_of_gpus_equals_the_specification(
    plain: Qwen3Reranker,
    grouped: SharedPrefixForward,
    unpadded: SharedPrefixForward,
    groups: list[tuple[int, int, list[int]]],
) -> None:
    batch = [prompt for seed, prefix, own in groups for prompt in prompts(prefix, own, seed)]
    assert largest_difference(grouped, plain, batch) <= TOLERANCE
    assert largest_difference(unpadded, plain, batch) <= TOLERANCE


def test_grouped_attention_pads_near_lengths_only(plain: Qwen3Reranker, grouped: SharedPrefixForward) -> None:
    assert largest_difference(grouped, plain, prompts(77, [1, 2, 3, 100, 101, 1000, 7, 1400])) <= TOLERANCE


@pytest.fixture(scope="module")
def grouped(make_checkpoint: Callable[..., Path]) -> SharedPrefixForward:
    return fast_forward(network(make_checkpoint(**SMALL)), GroupedOperations())


@pytest.fixture(scope="module")
def unpadded(make_checkpoint: Callable[..., Path]) -> SharedPrefixForward:
    return fast_forward(network(make_checkpoint(**SMALL)), VarlenOperations(exact_kernel))


def test_unpadded_attention_reads_a_document_in_chunks(unpadded: SharedPrefixForward, plain: Qwen3Reranker) -> None:
    [one] = prompts(77, [250])
    reading = unpadded.begin(one, 300)
    for end in (50, 120, 300):
        assert unpadded.read([Chunk(reading, end)], []) == []
    logit = unpadded([LastChunk(one.prompt, reading)])
    assert abs(float(logit) - float(plain([one.prompt.token_ids]))) <= TOLERANCE


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


# Long prompts


@pytest.mark.parametrize(
    "ends", [[[300], []], [[200, 300]], [[200], [300]], [[100], [200], [300]], [[50], [300]]], ids=str
)
def test_a_document_is_the_same_in_any_chunks_of_any_passes(
    fast: SharedPrefixForward, plain: Qwen3Reranker, ends: list[list[int]]
) -> None:
    """Its end comes with the last chunks, or in a pass of its own. The prefix has 77 tokens."""
    [one] = prompts(77, [250], seed=sum(map(sum, ends)) + 7 * len(ends))  # of a query that no other case has
    before = fast.tokens_computed
    reading = fast.begin(one, 300)
    for pass_ends in ends[:-1]:
        assert fast.read([Chunk(reading, end) for end in pass_ends], []) == []
    logit = fast([LastChunk(one.prompt, reading)], [Chunk(reading, end) for end in ends[-1]])
    assert abs(float(logit) - float(plain([one.prompt.token_ids]))) <= TOLERANCE
    assert fast.tokens_computed - before == 327
    other = LastChunk(Prompt("", "", [*one.prompt.prefix, 5], 0, 0, prefix=one.prompt.prefix))
    assert largest_difference(fast, plain, [other]) <= TOLERANCE
    assert fast.tokens_computed - before == 328, "the prefix was computed again"
