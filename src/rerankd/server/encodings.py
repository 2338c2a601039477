"""Content-Encoding: unpacks bodies piece by piece, never more than was asked for. Knows no HTTP but the names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from rerankd.apis.errors import UnsupportedEncoding
from rerankd.errors import InvalidRequest

PIECE = 256 * 1024
"""Bytes that are unpacked at a time: others are answered in between."""

READ = ("gzip", "deflate")


def unpacker(header: str) -> Unpacker | None:
    """For the header's encoding; None: the body is as it is.

    Raises:
        UnsupportedEncoding: another one, or several.
    """
    name = header.strip().lower()
    if name in ("", "identity"):
        return None
    if name.removeprefix("x-") not in READ:
        raise UnsupportedEncoding(name, READ)
    return Unpacker(name.removeprefix("x-"))


class Unpacker:
    """Of one body."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inner: zlib._Decompress | None = None

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """The pieces that these bytes hold, each of at most PIECE bytes.

        Raises:
            InvalidRequest: they are not packed so.
        """
        while packed:
            if self._inner is None or self._inner.eof:  # several gzip members are one body
                self._inner = self._open(packed)
            try:
                piece = self._inner.decompress(packed, PIECE)
            except zlib.error:
                raise InvalidRequest(f"The body is not {self._name}, as its Content-Encoding says.") from None
            packed = self._inner.unconsumed_tail or self._inner.unused_data
            if piece:
                yield piece
            if not packed:
                yield from self._rest()

    def finish(self) -> None:
        """Raises InvalidRequest if the body ends too early."""
        if self._inner is not None and not self._inner.eof:
            raise InvalidRequest(f"The {self._name} body ends in the middle.")

    def _rest(self) -> Iterator[bytes]:
        """What was read, and did not fit into the last piece."""
        assert self._inner is not None
        while not self._inner.eof and (piece := self._inner.decompress(b"", PIECE)):
            yield piece

    def _open(self, packed: bytes) -> zlib._Decompress:
        if self._name == "gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # RFC 9110 means zlib's format; some send the bare stream, which never begins like this.
        has_header = len(packed) > 1 and packed[0] & 0x0F == 8 and (packed[0] * 256 + packed[1]) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
