"""Two agents in one call: the front desk hands over to a colleague; voice and prompt change, the line stays up.

Needs the [voice] extra.
"""

from __future__ import annotations

import asyncio

from roomkit import Agent, AudioPipelineConfig, ConversationPipeline, RoomKit, VoiceChannel
from roomkit.testing.ai import ScriptedAI, call
from roomkit.testing.calls import ScriptedBackend, ScriptedSTT, ScriptedTTS, ScriptedVad
from roomkit.testing.loop import run

desk = Agent(
    "desk",
    ScriptedAI(["One moment, please. ", call("hand_over", to="loans", note="Wants a loan for a car.")], ""),
    role="the front desk of a bank",
    voice="anna",
    greeting="Good morning, this is the front desk.",
)
loans = Agent(
    "loans",
    ScriptedAI("Ben from loans here. Which car is it?"),
    description="everything about loans",
    voice="ben",
)


async def main() -> None:
    line = ScriptedBackend()
    pipeline = AudioPipelineConfig(vad=ScriptedVad, dtmf=None)
    phone = VoiceChannel("phone", stt=ScriptedSTT(line), tts=ScriptedTTS(), backend=line, pipeline=pipeline)
    async with RoomKit() as kit:
        kit.register_channel(phone)
        ConversationPipeline([desk, loans]).install(kit, phone)

        session = line.call()
        line.speaks(session, "I would like a loan", at_ms=4000, for_ms=1500)
        room = await phone.answer(session)
        await asyncio.sleep(20)

        for event in await kit.events(room):
            if event.type == "message":
                print(f"{event.source.channel_id:>6}  {event.text}")
        print(f"\nwho has the conversation now: {(await kit.get_room(room)).metadata['agent']}")
        print(f"voices: {phone.voice_map}")


run(main())
