"""Decompresses bodies (`Content-Encoding`) piece by piece. Knows no HTTP but the names of the encodings."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from rerankd.apis.errors import UnsupportedEncoding
from rerankd.errors import InvalidRequest

PIECE = 256 * 1024
"""Bytes that are decompressed at a time; other calls run in between."""

READ = ("gzip", "deflate")


def unpacker(header: str) -> Unpacker | None:
    """The decompressor for a header's value; None if the body is not compressed.

    Raises:
        UnsupportedEncoding: an encoding that is not in READ, or several.
    """
    name = header.strip().lower()
    if name in ("", "identity"):
        return None
    if name.removeprefix("x-") not in READ:
        raise UnsupportedEncoding(name, READ)
    return Unpacker(name.removeprefix("x-"))


class Unpacker:
    """Decompresses one body."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._inner: zlib._Decompress | None = None

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """Yields decompressed pieces of at most PIECE bytes.

        Raises:
            InvalidRequest: the bytes do not have this encoding.
        """
        while packed:
            if self._inner is None or self._inner.eof:  # a body may have several gzip members
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
        """Raises InvalidRequest if the body is incomplete."""
        if self._inner is not None and not self._inner.eof:
            raise InvalidRequest(f"The {self._name} body ends in the middle.")

    def _rest(self) -> Iterator[bytes]:
        """Yields what did not fit into the last piece."""
        assert self._inner is not None
        while not self._inner.eof and (piece := self._inner.decompress(b"", PIECE)):
            yield piece

    def _open(self, packed: bytes) -> zlib._Decompress:
        if self._name == "gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        # RFC 9110 means zlib's format. Some clients send a bare stream, which never begins like this.
        has_header = len(packed) > 1 and packed[0] & 0x0F == 8 and (packed[0] * 256 + packed[1]) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS)
