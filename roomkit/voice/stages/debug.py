"""A WAV file of what a stage hears, for looking at afterwards. Writing blocks: for finding faults, not for service."""

from __future__ import annotations

import wave
from pathlib import Path

from roomkit.models.audio import AudioFrame


class DebugTap:
    def __init__(self, folder: str, name: str, rate: int) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        safe = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name)
        self._file = wave.open(str(Path(folder) / f"{safe}.wav"), "wb")  # noqa: SIM115 - open as long as the call
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(rate)

    def inbound(self, frame: AudioFrame) -> None:
        self._file.writeframes(frame.pcm)

    def outbound(self, frame: AudioFrame) -> None:
        self._file.writeframes(frame.pcm)

    def close(self) -> None:
        self._file.close()
