"""Safetensors files that are written one tensor at a time and read in place, by mapping. Knows no network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

HEADER_BYTES = 1 << 18
"""Before the first tensor, so that the header can be written last. A tensor's entry takes about 100 bytes."""

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32", torch.int8: "I8"}


def write_tensors(path: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Writes tensors as they come. The first one starts at a page, and no bytes are between them.

    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, object] = {}
    end = 0
    with path.open("wb") as file:
        file.seek(HEADER_BYTES)
        for name, tensor in tensors:
            start, end = end, end + tensor.nbytes
            header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
            if start < end:
                file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
        size = HEADER_BYTES - 8
        text = json.dumps(header).encode()
        assert len(text) <= size, "This is a bug: the header has more tensors than it has room for."
        file.seek(0)
        file.write(size.to_bytes(8, "little") + text.ljust(size))


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name. Their memory is the file's: it is read when it is used, and shared by all processes.

    Raises:
        OSError, SafetensorError: the file cannot be read.
    """
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}
