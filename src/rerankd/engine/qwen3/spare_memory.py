"""The memory of the last reading that ended, for the next one: new memory faults once for each 4 KB."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_BYTES = 128_000_000
"""About 1,100 tokens of the 0.6B. More memory than this goes back to the system."""


class SpareMemory:
    """Keeps one tensor on the CPU."""

    def __init__(self) -> None:
        self._spare: Tensor | None = None

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A tensor, not initialised, and the memory that it stands in, to `give` once nothing uses the tensor."""
        size = math.prod(shape)
        memory, self._spare = self._spare, None
        if memory is None or memory.dtype != dtype or len(memory) < size:
            memory = torch.empty(max(size, MAX_BYTES // dtype.itemsize), dtype=dtype)  # what is not used costs nothing
        return memory[:size].view(shape), memory

    def give(self, memory: Tensor) -> None:
        """Takes memory back."""
        if memory.nbytes <= MAX_BYTES:
            self._spare = memory
