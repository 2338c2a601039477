"""Whether a model failed because its device has no memory left. Does not import torch: an engine may run without it."""

from __future__ import annotations

import sys


def is_out_of_memory(error: BaseException) -> bool:
    """Whether fewer tokens at a time may help."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def return_cached_memory() -> None:
    """Gives the blocks that PyTorch keeps for later back to the device, so that they can be one larger block."""
    if (torch := sys.modules.get("torch")) is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
