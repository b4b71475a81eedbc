"""A kit with one voice channel whose parts answer at once, for the workloads of voice."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.ports.audio import BackendTraits
from roomkit.testing.calls import RATE, ScriptedBackend, ScriptedSTT, ScriptedTTS

QUIET = AudioPipelineConfig(vad=None, dtmf=None, limiter=None, levels_per_s=0)


class Line(ScriptedBackend):
    """Notes when the first frame goes out and when the line falls silent, on the wall's clock."""

    def __init__(self) -> None:
        super().__init__()
        # Speech is told by the workloads themselves, where a pipeline or a transport would.
        self.traits = BackendTraits(rate=RATE, detects_speech=True)
        self.first_sound = self.silent = 0.0

    async def send_audio(self, session: VoiceSession, frame: AudioFrame) -> None:
        self.first_sound = self.first_sound or time.perf_counter()
        await super().send_audio(session, frame)

    async def clear(self, session: VoiceSession) -> None:
        self.silent = self.silent or time.perf_counter()
        await super().clear(session)


def phone(line: ScriptedBackend, pipeline: AudioPipelineConfig = QUIET) -> tuple[RoomKit, VoiceChannel]:
    """A kit and its voice channel: recogniser, brain and voice take no time of their own."""
    kit = RoomKit()
    stt, tts = ScriptedSTT(line, delay_ms=0, partials=False), ScriptedTTS(first_ms=0, speed=1000)
    channel = VoiceChannel("phone", stt=stt, tts=tts, backend=line, pipeline=pipeline)
    kit.register_channel(channel)

    @kit.on_message
    async def reply(ctx: Any, message: Any) -> AsyncIterator[str]:
        yield "This is an answer of some length, so that there is something to interrupt. "
        yield "It has a second sentence, too, and that goes on for a while."

    return kit, channel
