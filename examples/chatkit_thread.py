"""A thread of ChatKit is a room: a page asks, an AI answers, a person takes over, and all of it is one log.

Run it: python examples/chatkit_thread.py. The page is played by requests as the component sends them;
docs/guides/chatkit.md shows how the real one is served. Needs the [chatkit,server] extras.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from roomkit import AIChannel, RoomKit
from roomkit.models.access import Principal, PrincipalRole
from roomkit.servers.chatkit import RoomChatKitServer

ANN = Principal(id="ann", role=PrincipalRole.GUEST, display_name="Ann")


async def ask(server: RoomChatKitServer, text: str, thread: str | None = None) -> list[dict[str, Any]]:
    said = {"content": [{"type": "input_text", "text": text}], "attachments": [], "inference_options": {}}
    kind, where = ("threads.create", {}) if thread is None else ("threads.add_user_message", {"thread_id": thread})
    events = await server.process(json.dumps({"type": kind, "params": {"input": said, **where}}), ANN)
    return [json.loads(line[6:]) async for line in events]


async def main() -> None:
    async with RoomKit() as kit:
        kit.register_channel(AIChannel("assistant", "offline"), default=True)
        server = RoomChatKitServer(kit)
        events = await ask(server, "Hello!")
        thread = events[0]["thread"]["id"]
        deltas = [event["update"]["delta"] for event in events if "delta" in event.get("update", {})]
        print(f"streamed in {len(deltas)} pieces: {''.join(deltas)[:60]} ...")
        await kit.take_over(thread, "sam")

        async def sam() -> None:
            await asyncio.sleep(0.1)
            await kit.send(thread, "It is: Sam from the shop.", by="sam")

        events, _ = await asyncio.gather(ask(server, "Is that a person?", thread), sam())
        print("answered:", events[-1]["item"]["content"][0]["text"])
        for item in await server.rooms.items(thread, ANN):
            print(f"{item.type}: {item.content[0].text[:60]}")


if __name__ == "__main__":
    asyncio.run(main())
