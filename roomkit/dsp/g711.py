"""G.711 mu-law and A-law (ITU-T G.711), by tables that this module computes once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BIAS, _CLIP = 0x84, 32635


def _ulaw_decoded() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + _BIAS) << ((code >> 4) & 7)
    return np.where(code & 0x80, _BIAS - magnitude, magnitude - _BIAS).astype(np.int16)


def _alaw_decoded() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    segment, step = (code >> 4) & 7, (code & 0x0F) << 4
    magnitude = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _ulaw_encoded() -> NDArray[np.uint8]:
    """By the top 14 bits of the sample: mu-law hears no finer."""
    sample = (np.arange(1 << 14, dtype=np.int32) - (1 << 13)) << 2
    sign = np.where(sample < 0, 0x80, 0)
    # The two dropped bits of a negative sample are zeros in its complement, so it is taken as it lies.
    magnitude = np.minimum(np.where(sample < 0, -sample, sample), _CLIP) + _BIAS
    segment = np.frexp(magnitude)[1] - 8
    mantissa = (magnitude >> (segment + 3)) & 0x0F
    return (~(sign | (segment << 4) | mantissa) & 0xFF).astype(np.uint8)


def _alaw_encoded() -> NDArray[np.uint8]:
    """By the top 13 bits of the sample."""
    sample = np.arange(1 << 13, dtype=np.int32) - (1 << 12)
    positive = sample >= 0
    magnitude = np.where(positive, sample, -sample - 1)
    segment = np.maximum(np.frexp(magnitude)[1] - 5, 0)
    mantissa = np.where(segment < 2, magnitude >> 1, magnitude >> np.maximum(segment, 1)) & 0x0F
    return (((segment << 4) | mantissa) ^ np.where(positive, 0xD5, 0x55)).astype(np.uint8)


_ULAW_DECODED, _ALAW_DECODED = _ulaw_decoded(), _alaw_decoded()
_ULAW_ENCODED, _ALAW_ENCODED = _ulaw_encoded(), _alaw_encoded()


def ulaw_to_pcm(data: bytes) -> bytes:
    """One byte a sample to 16-bit little-endian."""
    return _ULAW_DECODED[np.frombuffer(data, dtype=np.uint8)].astype("<i2").tobytes()


def pcm_to_ulaw(pcm: bytes) -> bytes:
    return _ULAW_ENCODED[(np.frombuffer(pcm, dtype="<i2").astype(np.int32) >> 2) + (1 << 13)].tobytes()


def alaw_to_pcm(data: bytes) -> bytes:
    return _ALAW_DECODED[np.frombuffer(data, dtype=np.uint8)].astype("<i2").tobytes()


def pcm_to_alaw(pcm: bytes) -> bytes:
    return _ALAW_ENCODED[(np.frombuffer(pcm, dtype="<i2").astype(np.int32) >> 3) + (1 << 12)].tobytes()
