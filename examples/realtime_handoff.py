"""Two agents share a call: one hands it to the other, who has another voice and other tools; the line stays up.

The model and the line are mocks on a clock of their own: no key, no time, no sound card.

Needs the [voice] extra.
"""

from __future__ import annotations

import asyncio

from roomkit import Agent, RoomKit
from roomkit.ai.tools import Toolbox
from roomkit.channels import RealtimeVoiceChannel
from roomkit.orchestration import RealtimeAgents
from roomkit.testing.loop import run
from roomkit.voice.realtime.mock import MockRealtimeProvider, MockRealtimeTransport


async def sell(article: str) -> str:
    """Sells an article."""
    return f"{article} sold"


async def repair(article: str) -> str:
    """Repairs an article."""
    return f"{article} will be ready tomorrow"


async def main() -> None:
    agents = RealtimeAgents(
        [
            Agent("sales", None, role="a seller", voice="marin", tool_handler=Toolbox([sell])),
            Agent(
                "support",
                None,
                role="a mechanic",
                description="repairs things",
                voice="cedar",
                tool_handler=Toolbox([repair]),
            ),
        ]
    )
    provider = MockRealtimeProvider()
    channel = RealtimeVoiceChannel(
        "voice", provider=provider, transport=MockRealtimeTransport(), **agents.entry_settings
    )
    async with RoomKit() as kit:
        agents.install(kit, channel)
        room = await kit.create_room()
        await channel.start_session(room.id, "caller", connection=None)
        model = provider.session
        print(f"{model.config.voice}: {model.config.system_prompt}")
        model.hears("my bike is broken")
        model.calls(("hand_over", {"to": "support", "note": "the bike is broken"}))
        await asyncio.sleep(1)
        print(f"{model.config.voice}: {model.config.system_prompt}")
        print("its tools:", ", ".join(tool.name for tool in model.config.tools))
        model.calls(("repair", {"article": "bike"}))
        await asyncio.sleep(0.5)
        model.says("It will be ready tomorrow.", ms=900)
        await asyncio.sleep(2)
        for event in await kit.events(room.id):
            if event.type == "message":
                print(f"{event.metadata['role']:>9}: {event.text}")


if __name__ == "__main__":
    run(main())
