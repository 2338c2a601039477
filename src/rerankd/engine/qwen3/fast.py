"""The forward pass that is served: as model.py, but nothing is computed twice.

What the prompts of one query begin with (template, instruct, query) is computed once and attended to by every
document; in the last layer only the last position is computed; query, key and value, and gate and up, are one
product each. Tested against model.py, which is its specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from rerankd.engine.qwen3.layers import Layer
from rerankd.engine.qwen3.model import Qwen3Reranker, rope_angles
from rerankd.engine.qwen3.operations import Operations, Rows, Segments
from rerankd.engine.qwen3.prefixes import PrefixCache, TokenIds
from rerankd.types import CacheStats

MAX_PREFIX_BYTES = 256_000_000
"""For the 0.6B, prefixes of some 2,300 tokens in all; one alone may be longer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's token ids; the first `shared_len` of them are those of other prompts too."""

    token_ids: Sequence[int]
    shared_len: int


@dataclass(frozen=True, slots=True)
class _Segment:
    """Tokens to compute after `base`, the keys and values of what comes before them.

    base: (num_layers, 2, length, num_kv_heads, head_dim). keep: where those of these tokens go, of the same shape; None
    for the end of a prompt.
    """

    token_ids: Sequence[int]
    base: Tensor
    keep: Tensor | None = None


class SharedPrefixForward:
    """Runs layers between a network's embedding and its head. Not for several threads at a time.

    Args:
        network: its own layers are not run.
        operations: may be replaced between calls by others of the same results.
        deterministic: each prompt runs alone, and its prefix too, so that the shapes, and with them the order of
            every sum, depend on the prompt only.
    """

    def __init__(
        self, network: Qwen3Reranker, layers: Sequence[Layer], operations: Operations, deterministic: bool = False
    ) -> None:
        self.operations = operations
        self._network = network
        self._config = network.config
        self._layers = layers
        self._deterministic = deterministic
        first_key = self._config.num_attention_heads
        self._splits = (first_key, first_key + self._config.num_key_value_heads)  # of query, key and value heads
        self._prefixes = PrefixCache(MAX_PREFIX_BYTES)

    @property
    def prefix_stats(self) -> CacheStats:
        """See `engine.model.SharesPrefixes`."""
        return self._prefixes.stats

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt]) -> Tensor:
        """logit(yes) − logit(no) after each prompt, (len(prompts),) float32 on the CPU."""
        if self._deterministic:
            return torch.cat([self._logits([prompt]) for prompt in prompts])
        return self._logits(prompts)

    def _logits(self, prompts: Sequence[Prompt]) -> Tensor:
        prefixes = [tuple(prompt.token_ids[: prompt.shared_len]) for prompt in prompts]
        entries: dict[TokenIds, Tensor] = {}
        new: dict[TokenIds, _Segment] = {}
        for prefix in dict.fromkeys(prefixes):
            kept = self._prefixes.get(prefix)
            entries[prefix] = self._empty(len(prefix)) if kept is None else kept
            if kept is None:
                new[prefix] = self._to_compute(prefix, entries[prefix])
        segments = [
            _Segment(prompt.token_ids[prompt.shared_len :], entries[prefix])
            for prompt, prefix in zip(prompts, prefixes, strict=True)
        ]
        to_keep = [segment for segment in new.values() if segment.token_ids]
        if self._deterministic and to_keep:  # apart from the prompt, as if it had been kept
            self._forward(to_keep)
            to_keep = []
        hidden = self._forward([*to_keep, *segments])
        for prefix in new:
            self._prefixes.put(prefix, entries[prefix])
        computed = sum(len(segment.token_ids) for segment in (*new.values(), *segments))
        self._prefixes.saved(sum(len(prompt.token_ids) for prompt in prompts) - computed)
        return self._network.read_out(hidden)

    def _to_compute(self, prefix: TokenIds, entry: Tensor) -> _Segment:
        """Copies what a kept prefix has in common with a new one; the segment fills in the rest of its entry."""
        head = None if self._deterministic else self._prefixes.longest_head(prefix)
        known = entry[:, :, :0] if head is None else head
        length = known.shape[2]
        entry[:, :, :length] = known
        return _Segment(prefix[length:], known, keep=entry[:, :, length:])

    def _empty(self, num_tokens: int) -> Tensor:
        config = self._config
        shape = (len(self._layers), 2, num_tokens, config.num_key_value_heads, config.head_dim)
        return self._network.embed_tokens.weight.new_empty(shape)

    def _forward(self, segments: Sequence[_Segment]) -> Tensor:
        """The residual stream at the last position of each segment that is a prompt's, before the last norm.

        Args:
            segments: those that are kept come first; the others may attend to what they leave in the same layer.
        """
        ops, eps = self.operations, self._config.rms_norm_eps
        num_kept = sum(segment.keep is not None for segment in segments)
        offsets = [0, *accumulate(len(segment.token_ids) for segment in segments)]
        x, cos, sin = self._embed(segments)
        last = torch.tensor(offsets[num_kept + 1 :], dtype=torch.long, device=x.device) - 1
        delta: Rows | None = None
        for index, layer in enumerate(self._layers):
            final = index == len(self._layers) - 1
            hidden = ops.add_rmsnorm(x, delta, layer.input_norm, eps)
            heads = ops.norm_rope(layer.qkv(hidden), layer.qk_norm, cos, sin, eps)
            query, key, value = heads.tensor_split(self._splits, dim=1)
            for segment, start, end in zip(segments[:num_kept], offsets, offsets[1:], strict=False):
                assert segment.keep is not None
                segment.keep[index, 0], segment.keep[index, 1] = key[start:end], value[start:end]
            bases = [(segment.base[index, 0], segment.base[index, 1]) for segment in segments]
            attending = Segments(offsets, offsets, bases)
            if final:  # nothing reads the other positions any more
                query, x = query[last].contiguous(), x[last]
                attending = Segments(list(range(len(last) + 1)), offsets[num_kept:], bases[num_kept:])
            if not len(query):
                return x
            attended = ops.attention(query, key, value, attending)
            hidden = ops.add_rmsnorm(x, layer.output(attended), layer.post_norm, eps)
            delta = layer.down(ops.silu_mul(layer.gate_up(hidden)))
        assert delta is not None
        return x + delta.scaled()

    def _embed(self, segments: Sequence[_Segment]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (T, hidden_size), and RoPE's cos and sin (T, head_dim / 2) float32."""
        device = self._network.embed_tokens.weight.device
        token_ids = torch.tensor(list(chain.from_iterable(segment.token_ids for segment in segments)), device=device)
        position_ids = torch.cat(
            [torch.arange(len(one.token_ids), device=device) + one.base.shape[2] for one in segments]
        )
        angles = rope_angles(position_ids, self._config)
        embedded: Tensor = self._network.embed_tokens(token_ids)
        return embedded, angles.cos(), angles.sin()
