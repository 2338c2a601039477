"""Logits that were computed before. One cache an engine, so model, dtype and prompt are the same by construction."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence

from rerankd.types import CacheStats, EncodedPair

BYTES_PER_ENTRY = 160  # digest, float and their place in the dictionary, as Python keeps them


def key_of(pair: EncodedPair, owner: str = "") -> bytes:
    """What stands for a prompt: 16 bytes of BLAKE2b over its token ids, and over where the query ends.

    In an encoder's ids a separator that was written in a text looks like the one between query and document.

    Args:
        owner: on whose behalf it is scored. Another owner's key is another: a hit would tell what somebody else asked.
    """
    hashed = hashlib.blake2b(array("i", (pair.query_tokens, *pair.token_ids)).tobytes(), digest_size=16)
    if owner:
        hashed.update(b"owner" + owner.encode())
    return hashed.digest()


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

    def known(self, keys: Sequence[bytes], pairs: Sequence[EncodedPair]) -> dict[bytes, float]:
        """The logits that are kept of a request's prompts. Looks each up once; one that occurs twice is saved once."""
        prompts = dict(zip(keys, pairs, strict=True))
        known = {key: logit for key in prompts if (logit := self.get(key)) is not None}
        left = sum(len(pair.token_ids) for key, pair in prompts.items() if key not in known)
        self._tokens += sum(len(pair.token_ids) for pair in pairs) - left
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
