"""WebRTC's first VAD: next to no cost; on a noisy line it takes noise for speech."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from roomkit.errors import ConfigError, MissingExtra
from roomkit.ports.audio import AudioStage
from roomkit.voice.stages.vad import DETECTOR_RATE, VadStage


class WebrtcDetector:
    """Yes or no for each 20 ms. `strictness` is 0 (hears everything) to 3."""

    window = 320

    def __init__(self, strictness: int = 2) -> None:
        if not 0 <= strictness <= 3:
            raise ConfigError(f"WebrtcDetector.strictness is 0 to 3, not {strictness}")
        try:
            self._module: Any = import_module("_webrtcvad")
        except ImportError as error:
            raise MissingExtra('the "webrtc" VAD', "webrtcvad-wheels", "webrtcvad") from error
        self._strictness = strictness
        self.reset()

    def probability(self, pcm: bytes) -> float:
        return float(self._module.process(self._vad, DETECTOR_RATE, pcm, self.window))

    def reset(self) -> None:
        self._vad = self._module.create()
        self._module.init(self._vad)
        self._module.set_mode(self._vad, self._strictness)


def make(_kind: str, rate: int) -> AudioStage:
    return VadStage(WebrtcDetector(), rate)
