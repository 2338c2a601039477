"""The layers in C++: packs the weights once, then runs each pass in one call. Declares the structs of `model.h`."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable
from ctypes import POINTER, c_double, c_int64, c_void_p
from itertools import zip_longest

import torch
from torch import Tensor

from rerankd.engine.qwen3.kernels.choice import Kernels
from rerankd.engine.qwen3.kernels.packing import Packer
from rerankd.engine.qwen3.linear import LayerWeights, PackedWeight, Weight
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.packed import Packed

HEAD_DIM = 128
HALF = 16  # outputs and inputs come in multiples of it
LINE_BYTES = 64


def kernels_fit(config: Qwen3Config) -> bool:
    """Whether the kernels can compute this shape. They can compute every published one of Qwen3, and none of Qwen2."""
    if config.qwen2:  # they add no biases, and norm every head
        return False
    return config.head_dim == HEAD_DIM and config.hidden_size % HALF == 0 and config.intermediate_size % HALF == 0


class _Shape(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_layers", "hidden_size", "intermediate_size", "num_heads", "num_kv_heads")),
        ("quantized", c_int64),
        ("eps", c_double),
    )


class _LinearWeight(ctypes.Structure):
    _fields_ = (("panels", c_void_p), ("scale", c_void_p), ("offset", c_void_p))


class _LayerWeights(ctypes.Structure):
    _fields_ = (
        *((name, _LinearWeight) for name in ("qkv", "output", "gate_up", "down")),
        *((name, c_void_p) for name in ("input_norm", "post_norm", "qk_norm")),
    )


class _Entry(ctypes.Structure):
    _fields_ = (("data", c_void_p), ("layer_stride", c_int64), ("value_stride", c_int64))


class _Segment(ctypes.Structure):
    _fields_ = (("num_tokens", c_int64), ("base_len", c_int64), ("base", _Entry), ("keep", _Entry))


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_tokens", "num_segments", "num_kept", "num_threads")),
        ("segments", POINTER(_Segment)),
        *((name, c_void_p) for name in ("x", "cos", "sin", "out")),
    )


class NativeLayers:
    """Implements `layers.Layers` for a config that `kernels_fit`. A row's bits do not depend on the rest of the pass.

    Args:
        weights: of each layer, (outputs, inputs), either all in the dtype of the kernels or all `Int8Weight`. Each is
            packed and may be freed before the next one is taken.
    """

    invariant = True

    def __init__(self, kernels: Kernels, config: Qwen3Config, weights: Iterable[LayerWeights]) -> None:
        self.kernels = kernels.kind.name
        self._library = kernels.library
        self._dtype = kernels.kind.dtype
        self._owned: list[Tensor] = []  # what the library points to
        self._packer, self._quantized = Packer(kernels), False
        layers = [self._layer(one) for one in weights]
        shape = _Shape(
            len(layers), config.hidden_size, config.intermediate_size, config.num_attention_heads,
            config.num_key_value_heads, self._quantized, config.rms_norm_eps,
        )  # fmt: skip
        self._library.new_layers.restype = c_void_p
        handle = self._library.new_layers(ctypes.byref(shape), (_LayerWeights * len(layers))(*layers))
        if handle is None:
            raise MemoryError("There is too little memory for the layers.")
        self._handle = c_void_p(handle)
        weakref.finalize(self, self._library.delete_layers, self._handle)

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        """See `layers.Layers`. The residual stream is float32.

        Raises:
            MemoryError: there is too little memory for this pass.
        """
        assert x.dtype == self._dtype and x.is_contiguous() and cos.is_contiguous() and sin.is_contiguous()
        num_segments, num_kept = len(packed.bases), len(packed.keeps)
        out = x.new_empty(num_segments - num_kept, x.shape[1], dtype=torch.float32)
        segments = (_Segment * num_segments)(
            *(
                _Segment(length, base.shape[2], _entry(base), _entry(keep))
                for length, base, keep in zip_longest(packed.lengths, packed.bases, packed.keeps)
            )
        )
        batch = _Batch(
            len(x), num_segments, num_kept, torch.get_num_threads(), segments,
            x.data_ptr(), cos.data_ptr(), sin.data_ptr(), out.data_ptr(),
        )  # fmt: skip
        if self._library.run_layers(self._handle, ctypes.byref(batch)):
            raise MemoryError("There is too little memory for this pass.")
        return out

    def _layer(self, weights: LayerWeights) -> _LayerWeights:
        packed = self._packer.layer(weights)
        self._quantized = isinstance(packed.qkv, PackedWeight) and packed.qkv.scale is not None
        return _LayerWeights(
            *(self._linear(weight) for weight in (packed.qkv, packed.output, packed.gate_up, packed.down)),
            *(self._own(norm.contiguous()) for norm in (packed.input_norm, packed.post_norm, packed.qk_norm)),
        )

    def _linear(self, weight: Weight) -> _LinearWeight:
        assert isinstance(weight, PackedWeight)
        scales = (None if tensor is None else self._own(tensor) for tensor in (weight.scale, weight.offset))
        return _LinearWeight(self._own(_aligned(weight.panels)), *scales)

    def _own(self, tensor: Tensor) -> int:
        self._owned.append(tensor)
        return tensor.data_ptr()


def _aligned(tensor: Tensor) -> Tensor:
    """At an address that is a multiple of a line, as aligned vectors need it."""
    return tensor if tensor.data_ptr() % LINE_BYTES == 0 else tensor.clone()


def _entry(tensor: Tensor | None) -> _Entry:
    """The entry of a tensor (num_layers, 2, num_tokens, num_kv_heads, head_dim), of a part of its tokens, or None."""
    if tensor is None or not tensor.numel():
        return _Entry(None, 0, 0)
    return _Entry(tensor.data_ptr(), tensor.stride(0), tensor.stride(1))
