"""A limiter for what goes out: never above -1 dBFS, without a click where two frames meet."""

from __future__ import annotations

import numpy as np

from roomkit.dsp.pcm import to_float, to_pcm
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import AudioStage

CEILING = float(int(32768 * 10 ** (-1 / 20)))
_ATTACK_MS = 1
_RELEASE_PER_MS = 0.0025
"""The part of the way back to full gain that a millisecond takes: 0.4 s in all."""


class Limiter:
    """Turns the gain down within a millisecond where a frame is too loud, and up again slowly; a quiet frame passes
    untouched. It looks no further than its frame, so it delays nothing; what that leaves too loud is cut."""

    name = "limiter"

    def __init__(self) -> None:
        self._gain = 1.0

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        values = np.frombuffer(frame.pcm, "<i2")
        count = len(values)
        if not count:
            return frame, ()
        peak = max(int(values.max()), -int(values.min()))
        wanted = min(CEILING / peak, 1.0) if peak else 1.0
        if wanted == 1.0 and self._gain == 1.0:
            return frame, ()
        down = wanted < self._gain
        gain = wanted if down else min(self._gain + _RELEASE_PER_MS * frame.duration_ms, wanted)
        moving = min(count, max(frame.rate * _ATTACK_MS // 1000, 1)) if down else count
        gains = np.full(count, gain, dtype=np.float32)
        gains[:moving] = np.linspace(self._gain, gain, moving + 1, dtype=np.float32)[1:]
        self._gain = gain
        loud = np.clip(to_float(frame.pcm) * gains, -CEILING, CEILING)
        return AudioFrame(to_pcm(loud), frame.rate, frame.position), ()

    def reset(self) -> None:
        self._gain = 1.0


def make(_kind: str, _rate: int) -> AudioStage:
    return Limiter()
