"""The emulated tiles compute what Intel's manual says of TDPBF16PS and TDPBSSD, to the bit."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from support.amx import amx_parts, at


def dot(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """C + A B by one tile operation. a: (16, K); b: (K, 16)."""
    quantized, group = a.dtype == torch.int8, 4 // a.dtype.itemsize
    packed = b.view(16, group, 16).transpose(1, 2).contiguous()  # [groups of k][outputs][group]
    out, a = c.clone(), a.contiguous()
    amx_parts().tile_dot(int(quantized), at(out), at(a), at(packed))
    return out


def two_chains(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The definition: one chain over the even k, one over the odd, then C + (even + odd). A product of two bfloat16 is
    exact in float32, so an addition in float32 rounds as the fused operation does."""
    even, odd = torch.zeros(16, 16), torch.zeros(16, 16)
    for k in range(0, 32, 2):
        even = even + a[:, k, None].float() * b[None, k].float()
        odd = odd + a[:, k + 1, None].float() * b[None, k + 1].float()
    return c + (even + odd)


def random_tiles(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(size, generator=random).bfloat16() for size in ((16, 32), (32, 16)))
    return torch.randn(16, 16, generator=random), a, b


def test_a_bfloat16_dot_is_two_chains_to_the_bit() -> None:
    for seed in range(20):
        c, a, b = random_tiles(seed)
        assert torch.equal(dot(c, a, b), two_chains(c, a, b))


def test_the_order_of_a_bfloat16_dot_matters() -> None:
    c, a, b = random_tiles(0)
    serial = c.clone()
    for k in range(32):
        serial += a[:, k, None].float() * b[None, k].float()
    assert not torch.equal(dot(c, a, b), serial)


def test_subnormals_count_as_zero_in_inputs_sums_and_results() -> None:
    c, a, b = torch.zeros(16, 16), torch.zeros(16, 32).bfloat16(), torch.zeros(32, 16).bfloat16()
    a[0, 0], b[0] = 1e-39, 1e30  # a subnormal input
    a[1, 2], b[2] = 1e-20, 1e-20  # a subnormal product
    c[2] = 1e-39  # a subnormal start
    a[3, 4], b[4] = 2.0**-126, 1.0  # the smallest normal number stays
    expected = torch.zeros(16, 16)
    expected[3] = 2.0**-126
    torch.set_flush_denormal(False)
    assert torch.equal(dot(c, a, b), expected)


def test_a_dot_leaves_the_subnormals_of_its_caller_alone() -> None:
    dot(*random_tiles(0))
    assert (torch.full((16,), 1e-39) * torch.full((16,), 0.5)).min() > 0


def test_infinities_and_nans_come_through() -> None:
    c, a, b = random_tiles(1)
    a[0, 0], a[1, 1], a[2] = float("inf"), float("nan"), 0
    b[:, 3] = float("inf")
    got, expected = dot(c, a, b), two_chains(c, a, b)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.nan_to_num(), expected.nan_to_num())


def test_an_int8_dot_is_exact() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randint(-128, 128, (16, 64), generator=random, dtype=torch.int8)
    b = torch.randint(-128, 128, (64, 16), generator=random, dtype=torch.int8)
    c = torch.randint(-(2**20), 2**20, (16, 16), generator=random, dtype=torch.int32)
    a[0], b[:, 0] = -128, -128
    assert torch.equal(dot(c, a, b), (c + a.long() @ b.long()).int())


def test_loads_and_stores_take_rows_at_a_stride() -> None:
    source = torch.arange(16 * 160, dtype=torch.int32).view(torch.uint8).view(16, -1)  # 640 bytes a row
    target = torch.zeros(16, 192, dtype=torch.uint8)
    strides = ctypes.c_int64(192), ctypes.c_int64(640)
    amx_parts().tile_copy(at(target), strides[0], at(source), strides[1])
    assert torch.equal(target[:, :64], source[:, :64]) and not target[:, 64:].any()
