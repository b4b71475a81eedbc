"""The shortest program: a room that answers.

Run it as it is, or talk to it in the terminal and on a web page: `roomkit dev examples/hello.py`.
"""

from __future__ import annotations

import asyncio

from roomkit import EventType, RoomKit

kit = RoomKit()


@kit.on_message
async def reply(ctx, message):
    return f"You said: {message.text}"


async def main() -> None:
    async with kit:
        room = await kit.create_room()
        for text in ("Hello!", "Is anybody there?"):
            sent = await kit.send(room.id, text, by="you")
            await sent.settled()  # the message is safe already; this waits for what follows from it
        for event in await kit.events(room.id):
            if event.type is EventType.MESSAGE:
                print(f"{event.index:>2}  {event.source.channel_id:<6} {event.text}")


if __name__ == "__main__":
    asyncio.run(main())
