"""SpareMemory: the next tensor stands in the memory of the last one, and in nobody else's."""

from __future__ import annotations

import torch

from rerankd.engine.qwen3.spare_memory import MAX_BYTES, SpareMemory


def test_memory_that_came_back_is_used_again() -> None:
    spare = SpareMemory()
    first, memory = spare.take((3, 5), torch.float32)
    spare.give(memory)
    second, _ = spare.take((70, 2, 9), torch.float32)
    assert first.data_ptr() == second.data_ptr() and second.shape == (70, 2, 9)


def test_two_tensors_in_use_share_no_memory() -> None:
    spare = SpareMemory()
    taken = [spare.take((4,), torch.float32) for _ in range(2)]
    for value, (tensor, _) in enumerate(taken):
        tensor.fill_(value)
    assert [tensor.tolist() for tensor, _ in taken] == [[0] * 4, [1] * 4]


def test_other_types_and_large_tensors_have_memory_of_their_own() -> None:
    spare = SpareMemory()
    _, memory = spare.take((4,), torch.float32)
    spare.give(memory)
    other, _ = spare.take((4,), torch.bfloat16)
    assert other.dtype == torch.bfloat16
    large, memory = spare.take((MAX_BYTES + 1,), torch.uint8)
    spare.give(memory)
    again, _ = spare.take((4,), torch.uint8)
    assert len(large) == MAX_BYTES + 1 and again.data_ptr() != large.data_ptr()
