"""The forward pass that is served: as model.py, but nothing is computed twice.

What the prompts of one query begin with (template, instruct, query) is computed once and attended to by every
document; in the last layer only the last position is computed; query, key and value, and gate and up, are one
product each. Tested against model.py, which is its specification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from rerankd.engine.qwen3.layers import Layer
from rerankd.engine.qwen3.model import Qwen3Reranker, rope_angles
from rerankd.engine.qwen3.operations import Operations, Rows, Segments
from rerankd.engine.qwen3.prefixes import PrefixCache, TokenIds

MAX_PREFIX_BYTES = 256_000_000
"""For the 0.6B, prefixes of some 2,300 tokens in all; one alone may be longer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's token ids; the first `shared_len` of them are those of other prompts too."""

    token_ids: Sequence[int]
    shared_len: int


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

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt]) -> Tensor:
        """logit(yes) − logit(no) after each prompt, (len(prompts),) float32 on the CPU."""
        if self._deterministic:
            return torch.cat([self._logits([prompt]) for prompt in prompts])
        return self._logits(prompts)

    def _logits(self, prompts: Sequence[Prompt]) -> Tensor:
        shared = [tuple(prompt.token_ids[: prompt.shared_len]) for prompt in prompts]
        uses = Counter(shared)
        bases = {prefix: self._base(prefix, uses[prefix]) for prefix in uses}
        segments = []
        for prompt, prefix in zip(prompts, shared, strict=True):
            base = bases[prefix]
            segments.append((prompt.token_ids[base.shape[2] :], base))
        return self._network.read_out(self._forward(segments))

    def _base(self, prefix: TokenIds, uses: int) -> Tensor:
        """What is known of a prefix: all of it, or, where only one prompt needs it, what kept ones have in common.

        Then the rest is computed with the prompt, in one pass with the others.
        """
        if uses == 1 and self._prefixes.get(prefix) is None:
            head = self._head(prefix)
            if head is not None:
                return head
        return self._prefix(prefix)

    def _prefix(self, tokens: TokenIds) -> Tensor:
        """Keys and values of a prefix, (num_layers, 2, len(tokens), num_kv_heads, head_dim)."""
        entry = self._prefixes.get(tokens)
        if entry is None:
            entry = self._empty(len(tokens))
            head = self._head(tokens)
            known = 0 if head is None else head.shape[2]
            if head is not None:
                entry[:, :, :known] = head
            if known < len(tokens):
                self._forward([(tokens[known:], entry[:, :, :known])], keep=entry[:, :, known:])
            self._prefixes.put(tokens, entry)
        return entry

    def _head(self, prefix: TokenIds) -> Tensor | None:
        """What a kept prefix has in common with this one."""
        return None if self._deterministic else self._prefixes.longest_head(prefix)

    def _empty(self, num_tokens: int) -> Tensor:
        config = self._config
        shape = (len(self._layers), 2, num_tokens, config.num_key_value_heads, config.head_dim)
        return self._network.embed_tokens.weight.new_empty(shape)

    def _forward(self, segments: Sequence[tuple[Sequence[int], Tensor]], keep: Tensor | None = None) -> Tensor:
        """The residual stream at the last position of each segment, before the last norm.

        Args:
            segments: (token ids, keys and values of what comes before them).
            keep: where the keys and values of the one segment go; then there is nothing to return.
        """
        ops, eps = self.operations, self._config.rms_norm_eps
        offsets = [0, *accumulate(len(tokens) for tokens, _ in segments)]
        x, cos, sin = self._embed(segments)
        last = torch.tensor(offsets[1:], device=x.device) - 1
        delta: Rows | None = None
        for index, layer in enumerate(self._layers):
            final = index == len(self._layers) - 1
            hidden = ops.add_rmsnorm(x, delta, layer.input_norm, eps)
            heads = ops.norm_rope(layer.qkv(hidden), layer.qk_norm, cos, sin, eps)
            query, key, value = heads.tensor_split(self._splits, dim=1)
            if keep is not None:
                keep[index, 0], keep[index, 1] = key, value
                if final:
                    return x
            q_offsets = offsets
            if final:  # nothing reads the other positions any more
                query, x, q_offsets = query[last].contiguous(), x[last], list(range(len(segments) + 1))
            known = [(base[index, 0], base[index, 1]) for _, base in segments]
            attended = ops.attention(query, key, value, Segments(q_offsets, offsets, known))
            hidden = ops.add_rmsnorm(x, layer.output(attended), layer.post_norm, eps)
            delta = layer.down(ops.silu_mul(layer.gate_up(hidden)))
        assert delta is not None
        return x + delta.scaled()

    def _embed(self, segments: Sequence[tuple[Sequence[int], Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (T, hidden_size), and RoPE's cos and sin (T, head_dim / 2) float32."""
        device = self._network.embed_tokens.weight.device
        token_ids = torch.tensor(list(chain.from_iterable(tokens for tokens, _ in segments)), device=device)
        position_ids = torch.cat(
            [torch.arange(len(tokens), device=device) + base.shape[2] for tokens, base in segments]
        )
        angles = rope_angles(position_ids, self._config)
        embedded: Tensor = self._network.embed_tokens(token_ids)
        return embedded, angles.cos(), angles.sin()
