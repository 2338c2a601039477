"""The free memory of a GPU."""

from __future__ import annotations

import torch


def free_bytes(device: torch.device) -> int | None:
    """What can still be allocated; None on a CPU, and where the driver does not say."""
    try:
        if device.type == "cuda":
            cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + cached
        if device.type == "mps":
            return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    except RuntimeError:
        return None
    return None
