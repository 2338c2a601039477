"""Logits that were computed before. One cache an engine, so model, dtype and prompt are the same by construction."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence

from rerankd.types import CacheStats, Prompt

BYTES_PER_ENTRY = 160  # digest, float and their place in the dictionary, as Python keeps them


def keys_of(prompts: Sequence[Prompt], owner: str = "") -> list[bytes]:
    """The key of each prompt: 16 bytes of BLAKE2b over its token ids and the length of its query.

    The length tells apart two prompts of an encoder in which a text contains a separator. What the prompts of one query
    have in common is hashed once.

    Args:
        owner: see `types.RerankRequest`. Keys differ between owners: a hit would reveal another's request.
    """
    heads: dict[tuple[int, tuple[int, ...]], hashlib.blake2b] = {}
    keys = []
    for prompt in prompts:
        common = prompt.query_tokens, prompt.prefix
        if common not in heads:
            first = array("i", (prompt.query_tokens, *prompt.prefix)).tobytes()
            heads[common] = hashlib.blake2b(first, digest_size=16)
        hashed = heads[common].copy()
        hashed.update(array("i", prompt.token_ids[prompt.shared_len :]).tobytes())
        if owner:
            hashed.update(b"owner" + owner.encode())
        keys.append(hashed.digest())
    return keys


class ScoreCache:
    """Prompt → logit, the least recently used dropped first. Not for several threads at a time.

    Args:
        max_bytes: 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_entries = max_bytes // BYTES_PER_ENTRY
        self._logits: dict[bytes, float] = {}
        self._hits = 0
        self._misses = 0
        self._tokens = 0

    def known(self, keys: Sequence[bytes], prompts: Sequence[Prompt]) -> dict[bytes, float]:
        """The logits that are kept of a request's prompts. Looks each up once; one that occurs twice is saved once."""
        distinct = dict(zip(keys, prompts, strict=True))
        known = {key: logit for key in distinct if (logit := self.get(key)) is not None}
        left = sum(len(prompt.token_ids) for key, prompt in distinct.items() if key not in known)
        self._tokens += sum(len(prompt.token_ids) for prompt in prompts) - left
        return known

    def get(self, key: bytes) -> float | None:
        """The logit, if it is kept; counts a hit or a miss."""
        logit = self._logits.pop(key, None)
        if logit is None:
            self._misses += 1
            return None
        self._hits += 1
        self._logits[key] = logit
        return logit

    def put_all(self, logits: Iterable[tuple[bytes, float]]) -> None:
        """Keeps logits, but not what is no number: the model may do better next time."""
        if self._max_entries:
            self._logits.update((key, logit) for key, logit in logits if math.isfinite(logit))
        while len(self._logits) > self._max_entries:
            del self._logits[next(iter(self._logits))]

    @property
    def stats(self) -> CacheStats:
        """Look-ups, tokens and bytes so far; tokens: also of prompts that occurred twice in a request."""
        return CacheStats(self._hits, self._misses, self._tokens, len(self._logits) * BYTES_PER_ENTRY)
