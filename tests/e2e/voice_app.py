"""A real server whose rooms take calls: `python -m tests.e2e.voice_app DB PORT PREFIX`. What it hears of a caller is
kept beside its database as `heard.wav`. The words "be quiet", written in the chat, interrupt what it says."""

from __future__ import annotations

import asyncio
import sys
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any

from roomkit import RoomKit, WebSocketChannel
from roomkit.channels.providers import find_provider
from roomkit.channels.voice import VoiceChannel, VoiceOptions
from roomkit.errors import StateError
from roomkit.models.audio import AudioFrame, VoiceSession
from roomkit.voice.pipeline import AudioPipelineConfig
from tests.e2e.app import serve

ROOMS = ("ada", "ben", "cleo", "dora")
STORY = (
    "This is a long story about a very small town, where nobody had ever seen the sea, until one day it rained. " * 3
)


class Kept:
    """An audio tap: what came in, as a file."""

    def __init__(self, path: Path, rate: int) -> None:
        self._path, self._rate = path, rate
        self._pcm = bytearray()

    def inbound(self, frame: AudioFrame) -> None:
        self._pcm += frame.pcm

    def outbound(self, frame: AudioFrame) -> None: ...

    def close(self) -> None:
        making = self._path.with_suffix(".making")
        with wave.open(str(making), "wb") as file:
            file.setparams((1, 2, self._rate, 0, "NONE", ""))
            file.writeframes(self._pcm)
        making.rename(self._path)  # Whoever waits for it finds all of it.


async def main(database: str, port: int, prefix: str) -> None:
    folder = Path(database).parent

    def kept(session: VoiceSession, rate: int) -> Kept:
        return Kept(folder / f"{session.room_id}-{'monitor' if session.listen_only else 'heard'}.wav", rate)

    kit = RoomKit(f"sqlite:///{database}", token_secrets=("only for the browser tests, never anywhere else",))
    kit.register_channel(WebSocketChannel("web"))
    voice = VoiceChannel(
        "voice",
        stt="sphinx",
        tts="espeak",
        backend=find_provider("webaudio", "audio"),
        pipeline=AudioPipelineConfig(taps=(kept,)),
    )
    kit.register_channel(voice)
    kit.register_channel(
        VoiceChannel(
            "rtc",
            tts="espeak",
            backend=find_provider("webrtc", "audio"),
            pipeline=AudioPipelineConfig(vad=None, taps=(lambda s, rate: Kept(folder / f"{s.room_id}-rtc.wav", rate),)),
            options=VoiceOptions(greeting=STORY),
        )
    )

    @kit.on_message
    async def reply(ctx: Any, message: Any) -> str | None:
        if "quiet" in message.text:
            await voice.interrupt_all(message.room_id)
            return None
        return STORY

    async with kit:
        for name in ROOMS:
            with suppress(StateError):  # from before a crash
                await kit.create_room(name, channels=["web", "app"])
        await serve(kit, port, prefix, ROOMS)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
