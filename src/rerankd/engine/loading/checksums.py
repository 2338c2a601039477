"""Checksums of files, to detect damage and replacement. They do not protect against forgery."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

PIECE = 1 << 20
CHECKSUM_LEN = 16


def checksum(path: Path) -> str:
    """CHECKSUM_LEN hex digits: SHA-256 over the CRC-32 of each MiB.

    CRC-32 runs at about 3.5 GB/s per core, SHA-256 at 0.8. It misses a change in one MiB with probability 2⁻³².

    Raises:
        OSError: the file cannot be read.
    """
    total = hashlib.sha256()
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            total.update(zlib.crc32(view[:size]).to_bytes(4, "big") + size.to_bytes(4, "big"))
    return total.hexdigest()[:CHECKSUM_LEN]
