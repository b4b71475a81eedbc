"""Keys that a caller presses, heard in the sound."""

from __future__ import annotations

from roomkit.dsp.dtmf import KeyDetector
from roomkit.models.audio import AudioFrame, AudioSignal, DtmfDigit
from roomkit.ports.audio import AudioStage


class DtmfStage:
    """Tells each key once; the sound passes unchanged."""

    name = "dtmf"

    def __init__(self, rate: int) -> None:
        self._detector = KeyDetector(rate)

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        keys = self._detector.push(frame.pcm)
        return frame, tuple(DtmfDigit(key, frame.position) for key in keys)

    def reset(self) -> None:
        self._detector.reset()


def make(_kind: str, rate: int) -> AudioStage:
    return DtmfStage(rate)
