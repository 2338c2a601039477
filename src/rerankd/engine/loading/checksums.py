"""What a file holds, as a short text: to notice damage and replaced files. No defence against who forges one."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

PIECE = 1 << 20
CHECKSUM_LEN = 16


def checksum(path: Path) -> str:
    """CHECKSUM_LEN hex digits made of every byte: SHA-256 over the CRC-32 of each MiB.

    CRC-32 runs at some 3.5 GB/s a core, SHA-256 at 0.8; a change of one piece is missed once in 2³² times.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256()
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            total.update(zlib.crc32(view[:size]).to_bytes(4, "big") + size.to_bytes(4, "big"))
    return total.hexdigest()[:CHECKSUM_LEN]
