"""A room answers calls of Rapida's voice platform, beside people and other channels.

Run it: python examples/agentkit.py. Here the platform is played by a client of the same protocol; a real one calls port
50051 (see docs/guides/agentkit.md). Needs the [agentkit] extra.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from roomkit import AIChannel, RoomKit
from roomkit.models.content import text_of
from roomkit.models.event import EventType
from roomkit.providers.agentkit.ai import AgentKitProvider
from roomkit.servers.agentkit import AgentKitServer, RoomAgent

TOKEN = os.environ.get("AGENTKIT_TOKEN") or secrets.token_hex(16)


async def main() -> None:
    shop = RoomKit()
    shop.register_channel(AIChannel("assistant", "offline"), default=True)
    caller = RoomKit()
    server = AgentKitServer(RoomAgent(shop), host="127.0.0.1", port=0, auth_config={"token": TOKEN})
    async with shop, server:
        platform = AgentKitProvider(f"127.0.0.1:{server.port}", token=f"Bearer {TOKEN}")
        caller.register_channel(AIChannel("platform", platform), default=True)
        async with caller:
            await caller.create_room("call")
            for words in ("Hello!", "What is 12 * 7?"):
                await (await caller.send("call", words, by="caller")).settled(20)
            (room,) = await shop.list_rooms()
            for event in await shop.events(room.id):
                if event.type is EventType.MESSAGE:
                    print(f"{event.source.participant_id or event.source.channel_id}: {text_of(event.content)}")


if __name__ == "__main__":
    asyncio.run(main())
