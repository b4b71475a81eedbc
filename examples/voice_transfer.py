"""A caller who asks for a person with the key 0: they wait, a colleague is told what it is about, and takes over.

Needs the [voice] extra.
"""

from __future__ import annotations

import asyncio

from roomkit import AudioPipelineConfig, RoomKit, VoiceChannel
from roomkit.orchestration.transfer import warm_transfer
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.loop import run


async def main() -> None:
    line, tts = ScriptedBackend(), ScriptedTTS()
    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None)
    phone = VoiceChannel("phone", stt=ScriptedSTT(line), tts=tts, backend=line, pipeline=pipeline)
    async with RoomKit() as kit:
        kit.register_channel(phone)

        @kit.on_message
        async def reply(ctx, message):
            await asyncio.sleep(4)  # so long that the caller is told to wait a moment
            return "I can give you 20 percent."

        caller = line.call()
        line.speaks(caller, "I want all of my money back", at_ms=300, for_ms=1500)
        room = await phone.answer(caller)
        await asyncio.sleep(12)
        line.presses(caller, "0")
        await asyncio.sleep(6)
        (waiting,) = await kit.attention()
        print(f"the queue: {waiting.attention.reason}")

        colleague = line.call("call-2", participant_id="eve")
        line.speaks(colleague, "Eve here, how can I help?", at_ms=12_000, for_ms=1500)
        assert await warm_transfer(kit, phone, room, colleague, who="eve")
        await asyncio.sleep(15)
        print(f"who has the floor: {(await kit.get_room(room)).floor.holder}")
        print("said by the house, in this order:")
        for words in tts.said:
            print(f"  {words.strip()}")


run(main())
