"""The Qwen3 forward pass over packed sequences: token ids in, one logit a sequence out.

Follows transformers' Qwen3 (`models/qwen3/modeling_qwen3.py`) operation by operation, so that float32 logits
agree to 1e-4; what differs: no padding, no cache, and a head of two rows (`no`, `yes`) or one (their difference)
in place of the whole vocabulary. Module names are the checkpoint's. Knows no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rerankd.engine.loading.checkpoint_json import Field, check_fields
from rerankd.engine.qwen3.attention import packed_attention
from rerankd.errors import CheckpointInvalid

FIELDS = {
    "vocab_size": Field(int, 1, 10_000_000),
    "hidden_size": Field(int, 1, 65_536),
    "intermediate_size": Field(int, 1, 1_000_000),
    "num_hidden_layers": Field(int, 1, 1_000),
    "num_attention_heads": Field(int, 1, 1_024),
    "num_key_value_heads": Field(int, 1, 1_024),
    "head_dim": Field(int, 2, 1_024),
    "rms_norm_eps": Field(float, 1e-12, 1),
    "rope_theta": Field(float, 1, 1e12),
    "max_position_embeddings": Field(int, 128, 10_000_000),
    "tie_word_embeddings": Field(bool),
}
"""Bounds of config.json: far beyond every published size, and below values that hang the start or give NaN."""


@dataclass(frozen=True, slots=True)
class Qwen3Config:
    """The shape of a checkpoint, under the names of its `config.json`.

    qwen2: the layers of Qwen2: biases on query, key and value, and no norm of their heads.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    qwen2: bool = False

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> Qwen3Config:
        """Reads a parsed `config.json`: of Qwen3, of Qwen2, or of a model whose `text_config` is one of them.

        Raises:
            CheckpointInvalid: a field is missing, malformed or out of range, or asks for something that
                Qwen3-Reranker does not have.
        """
        config = _text_config(config)
        qwen2 = config.get("model_type") == "qwen2"
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if not isinstance(rope, Mapping):
            raise CheckpointInvalid("config.json: rope_parameters is not an object.")
        unsupported = {
            "attention_bias": config.get("attention_bias", False),
            "use_sliding_window": config.get("use_sliding_window", False),
            "rope type": (rope.get("rope_type") or rope.get("type") or "default") != "default",
            "hidden_act": config.get("hidden_act", "silu") != "silu",
        }
        if wrong := [name for name, value in unsupported.items() if value]:
            raise CheckpointInvalid(f"config.json asks for what Qwen3-Reranker does not have: {', '.join(wrong)}.")
        values = {"rope_theta": rope.get("rope_theta"), **config}
        if qwen2:
            values = {"tie_word_embeddings": False, "head_dim": _head_dim(config), **values}
        check_fields("config.json", values, FIELDS)
        read = cls(**{name: values[name] for name in FIELDS}, qwen2=qwen2)
        if read.num_attention_heads % read.num_key_value_heads:
            raise CheckpointInvalid("config.json: num_attention_heads is not a multiple of num_key_value_heads.")
        if read.head_dim % 2:
            raise CheckpointInvalid("config.json: head_dim is odd, and RoPE needs pairs.")
        return read


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    if text is None:
        return config
    if not isinstance(text, Mapping):
        raise CheckpointInvalid("config.json: text_config is not an object.")
    return {**text, "tie_word_embeddings": config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))}


def _head_dim(config: Mapping[str, Any]) -> Any:
    """Qwen2's, which its config.json does not name."""
    hidden_size, num_heads = config.get("hidden_size"), config.get("num_attention_heads")
    if type(hidden_size) is int and type(num_heads) is int and num_heads > 0 and hidden_size % num_heads == 0:
        return hidden_size // num_heads
    return None


class RMSNorm(nn.Module):
    """x / rms(x) × weight over the last dimension; the mean square is taken in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * x32.to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with an RMSNorm on each head's query and key (Qwen2: none, but biases).

    num_heads × head_dim need not be hidden_size (4B: 32 × 128 = 4096 against 2560).
    """

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query_size = config.num_attention_heads * config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=config.qwen2)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qwen2)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qwen2)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = nn.Identity() if config.qwen2 else RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = nn.Identity() if config.qwen2 else RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cu_seqlens: list[int]) -> Tensor:
        """(T, hidden_size) → the same. cos, sin: (T, 1, head_dim); cu_seqlens: where each sequence starts, and T."""
        num_tokens = x.shape[0]
        query = self.q_norm(self.q_proj(x).view(num_tokens, -1, self.head_dim))
        key = self.k_norm(self.k_proj(x).view(num_tokens, -1, self.head_dim))
        value = self.v_proj(x).view(num_tokens, -1, self.head_dim)
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        attended: Tensor = self.o_proj(packed_attention(query, key, value, cu_seqlens).view(num_tokens, -1))
        return attended


class MLP(nn.Module):
    """down(silu(gate(x)) × up(x))"""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return projected


class DecoderLayer(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cu_seqlens: list[int]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cu_seqlens)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class Qwen3Reranker(nn.Module):
    """The whole network. `head`: (2, hidden_size) float32, rows `no` and `yes`; or (1, hidden_size), yes − no."""

    def __init__(self, config: Qwen3Config, head_rows: int) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Parameter(torch.empty(head_rows, config.hidden_size, dtype=torch.float32))

    @torch.inference_mode()
    def forward(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """The log-odds of `yes` after each sequence.

        Args:
            sequences: token ids of each prompt, none empty.

        Returns:
            (len(sequences),) float32 on the CPU: logit(yes) − logit(no).
        """
        device = self.embed_tokens.weight.device
        cu_seqlens = [0, *accumulate(len(sequence) for sequence in sequences)]
        token_ids = torch.tensor(list(chain.from_iterable(sequences)), device=device)  # (num_tokens,)
        position_ids = torch.cat([torch.arange(len(sequence), device=device) for sequence in sequences])
        x = self.embed_tokens(token_ids)  # (num_tokens, hidden_size)
        cos, sin = self._rope(position_ids, x.dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, cu_seqlens)
        return self.read_out(x[torch.tensor(cu_seqlens[1:], device=device) - 1])

    def read_out(self, last: Tensor) -> Tensor:
        """The residual stream at each last position, (num_sequences, hidden_size) → logits, float32 on the CPU."""
        # Two bfloat16 logits are often equal; their float32 difference is not.
        logits = self.norm(last).float() @ self.head.T  # (num_sequences, head_rows)
        difference: Tensor = logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]
        return difference.cpu()

    def _rope(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of the rotary embedding, each (num_tokens, 1, head_dim)."""
        angles = rope_angles(position_ids, self.config)
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        return angles.cos().to(dtype), angles.sin().to(dtype)


def num_parameters(config: Qwen3Config) -> int:
    """Weights of the network, with a head of two rows."""
    with torch.device("meta"):
        network = Qwen3Reranker(config, head_rows=2)
    return sum(parameter.numel() for parameter in network.parameters())


def rope_angles(position_ids: Tensor, config: Qwen3Config) -> Tensor:
    """RoPE's angle for each position and pair of dimensions, (num_tokens, head_dim / 2) float32."""
    half = torch.arange(0, config.head_dim, 2, device=position_ids.device, dtype=torch.float32)
    return position_ids[:, None].float() * config.rope_theta ** -(half / config.head_dim)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Applies RoPE to (num_tokens, num_heads, head_dim), the two halves of head_dim being the pairs."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin
