"""Weights → panels, as `layout.h` draws them, once at load. Knows no file and no network."""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from dataclasses import replace

import torch
from torch import Tensor

from rerankd.engine.qwen3.kernels.choice import Kernels
from rerankd.engine.qwen3.linear import Int8Weight, LayerWeights, PackedWeight, Weight

PANEL = 32


class Packer:
    """Packs weights for one kind of kernels. Those of another kind may differ: the name belongs to the panels."""

    def __init__(self, kernels: Kernels) -> None:
        self.name = kernels.kind.name
        self._dtype = kernels.kind.dtype
        self._library = kernels.library
        self._library.packed_size.restype = c_int64

    def layer(self, weights: LayerWeights) -> LayerWeights:
        """The same layer with each weight packed. Weights that are packed already stay."""
        return replace(
            weights,
            qkv=self._pack(weights.qkv),
            output=self._pack(weights.output),
            gate_up=self._pack(weights.gate_up, halves=True),
            down=self._pack(weights.down),
        )

    def _pack(self, weight: Weight, halves: bool = False) -> PackedWeight:
        if isinstance(weight, PackedWeight):
            return weight
        quantized = isinstance(weight, Int8Weight)
        values = (weight.values if isinstance(weight, Int8Weight) else weight.to(self._dtype)).contiguous()
        outputs, inputs = values.shape
        sizes = (c_int64(outputs), c_int64(inputs))
        panels = torch.empty(self._library.packed_size(*sizes, int(quantized)), dtype=values.dtype)
        places = -(-outputs // PANEL) * PANEL if quantized else 0
        scale, offset = torch.empty(places), torch.empty(places, dtype=torch.int32)
        given = weight.scale.contiguous() if isinstance(weight, Int8Weight) else scale
        self._library.pack_weight(
            _at(values), _at(given), *sizes, int(halves), int(quantized),
            _at(panels), _at(scale), _at(offset), c_int64(torch.get_num_threads()),
        )  # fmt: skip
        return PackedWeight(panels, scale, offset) if quantized else PackedWeight(panels)


def _at(tensor: Tensor) -> c_void_p:
    return c_void_p(tensor.data_ptr())
