"""The key of a text, under which its vector is kept."""

from __future__ import annotations

from hashlib import blake2b

KEY_BYTES = 16


def key_of(text: str) -> str:
    """32 hex digits of BLAKE2b."""
    return blake2b(text.encode(errors="replace"), digest_size=KEY_BYTES).hexdigest()
