"""The forward pass that serves: computes the same as model.py, and nothing twice. Keeps the prefixes of recent queries.

It computes the shared prefix of a query (template, instruct, query) once, and every document attends to it. It computes
the last layer only for the last position. Query, key and value are one linear layer, and so are gate and up. It reads a
long prompt in chunks, each of which attends to the chunks before it. model.py is the specification that tests compare
it with.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, takewhile

import torch
from cachetools import LRUCache
from torch import Tensor

from rerankd.engine import protocols
from rerankd.engine.protocols import Chunk, LastChunk
from rerankd.engine.qwen3.layers import Layers
from rerankd.engine.qwen3.model import Qwen3Reranker, rope_angles
from rerankd.engine.qwen3.packed import Packed
from rerankd.engine.qwen3.spare_memory import SpareMemory
from rerankd.stats import CacheStats
from rerankd.types import Prompt

MAX_PREFIX_BYTES = 256_000_000
"""About 2,300 tokens of prefixes for the 0.6B. A longer prefix is kept only while its request runs."""

ROPE_BLOCK = 4096
"""Positions for which RoPE's cosines and sines are computed together: 2 MB for heads of 128."""

PrefixKey = tuple[str, tuple[int, ...]]
"""The owner and the token ids of a prefix."""


class PrefixCache:
    """Recently used prefixes, up to a number of bytes. Owners do not share entries.

    The tensors are (num_layers, 2, num_tokens, num_kv_heads, head_dim): keys and values after RoPE.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[PrefixKey, Tensor] = LRUCache(max_bytes, getsizeof=lambda entry: entry.nbytes)
        self._hits = 0
        self._misses = 0
        self._tokens = 0

    def get(self, key: PrefixKey) -> Tensor | None:
        """The cached keys and values of the prefix, or None; counts a hit or a miss."""
        entry = self._entries.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        return entry

    def longest_head(self, key: PrefixKey) -> Tensor | None:
        """The longest beginning that a cached prefix shares with this one; later tokens do not change it."""
        owner, prefix = key
        shared = {other: num_shared(other[1], prefix) for other in self._entries if other[0] == owner}
        best = max(shared, key=shared.__getitem__, default=key)
        length = shared.get(best, 0)
        return self._entries[best][:, :, :length] if length else None

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._entries

    def put(self, key: PrefixKey, entry: Tensor) -> None:
        """Caches an entry unless it is larger than the cache; copies it if it is a view of a larger tensor."""
        if entry.nbytes <= self._entries.maxsize:
            self._entries[key] = entry.clone() if entry.nbytes < entry.untyped_storage().nbytes() else entry

    def saved(self, tokens: int) -> None:
        """Counts tokens that the cache saved."""
        self._tokens += tokens

    @property
    def stats(self) -> CacheStats:
        """Look-ups, saved tokens and bytes so far."""
        return CacheStats(self._hits, self._misses, self._tokens, int(self._entries.currsize))


def num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """The length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


class Reading:
    """Keys and values of the beginning of a prompt. The first `num_read` tokens are computed.

    entry: (num_layers, 2, num_tokens, num_kv_heads, head_dim). uncounted: computed tokens that the cache statistics do
    not include yet.
    """

    def __init__(self, chunk: LastChunk, entry: Tensor, num_read: int, uncounted: int = 0) -> None:
        self.token_ids = chunk.prompt.token_ids[: entry.shape[2]]
        self.prefix_key = _prefix_key(chunk)
        self.entry = entry
        self.num_read = num_read
        self.uncounted = uncounted

    @property
    def num_tokens(self) -> int:
        """Those that it can hold."""
        return self.entry.shape[2]

    @property
    def shared_len(self) -> int:
        """The length of the prefix shared with other prompts."""
        return len(self.prefix_key[1])


@dataclass(frozen=True, slots=True)
class _Segment:
    """Tokens to compute after `base`, the keys and values of the tokens before them.

    base: (num_layers, 2, length, num_kv_heads, head_dim). keep: receives the keys and values of these tokens, in the
    same layout; None for the end of a prompt.
    """

    token_ids: Sequence[int]
    base: Tensor
    keep: Tensor | None = None


