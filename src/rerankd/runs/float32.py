"""Numbers of 32 bits (IEEE 754 binary32), in which evaluators read scores. Standard library only."""

from __future__ import annotations

import math
import struct


def rounded(value: float) -> float:
    """The nearest float32; infinite beyond the largest one."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def below(value: float) -> float:
    """The next smaller float32 of a float32 that is not minus infinity."""
    if value == 0:
        return float(struct.unpack("<f", struct.pack("<I", 0x8000_0001))[0])
    bits = int(struct.unpack("<I", struct.pack("<f", value))[0])
    return float(struct.unpack("<f", struct.pack("<I", bits - 1 if value > 0 else bits + 1))[0])


def written(value: float) -> str:
    """The shortest decimal that reads back as this float32."""
    return next(text for digits in range(1, 10) if rounded(float(text := f"{value:.{digits}g}")) == value)
