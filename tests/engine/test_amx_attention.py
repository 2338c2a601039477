"""Attention with AMX: lengths around panels, tiles and blocks, prefixes, tails and garbage, with emulated tiles."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from support.amx import HeadRows, attention

TOLERANCE = 0.01  # relative, above 1; weights and outputs are rounded to bfloat16


@dataclass
class Prompt:
    """All positions of one prompt: query (length, num_heads, 128), key and value (length, num_kv_heads, 128)."""

    query: Tensor
    key: Tensor
    value: Tensor

    @classmethod
    def random(cls, length: int, seed: int, num_heads: int = 4, num_kv_heads: int = 2) -> Prompt:
        random = torch.Generator().manual_seed(seed)
        sizes = num_heads, num_kv_heads, num_kv_heads
        query, key, value = (torch.randn(length, size, 128, generator=random).bfloat16() for size in sizes)
        return cls(query * 3, key, value)

    def __len__(self) -> int:
        return len(self.query)

    def first(self, length: int) -> Prompt:
        return Prompt(self.query[:length], self.key[:length], self.value[:length])

    @property
    def exact(self) -> Tensor:
        """Causal attention in float64, (length, num_heads, 128)."""
        group = self.query.shape[1] // self.key.shape[1]
        key, value = (x.double().repeat_interleave(group, dim=1).transpose(0, 1) for x in (self.key, self.value))
        scores = self.query.double().transpose(0, 1) @ key.transpose(1, 2) / 128**0.5
        future = torch.ones(len(self), len(self), dtype=torch.bool).triu(1)
        attended: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1) @ value
        return attended.transpose(0, 1)


def attend(prompts: list[Prompt], prefix_lens: list[int], last: bool = False, num_threads: int = 1) -> list[Tensor]:
    """The outputs of each prompt's own positions, or of its last one. Prompts that are the same object's beginning
    share a prefix where they stand side by side."""
    own = [len(prompt) - prefix_len for prompt, prefix_len in zip(prompts, prefix_lens, strict=True)]
    heads = HeadRows.empty(prompts[0].query.shape[1], prompts[0].key.shape[1], sum(own) + 3)
    prefixes: list[tuple[Tensor, Tensor]] = []
    sequences, row = [], 0
    for index, (prompt, prefix_len, count) in enumerate(zip(prompts, prefix_lens, own, strict=True)):
        prefix = prompt.key[:prefix_len].contiguous(), prompt.value[:prefix_len].contiguous()
        if not prefixes or not all(map(torch.equal, prefixes[-1], prefix)):
            prefixes.append(prefix)
        first_query, num_queries = (index, 1) if last else (row, count)
        sequences.append((len(prefixes) - 1, row, count, first_query, num_queries))
        for rows, of_prompt in ((heads.key, prompt.key), (heads.value, prompt.value)):
            rows[:, row : row + count] = of_prompt[prefix_len:].transpose(0, 1)
        queries = prompt.query[-num_queries:]
        heads.query[:, first_query : first_query + num_queries] = queries.transpose(0, 1)
        row += count
    out = attention(heads, prefixes, sequences, num_threads)
    return [out[first : first + count] for *_, first, count in sequences]


def largest_error(got: Tensor, prompt: Prompt) -> float:
    expected = prompt.exact[-len(got) :]
    assert expected.abs().max() > 0.5
    return float(((got.double() - expected).abs() / expected.abs().clamp_min(1)).max())


@pytest.mark.parametrize("prefix_len", [0, 31, 32, 77])
@pytest.mark.parametrize("own_len", [1, 15, 16, 17, 31, 32, 33, 513])
def test_lengths_and_prefixes(own_len: int, prefix_len: int) -> None:
    prompt = Prompt.random(prefix_len + own_len, seed=own_len)
    (got,) = attend([prompt], [prefix_len])
    assert largest_error(got, prompt) <= TOLERANCE


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(2, 2), (4, 2), (3, 1), (8, 2)])
def test_heads_of_a_group(num_heads: int, num_kv_heads: int) -> None:
    prompt = Prompt.random(90, seed=0, num_heads=num_heads, num_kv_heads=num_kv_heads)
    (got,) = attend([prompt], [40])
    assert largest_error(got, prompt) <= TOLERANCE


@pytest.mark.parametrize("length", [511, 512, 528, 1100])
def test_blocks_of_keys_with_a_maximum_that_moves(length: int) -> None:
    prompt = Prompt.random(length, seed=length)
    prompt.key[: length // 2] *= 0.1  # the later keys have the larger scores
    (got,) = attend([prompt], [0])
    assert largest_error(got, prompt) <= TOLERANCE


def joined(prefix: Prompt, own: Prompt) -> Prompt:
    return Prompt(*(torch.cat(pair) for pair in zip(vars(prefix).values(), vars(own).values(), strict=True)))


def batch() -> tuple[list[Prompt], list[int]]:
    """Documents of two queries, side by side."""
    prompts, prefix_lens = [], []
    for prefix_len, own_lens in ((77, (1, 40, 16)), (64, (33,)), (0, (5, 200))):
        prefix = Prompt.random(prefix_len, seed=prefix_len)
        prompts += [joined(prefix, Prompt.random(own_len, seed=own_len)) for own_len in own_lens]
        prefix_lens += [prefix_len] * len(own_lens)
    return prompts, prefix_lens


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("last", [False, True])
def test_a_prompt_has_the_same_bits_in_any_batch(last: bool, num_threads: int) -> None:
    prompts, prefix_lens = batch()
    together = attend(prompts, prefix_lens, last, num_threads)
    for prompt, prefix_len, got in zip(prompts, prefix_lens, together, strict=True):
        assert largest_error(got, prompt) <= TOLERANCE
        assert torch.equal(got, attend([prompt], [prefix_len], last)[0])


def test_the_bits_do_not_depend_on_the_positions_of_a_step() -> None:
    """The last positions of the first block of keys, with and without neighbours that see the second block."""
    prompt = Prompt.random(520, seed=7)
    prompt.query *= 30
    (whole,) = attend([prompt], [0])
    for length in (505, 509, 512):
        assert torch.equal(attend([prompt.first(length)], [490])[0], whole[490:length])


@pytest.mark.parametrize("length", [100, 560])
def test_the_bits_do_not_depend_on_where_the_prefix_ends(length: int) -> None:
    prompt = Prompt.random(length, seed=5)
    (whole,) = attend([prompt], [0])
    for prefix_len in (1, 31, 32, 33, 77, length - 1):
        assert torch.equal(attend([prompt], [prefix_len])[0], whole[prefix_len:])
    assert torch.equal(attend([prompt], [77], last=True)[0], whole[-1:])


def test_large_scores_stay_finite() -> None:
    prompt = Prompt.random(70, seed=6)
    prompt.query *= 300
    (got,) = attend([prompt], [32])
    assert got.isfinite().all() and largest_error(got, prompt) <= TOLERANCE
