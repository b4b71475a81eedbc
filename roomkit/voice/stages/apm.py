"""WebRTC's audio processing, by LiveKit's build of it: echo (AEC3), gain and noise in one pass over 10 ms blocks."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

from roomkit.errors import MissingExtra
from roomkit.models.audio import AudioFrame, AudioSignal
from roomkit.ports.audio import EchoStage
from roomkit.voice.stages.blocks import Blocks, Reference

KINDS = ("aec", "agc", "denoiser")


def _livekit(module: str) -> Any:
    try:
        return import_module(f"livekit.rtc.{module}")
    except ImportError as error:
        raise MissingExtra('the "apm" stage', "livekit", "apm") from error


class ApmStage:
    """One stream's processing; what `kinds` names is on, with a high-pass filter. One pass does all of it, so a
    pipeline that says "apm" for several kinds has one such stage, where the first of them stands."""

    name = "apm"

    def __init__(self, rate: int, kinds: Collection[str] = KINDS) -> None:
        self._kinds = frozenset(kinds)
        size = rate // 100
        self._module = _livekit("apm").AudioProcessingModule
        frame: Any = _livekit("audio_frame").AudioFrame
        # Processed in place, so these two buffers are all that the stage ever needs.
        self._near, self._far = bytearray(2 * size), bytearray(2 * size)
        self._near_frame, self._far_frame = frame(self._near, rate, 1, size), frame(self._far, rate, 1, size)
        self._blocks = Blocks(size, self._work)
        self._reference = Reference(size, rate)
        self._make()

    def _make(self) -> None:
        echo = "aec" in self._kinds
        self._apm: Any = self._module(
            echo_cancellation=echo,
            noise_suppression="denoiser" in self._kinds,
            high_pass_filter=True,
            auto_gain_control="agc" in self._kinds,
        )
        self._echo = echo
        if echo:
            self._apm.set_stream_delay_ms(0)

    def _work(self, block: bytes) -> bytes:
        if self._echo:
            self._far[:] = self._reference.take()
            self._apm.process_reverse_stream(self._far_frame)
        self._near[:] = block
        self._apm.process_stream(self._near_frame)
        return bytes(self._near)

    def process(self, frame: AudioFrame) -> tuple[AudioFrame | None, tuple[AudioSignal, ...]]:
        return self._blocks.process(frame), ()

    def reference(self, frame: AudioFrame) -> None:
        if self._echo:
            self._reference.push(frame.pcm)

    def reset(self) -> None:
        self._blocks.reset()
        self._reference.clear()
        self._make()


def make(kind: str, rate: int) -> EchoStage:
    return ApmStage(rate, (kind,))


def joint(kinds: Collection[str], rate: int) -> EchoStage:
    """One stage for several kinds of one stream."""
    return ApmStage(rate, kinds)
