"""Signed 16-bit samples to and from numpy, loudness, gain and mixing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Floats = NDArray[np.float32]
SILENCE_DBFS = -100.0
_FULL = 32768.0
_PCM = np.dtype("<i2")
_LOWEST, _HIGHEST = np.float32(-32768), np.float32(32767)


def samples(pcm: bytes) -> Samples:
    """The samples in little-endian 16-bit `pcm`, shared, not copied, read-only."""
    return np.frombuffer(pcm, dtype="<i2")


def to_float(pcm: bytes) -> Floats:
    """Samples as float32 on the scale of 16-bit integers (not -1 to 1), which saves a multiplication each way."""
    return np.frombuffer(pcm, _PCM).astype(np.float32)


def to_pcm(values: NDArray[Any]) -> bytes:
    """Rounds and clips to 16 bits."""
    rounded = np.rint(values)
    np.maximum(rounded, _LOWEST, out=rounded)
    np.minimum(rounded, _HIGHEST, out=rounded)
    return rounded.astype(_PCM).tobytes()


def energy(pcm: bytes) -> float:
    """The sum of the squares of the samples."""
    values = np.frombuffer(pcm, _PCM).astype(np.float32)
    return float(np.dot(values, values))


def rms_dbfs(pcm: bytes) -> float:
    """How loud it is, relative to full scale; -100 for silence."""
    return decibels(math.sqrt(2 * energy(pcm) / len(pcm)) / _FULL) if pcm else SILENCE_DBFS


def dbfs(pcm: bytes) -> tuple[float, float]:
    """(RMS, peak) relative to full scale; -100 for silence. A full-scale sine has an RMS of -3.01 dBFS."""
    if not pcm:
        return SILENCE_DBFS, SILENCE_DBFS
    values = samples(pcm)
    return rms_dbfs(pcm), decibels(max(int(values.max()), -int(values.min())) / _FULL)


def decibels(ratio: float) -> float:
    """A ratio of amplitudes in dB, not less than -100."""
    return max(20 * math.log10(ratio), SILENCE_DBFS) if ratio > 0 else SILENCE_DBFS


def mix(parts: Iterable[bytes]) -> bytes:
    """The sum of equally long pieces, clipped once at the end; b"" for none."""
    total: NDArray[np.int32] | None = None
    for part in parts:
        values = np.frombuffer(part, dtype="<i2")
        if total is None:
            total = values.astype(np.int32)
        else:
            total += values
    return b"" if total is None else np.clip(total, -32768, 32767).astype("<i2").tobytes()


def silence(count: int) -> bytes:
    """`count` samples of digital silence."""
    return bytes(2 * count)
