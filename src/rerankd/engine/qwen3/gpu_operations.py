"""Chooses the operations of a GPU: unpadded attention where it proves itself on the card, else grouped operations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.ops import GroupedOperations, Operations, Segments, TorchOperations
from rerankd.engine.qwen3.packed import Packed
from rerankd.engine.qwen3.varlen_attention import Kernel, VarlenOperations, torch_kernel

logger = logging.getLogger(__name__)

DTYPES = (torch.float16, torch.bfloat16)
"""Those that FlashAttention takes."""

MAX_ERROR_RATIO = 4
"""How much farther from float32 than grouped attention it may be. It rounds twice before it merges, and once after. On
CPUs, a wrong mask, layout or logarithm is at least 35 times as far."""

PREFIXES = (90, 260, 0)
SEGMENTS = ((0, 1), (0, 300), (1, 77), (2, 40), (0, 5))
"""Of the trial: the prefix and the length of each."""


class _Inputs(NamedTuple):
    """Of `Operations.attention`."""

    query: Tensor
    key: Tensor
    value: Tensor
    segments: Segments

    def in_float32(self) -> _Inputs:
        """On the CPU."""
        prefixes = [(key.float().cpu(), value.float().cpu()) for key, value in self.segments.prefixes]
        segments = Segments(self.segments.q_offsets, self.segments.k_offsets, prefixes)
        return _Inputs(self.query.float().cpu(), self.key.float().cpu(), self.value.float().cpu(), segments)


def gpu_operations(config: Qwen3Config, device: torch.device, dtype: torch.dtype) -> Operations:
    """The operations between the linear layers for a device other than a CPU.

    Args:
        dtype: of the activations.
    """
    if device.type != "cuda" or dtype not in DTYPES:
        return GroupedOperations()
    return proven_operations(config, device, dtype)


def proven_operations(
    config: Qwen3Config, device: torch.device, dtype: torch.dtype, open_kernel: Callable[[], Kernel] = torch_kernel
) -> Operations:
    """`VarlenOperations` if its attention is near float32 in the model's shape on this device.

    Else `GroupedOperations`; logs which of them serves, and why. The trial takes a few launches of each. It cannot
    survive a kernel that leaves the card's context unusable.

    Args:
        open_kernel: any exception of it, or of the kernel, means `GroupedOperations`.
    """
    try:
        varlen = VarlenOperations(open_kernel())
        reason = _difference(varlen, config, device, dtype)
    except Exception as error:  # of any build of torch: the other attention serves
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if reason:
        logger.warning("Attention on %s pads its sequences, because the unpadded kernel failed: %s", device, reason)
        return GroupedOperations()
    logger.info("Attention on %s is unpadded (torch.nn.attention.varlen).", device)
    return varlen


@torch.inference_mode()
def _difference(varlen: Operations, config: Qwen3Config, device: torch.device, dtype: torch.dtype) -> str | None:
    """How the operations fail on random inputs; None if they do not."""
    grouped, exact = GroupedOperations(), TorchOperations()
    for inputs in _trials(config, device, dtype):
        expected = exact.attention(*inputs.in_float32()).values
        errors = [
            float((each.attention(*inputs).values.float().cpu() - expected).abs().max()) for each in (varlen, grouped)
        ]
        bound = max(MAX_ERROR_RATIO * errors[1], torch.finfo(dtype).eps * float(expected.abs().max()))
        if not errors[0] <= bound:  # also for NaN
            return f"its largest error is {errors[0]:.2g}, that of padded attention {errors[1]:.2g}"
    return None


def _trials(config: Qwen3Config, device: torch.device, dtype: torch.dtype) -> list[_Inputs]:
    """Every position, as in all layers but the last; the last positions; and one query for each prefix.

    The kernel has a path of its own for sequences of one query.
    """
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        # Scores have a standard deviation of 2: some keys count much more than others.
        return (torch.randn(*shape, generator=random) * 2**0.5).to(device, dtype)

    kv_heads, head_dim = config.num_key_value_heads, config.head_dim
    layer_prefixes = [drawn(1, 2, length, kv_heads, head_dim) for length in PREFIXES]
    return [
        _inputs(config, SEGMENTS, layer_prefixes, drawn, last=False),
        _inputs(config, SEGMENTS, layer_prefixes, drawn, last=True),
        _inputs(config, SEGMENTS[1:4], layer_prefixes, drawn, last=True),
    ]


def _inputs(
    config: Qwen3Config,
    segments: Sequence[tuple[int, int]],
    prefixes: Sequence[Tensor],
    drawn: Callable[..., Tensor],
    last: bool,
) -> _Inputs:
    """Strided as in `TorchLayers`."""
    first_key, kv_heads = config.num_attention_heads, config.num_key_value_heads
    packed = Packed.of([length for _, length in segments], [prefixes[prefix] for prefix, _ in segments], ())
    heads = drawn(packed.offsets[-1], first_key + 2 * kv_heads, config.head_dim)
    query, key, value = heads.tensor_split((first_key, first_key + kv_heads), dim=1)
    if last:
        return _Inputs(query[packed.last_positions].contiguous(), key, value, packed.attending_last(0))
    return _Inputs(query, key, value, packed.attending(0))
