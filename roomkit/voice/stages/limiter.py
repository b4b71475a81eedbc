"""A limiter for what goes out: never above -1 dBFS, without a click where two frames meet."""

from __future__ import annotations

import numpy as np

from roomkit.dsp.pcm import to_float, to_pcm
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import AudioStage

CEILING = 32768 * 10 ** (-1 / 20)
_RELEASE = 0.05
"""The part of the way back to full gain that one frame takes."""


class Limiter:
    """Turns a loud frame down as a whole, with the change spread over it; a quiet frame passes untouched."""

    name = "limiter"

    def __init__(self) -> None:
        self._gain = 1.0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        values = np.frombuffer(frame.pcm, "<i2")
        if not len(values):
            return frame, ()
        peak = max(int(values.max()), -int(values.min()))
        wanted = min(CEILING / peak, 1.0) if peak else 1.0
        if wanted == 1.0 and self._gain == 1.0:
            return frame, ()
        gain = wanted if wanted < self._gain else min(self._gain + _RELEASE, wanted)
        ramp = np.linspace(self._gain, gain, len(values), dtype=np.float32)
        self._gain = gain
        loud = np.clip(to_float(frame.pcm) * ramp, -CEILING, CEILING)
        return AudioFrame(to_pcm(loud), frame.rate, frame.position), ()

    def reset(self) -> None:
        self._gain = 1.0


def make(_kind: str, _rate: int) -> AudioStage:
    return Limiter()
