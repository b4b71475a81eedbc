"""A call with a model that hears and speaks by itself: a tool, an interruption, a supervisor's whisper, a text message.

The model and the line are mocks on a clock of their own, so that this takes no time, no key and no sound card; with
`provider="openai"` and a real transport these are the same lines of a program.

Needs the [voice] extra.
"""

from __future__ import annotations

import asyncio
from typing import Any

from roomkit import RoomKit, SMSChannel
from roomkit.ai.tools import Toolbox
from roomkit.channels import RealtimeVoiceChannel
from roomkit.models.delivery import InboundMessage
from roomkit.models.realtime import InjectText, SpeechBegan, ToolAnswer
from roomkit.models.voice import BargeIn
from roomkit.testing.loop import run
from roomkit.voice.realtime.mock import MockRealtimeProvider, MockRealtimeTransport


async def find_order(number: int) -> str:
    """Finds an order."""
    return f"order {number} left yesterday"


async def main() -> None:
    provider = MockRealtimeProvider()
    channel = RealtimeVoiceChannel(
        "voice",
        provider=provider,
        transport=MockRealtimeTransport(),
        system_prompt="You answer for a bookshop.",
        tool_handler=Toolbox([find_order]),
    )
    async with RoomKit() as kit:
        kit.register_channel(channel)
        kit.register_channel(SMSChannel("sms"))

        @kit.on(BargeIn)
        async def stopped(barge: BargeIn) -> None:
            print(f'interrupted; heard of it: "{barge.heard}"')

        room = await kit.create_room()
        await kit.attach_channel(room.id, "sms")
        await channel.start_session(room.id, "caller", connection=None)
        model = provider.session

        model.hears("where is order seven?")
        model.calls(("find_order", {"number": 7}))
        await asyncio.sleep(0.5)
        print("the tool said:", model.of(ToolAnswer)[0].output)
        model.says("It left yesterday, and I can tell you all about the way that it is going to take.", ms=5000)
        await asyncio.sleep(2)
        model.emit(SpeechBegan("again"))
        await asyncio.sleep(0.1)

        await kit.whisper(room.id, "He is a regular, be quick.", to="voice", by="anna")
        message = InboundMessage.text("sms", "+15550100", "my number is 7", participant_id="caller")
        await kit.process_inbound(message, room_id=room.id)
        await asyncio.sleep(1)
        for told in model.of(InjectText):
            print(f"the model was told, as {told.role}: {told.text}")

        print("\nthe room:")
        for event in await kit.events(room.id):
            if event.type == "message":
                role: Any = event.metadata.get("role", event.source.channel_id)
                print(f"  {role:>9}: {event.text}")


if __name__ == "__main__":
    run(main())