class SharedPrefixForward:
    """Runs layers between the embedding and the head of a network. Not thread-safe.

    Implements `engine.protocols.SharesPrefixes` and `ReadsInChunks`.

    Args:
        network: provides embedding and head; its own layers do not run.
        layers: run between them.
        deterministic: unless the layers are invariant, runs each prompt, prefix and chunk alone, so that the shapes,
            and so the order of every sum, depend on the prompt only.
    """

    def __init__(self, network: Qwen3Reranker, layers: Layers, deterministic: bool = False) -> None:
        self.tokens_computed = 0
        """See `engine.protocols.SharesPrefixes`."""
        self._network = network
        self._config = network.config
        self._layers = layers
        self._apart = deterministic and not layers.invariant
        self._prefixes = PrefixCache(MAX_PREFIX_BYTES)
        self._spare = SpareMemory()
        self._cos_sin: tuple[Tensor, Tensor] | None = None

    @property
    def prefix_stats(self) -> CacheStats:
        """See `engine.protocols.SharesPrefixes`."""
        return self._prefixes.stats

    @torch.inference_mode()
    def begin(self, last: LastChunk, num_tokens: int) -> Reading:
        """See `engine.protocols.ReadsInChunks`."""
        is_prefix = num_tokens <= last.prompt.shared_len  # the cache may keep it
        entry, memory = (self._empty(num_tokens), None) if is_prefix else self._empty_in_spare(num_tokens)
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
        reading = Reading(last, entry, length, uncounted)
        if memory is not None:
            weakref.finalize(reading, self._spare.give, memory).atexit = False
        return reading

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        """logit(yes) − logit(no) of each prompt, float32."""
        return self.read((), [LastChunk(prompt) for prompt in batch])

    def read(self, chunks: Sequence[Chunk], last: Sequence[LastChunk]) -> list[float]:
        """See `engine.protocols.ReadsInChunks`."""
        logits: list[float] = self(last, chunks).tolist()
        return logits

    @torch.inference_mode()
    def __call__(self, last: Sequence[LastChunk], chunks: Sequence[Chunk] = ()) -> Tensor:
        """Reads the chunks, then returns logit(yes) − logit(no) of each prompt: (len(last),) float32 on the CPU."""
        if not self._apart:
            return self._pass(chunks, last)
        for chunk in chunks:
            self._read_apart(chunk)
        return torch.cat([torch.empty(0), *(self._pass((), [one]) for one in last)])

    def _read_apart(self, chunk: Chunk) -> None:
        """Computes a prefix within the chunk on its own, as if it were cached."""
        reading = _own(chunk.reading)
        if reading.num_read < reading.shared_len < chunk.end:
            self._pass([Chunk(reading, reading.shared_len)], ())
        self._pass([chunk], ())

    def _pass(self, chunks: Sequence[Chunk], last: Sequence[LastChunk]) -> Tensor:
        ends = {
            _own(chunk.reading): chunk.end for chunk in chunks if chunk.end > chunk.reading.num_read
        }  # the last chunk of each reading
        bases, new = self._prefixes_of(last)
        ending = [_ending(one, base, ends) for one, base in zip(last, bases, strict=True)]
        read = [_to_read(reading, end) for reading, end in ends.items()]
        to_keep = [*read, *(segment for _, segment in new.values() if segment.token_ids)]
        if self._apart and ending and to_keep:  # apart from the prompt, as if it were cached
            self._forward(to_keep)
            to_keep = []
        hidden = self._forward([*to_keep, *ending])
        for key, (entry, _) in new.items():
            self._prefixes.put(key, entry)
        for reading, end in ends.items():
            self._have_read(reading, end)
        self._count(last, [*read, *ending], [segment for _, segment in new.values()])
        return self._read_out(hidden)

    def _prefixes_of(self, last: Sequence[LastChunk]) -> tuple[list[Tensor], dict[PrefixKey, tuple[Tensor, _Segment]]]:
        """The keys and values that each prompt continues; and for each prefix not cached, its entry and its segment."""
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
        """Copies the longest cached beginning into the entry; the segment computes the rest."""
        known = self._longest_head(key)
        length = known.shape[2]
        entry[:, :, :length] = known
        return _Segment(key[1][length:], known, keep=entry[:, :, length:])

    def _longest_head(self, key: PrefixKey) -> Tensor:
        head = None if self._apart else self._prefixes.longest_head(key)
        return self._empty(0) if head is None else head

    def _have_read(self, reading: Reading, end: int) -> None:
        """Records a finished pass, and caches a prefix that is now complete."""
        reading.uncounted += end - reading.num_read
        reading.num_read = end
        if end >= reading.shared_len > 0 and reading.prefix_key not in self._prefixes:
            self._prefixes.put(reading.prefix_key, reading.entry[:, :, : reading.shared_len])

    def _count(self, last: Sequence[LastChunk], segments: Sequence[_Segment], prefixes: Sequence[_Segment]) -> None:
        """Counts the computed tokens, and the tokens of prompts that were saved."""
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
        return self._network.embed_tokens.weight.new_empty(self._shape(num_tokens))

    def _empty_in_spare(self, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """See `SpareMemory.take`; only on the CPU."""
        like = self._network.embed_tokens.weight
        if like.device.type != "cpu":
            return self._empty(num_tokens), None
        return self._spare.take(self._shape(num_tokens), like.dtype)

    def _shape(self, num_tokens: int) -> tuple[int, ...]:
        config = self._config
        return config.num_hidden_layers, 2, num_tokens, config.num_key_value_heads, config.head_dim

    def _forward(self, segments: Sequence[_Segment]) -> Tensor:
        """The residual stream at the last position of each segment without `keep`, before the final norm.

        Args:
            segments: those with `keep` first; the others may attend to the keys and values that they leave.
        """
        if not segments:
            return self._network.embed_tokens.weight.new_empty(0, self._config.hidden_size)
        x, cos, sin = self._embed(segments)
        keeps = [one.keep for one in segments if one.keep is not None]
        packed = Packed.of((len(one.token_ids) for one in segments), [one.base for one in segments], keeps)
        return self._layers(x, cos, sin, packed)

    def _read_out(self, hidden: Tensor) -> Tensor:
        """(num_prompts, hidden_size) → (num_prompts,) float32. The sums of a larger product may have another order."""
        rows = [hidden[i : i + 1] for i in range(len(hidden))] if self._layers.invariant else [hidden]
        return torch.cat([torch.empty(0), *(self._network.read_out(row) for row in rows if len(row))])

    def _embed(self, segments: Sequence[_Segment]) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings (T, hidden_size), and RoPE's cos and sin (T, head_dim / 2) float32."""
        device = self._network.embed_tokens.weight.device
        token_ids = torch.tensor(list(chain.from_iterable(segment.token_ids for segment in segments)), device=device)
        position_ids = torch.cat(
            [torch.arange(len(one.token_ids), device=device) + one.base.shape[2] for one in segments]
        )
        embedded: Tensor = self._network.embed_tokens(token_ids)
        return embedded, *self._rotations(position_ids)

    def _rotations(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin of each position. Computed for all positions up to the longest so far, and kept: what a position
        gets does not depend on those beside it."""
        needed = int(position_ids.max()) + 1
        if self._cos_sin is None or needed > len(self._cos_sin[0]):
            num_positions = -(-needed // ROPE_BLOCK) * ROPE_BLOCK
            angles = rope_angles(torch.arange(num_positions, device=position_ids.device), self._config)
            self._cos_sin = angles.cos(), angles.sin()
        cos, sin = self._cos_sin
        return cos[position_ids], sin[position_ids]


def _ending(one: LastChunk, base: Tensor, ends: dict[Reading, int]) -> _Segment:
    """The end of a prompt, with all that this pass reads of its document: no later pass attends to that.

    Args:
        base: the tokens before.
        ends: where this pass ends each reading. That of the document ends before the document.
    """
    after = _after(one)
    if after is not None and after in ends and after.num_tokens > after.shared_len:
        start = max(after.num_read, after.shared_len)
        base = after.entry[:, :, :start]
        if start > after.num_read:
            ends[after] = start
        else:
            del ends[after]
    return _Segment(one.prompt.token_ids[base.shape[2] :], base)


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
