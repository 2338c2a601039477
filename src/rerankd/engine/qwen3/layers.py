"""The layers of the served forward pass, between the embedding and the head, behind one protocol.

`TorchLayers` runs on every device, in every dtype, with the linear layers and operations that it is given.
`kernels/native.py` has the same layers in C++; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from rerankd.engine.qwen3.linear import Layer
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.ops import Operations, Rows
from rerankd.engine.qwen3.packed import Packed


class Layers(Protocol):
    """All layers of a network.

    kernels: the kind of kernels that runs, "varlen" for unpadded attention on a GPU, or "plain". invariant: whether a
    row has the same bits whatever else is in the pass.
    """

    @property
    def kernels(self) -> str: ...

    @property
    def invariant(self) -> bool: ...

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        """Leaves keys and values in `packed.keeps`.

        Args:
            x: the embedding of each token, (T, hidden_size); may be overwritten.
            cos, sin: of RoPE, (T, head_dim / 2) float32.

        Returns:
            The residual stream at the end of each prompt, before the final norm: (num_prompts, hidden_size).
        """
        ...


class TorchLayers:
    """Implements `Layers` with a call for each linear layer and each operation."""

    invariant = False

    def __init__(self, config: Qwen3Config, layers: Sequence[Layer], operations: Operations) -> None:
        self._eps = config.rms_norm_eps
        self._qk_eps = None if config.qwen2 else config.rms_norm_eps
        self._layers = layers
        self._operations = operations
        self.kernels = operations.kernels
        first_key = config.num_attention_heads
        self._splits = (first_key, first_key + config.num_key_value_heads)  # between query, key and value heads

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        """See `Layers`."""
        ops, eps = self._operations, self._eps
        delta: Rows | None = None
        for index, layer in enumerate(self._layers):
            hidden = ops.add_rmsnorm(x, delta, layer.input_norm, eps)
            heads = ops.norm_rope(_biased(layer.qkv(hidden), layer), layer.qk_norm, cos, sin, self._qk_eps)
            query, key, value = heads.tensor_split(self._splits, dim=1)
            packed.keep(index, key, value)
            attending = packed.attending(index)
            if index == len(self._layers) - 1:  # only the last position of each prompt is needed from here on
                last = torch.tensor(packed.last_positions, dtype=torch.long, device=x.device)
                query, x, attending = query[last].contiguous(), x[last], packed.attending_last(index)
            if not len(query):  # no prompt ends in this pass
                return x
            attended = ops.attention(query, key, value, attending)
            hidden = ops.add_rmsnorm(x, layer.output(attended), layer.post_norm, eps)
            delta = layer.down(ops.silu_mul(layer.gate_up(hidden)))
        assert delta is not None
        return x + delta.scaled()


def _biased(qkv: Rows, layer: Layer) -> Rows:
    return qkv if layer.qkv_bias is None else Rows(qkv.scaled() + layer.qkv_bias)
