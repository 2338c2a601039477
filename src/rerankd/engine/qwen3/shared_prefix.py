"""The forward pass that is served: as model.py, but nothing is computed twice.

What the prompts of one query begin with (template, instruct, query) is computed once and attended to by every
document; in the last layer only the last position is computed; query, key and value, and gate and up, are one
product each. A long prompt is read in chunks, each attending to what was read before. Tested against model.py, which
is its specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from rerankd.engine import protocols
from rerankd.engine.protocols import Chunk, LastChunk
from rerankd.engine.qwen3.kv_cache import PrefixCache, PrefixKey
from rerankd.engine.qwen3.linear import Layer
from rerankd.engine.qwen3.model import Qwen3Reranker, rope_angles
from rerankd.engine.qwen3.ops import Operations, Rows, Segments
from rerankd.types import CacheStats

MAX_PREFIX_BYTES = 256_000_000
"""For the 0.6B, prefixes of some 2,300 tokens in all. A longer one is kept only while its request runs."""


class Reading:
    """Keys and values of the beginning of a prompt, of which the first `num_read` tokens are filled in.

    entry: (num_layers, 2, num_tokens, num_kv_heads, head_dim). uncounted: tokens computed for it that no prompt was
    counted for yet.
    """

    def __init__(self, chunk: LastChunk, entry: Tensor, num_read: int, uncounted: int = 0) -> None:
        self.token_ids = chunk.prompt.token_ids[: entry.shape[2]]
        self.prefix_key = _prefix_key(chunk)
        self.entry = entry
        self.num_read = num_read
        self.uncounted = uncounted

    @property
    def shared_len(self) -> int:
        """How many of the tokens other prompts have, too."""
        return len(self.prefix_key[1])


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
        deterministic: each prompt runs alone, and so do its prefix and each of its chunks, so that the shapes, and with
            them the order of every sum, depend on the prompt only.
    """

    def __init__(
        self, network: Qwen3Reranker, layers: Sequence[Layer], operations: Operations, deterministic: bool = False
    ) -> None:
        self.operations = operations
        self.tokens_computed = 0
        self._network = network
        self._config = network.config
        self._layers = layers
        self._deterministic = deterministic
        first_key = self._config.num_attention_heads
        self._splits = (first_key, first_key + self._config.num_key_value_heads)  # of query, key and value heads
        self._prefixes = PrefixCache(MAX_PREFIX_BYTES)

    @property
    def prefix_stats(self) -> CacheStats:
        """See `engine.protocols.SharesPrefixes`."""
        return self._prefixes.stats

    @torch.inference_mode()
    def begin(self, last: LastChunk, num_tokens: int) -> Reading:
        """See `engine.protocols.ReadsInChunks`."""
        entry = self._empty(num_tokens)
        after = _after(last)
        if after is not None:
            head, uncounted = after.entry, after.uncounted
            after.uncounted = 0
        else:
            key = _prefix_key(last)
            kept = self._prefixes.get(key)
            head, uncounted = self._longest_head(key) if kept is None else kept, 0
        length = head.shape[2]
        entry[:, :, :length] = head
        return Reading(last, entry, length, uncounted)

    @torch.inference_mode()
    def __call__(self, last: Sequence[LastChunk], chunks: Sequence[Chunk] = ()) -> Tensor:
        """logit(yes) − logit(no) after each prompt, (len(last),) float32 on the CPU, once the chunks are read."""
        if not self._deterministic:
            return self._pass(chunks, last)
        for chunk in chunks:
            self._read_apart(chunk)
        return torch.cat([torch.empty(0), *(self._pass((), [one]) for one in last)])

    def _read_apart(self, chunk: Chunk) -> None:
        """A prefix in it is computed as if it were kept."""
        reading = _own(chunk.reading)
        if reading.num_read < reading.shared_len < chunk.end:
            self._pass([Chunk(reading, reading.shared_len)], ())
        self._pass([chunk], ())

    def _pass(self, chunks: Sequence[Chunk], last: Sequence[LastChunk]) -> Tensor:
        ends = {
            _own(chunk.reading): chunk.end for chunk in chunks if chunk.end > chunk.reading.num_read
        }  # the last of each
        read = [_to_read(reading, end) for reading, end in ends.items()]
        bases, new = self._prefixes_of(last)
        ending = [_Segment(one.prompt.token_ids[base.shape[2] :], base) for one, base in zip(last, bases, strict=True)]
        to_keep = [*read, *(segment for _, segment in new.values() if segment.token_ids)]
        if self._deterministic and ending and to_keep:  # apart from the prompt, as if it had been kept
            self._forward(to_keep)
            to_keep = []
        hidden = self._forward([*to_keep, *ending])
        for key, (entry, _) in new.items():
            self._prefixes.put(key, entry)
        for reading, end in ends.items():
            self._have_read(reading, end)
        self._count(last, [*read, *ending], [segment for _, segment in new.values()])
        return self._network.read_out(hidden) if last else torch.empty(0)

    def _prefixes_of(self, last: Sequence[LastChunk]) -> tuple[list[Tensor], dict[PrefixKey, tuple[Tensor, _Segment]]]:
        """What each prompt goes on from; and, of the prefixes that are not known, their entries and what fills them."""
        entries: dict[PrefixKey, Tensor] = {}
        new: dict[PrefixKey, tuple[Tensor, _Segment]] = {}
        bases = []
        for one in last:
            if (after := _after(one)) is not None:
                bases.append(after.entry)
                continue
            key = _prefix_key(one)
            if key not in entries:
                kept = self._prefixes.get(key)
                entries[key] = self._empty(len(key[1])) if kept is None else kept
                if kept is None:
                    new[key] = entries[key], self._to_compute(key, entries[key])
            bases.append(entries[key])
        return bases, new

    def _to_compute(self, key: PrefixKey, entry: Tensor) -> _Segment:
        """Copies what a kept prefix has in common with a new one; the segment fills in the rest of its entry."""
        known = self._longest_head(key)
        length = known.shape[2]
        entry[:, :, :length] = known
        return _Segment(key[1][length:], known, keep=entry[:, :, length:])

    def _longest_head(self, key: PrefixKey) -> Tensor:
        head = None if self._deterministic else self._prefixes.longest_head(key)
        return self._empty(0) if head is None else head

    def _have_read(self, reading: Reading, end: int) -> None:
        """The pass is done. A prefix that is complete now is kept for other prompts."""
        reading.uncounted += end - reading.num_read
        reading.num_read = end
        if end >= reading.shared_len > 0 and reading.prefix_key not in self._prefixes:
            self._prefixes.put(reading.prefix_key, reading.entry[:, :, : reading.shared_len])

    def _count(self, last: Sequence[LastChunk], segments: Sequence[_Segment], prefixes: Sequence[_Segment]) -> None:
        """Tokens that were computed, and those of the prompts that did not have to be."""
        for_prefixes = sum(len(segment.token_ids) for segment in prefixes)
        self.tokens_computed += for_prefixes + sum(len(segment.token_ids) for segment in segments)
        saved = -for_prefixes
        for one in last:
            if (after := _after(one)) is None:
                saved += one.prompt.shared_len
            else:
                saved += after.num_read - after.uncounted
                after.uncounted = 0
        self._prefixes.saved(saved)

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
        if not segments:
            return self._network.embed_tokens.weight.new_empty(0, self._config.hidden_size)
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


def _to_read(reading: Reading, end: int) -> _Segment:
    start = reading.num_read
    return _Segment(reading.token_ids[start:end], reading.entry[:, :, :start], keep=reading.entry[:, :, start:end])


def _prefix_key(chunk: LastChunk) -> PrefixKey:
    return chunk.owner, chunk.prompt.prefix


def _after(chunk: LastChunk) -> Reading | None:
    return None if chunk.after is None else _own(chunk.after)


def _own(reading: protocols.Reading) -> Reading:
    assert isinstance(reading, Reading), "This is a bug: another model's reading."
    return reading
