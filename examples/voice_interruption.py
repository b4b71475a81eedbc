"""A caller who interrupts: the voice stops within a frame, and the room remembers only what was heard.

The line, the recogniser and the voice are scripts on a clock of their own, so that this takes no time and no sound
card; `stt="sphinx", tts="espeak"` and a real transport are the same lines of a program.

Needs the [voice] extra.
"""

from __future__ import annotations

import asyncio
from typing import Any

from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.models.voice import BargeIn, TurnTimes
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.loop import run


async def main() -> None:
    line = ScriptedBackend()
    phone = VoiceChannel(
        "phone",
        stt=ScriptedSTT(line),
        tts=ScriptedTTS(),
        backend=line,
        pipeline=AudioPipelineConfig(vad=ScriptedVad, dtmf=None),
    )
    async with RoomKit() as kit:
        kit.register_channel(phone)

        @kit.on_message
        async def reply(_: Any, message: Any) -> str:
            return f"You asked: {message.text}. Well, that is a long story, and it begins in a small town by the sea."

        @kit.on(TurnTimes)
        async def times(turn: TurnTimes) -> None:
            print(f"{turn.at_ms:6.0f} ms  the answer is heard {turn.first_audio_ms:.0f} ms after the end of speech")

        @kit.on(BargeIn)
        async def stopped(barge: BargeIn) -> None:
            print(f'{barge.at_ms:6.0f} ms  interrupted; heard of it: "{barge.heard}"')

        session = line.call()
        line.speaks(session, "tell me a story", at_ms=300, for_ms=1200)
        line.speaks(session, "stop, another one", at_ms=5000, for_ms=900)
        room = await phone.answer(session)
        await asyncio.sleep(20)

        print("\nthe room:")
        for event in await kit.events(room):
            if event.type == "message":
                print(f"  {event.source.channel_id:>6}  {event.text}")


run(main())
