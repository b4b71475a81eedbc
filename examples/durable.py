"""What was acknowledged survives: a kit is dropped without a goodbye, and a new one finds everything, once."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from roomkit import InboundMessage, RoomKit, WebSocketChannel
from roomkit.errors import StoreLocked


def build(file: Path) -> RoomKit:
    kit = RoomKit(f"sqlite:///{file}")
    kit.register_channel(WebSocketChannel("web"))
    return kit


def message(number: int) -> InboundMessage:
    return InboundMessage.text("web", "ann", f"message {number}", external_id=f"id-{number}")


async def main() -> None:
    file = Path(tempfile.mkdtemp()) / "rooms.db"
    async with build(file) as kit:
        room = await kit.create_room("lobby", channels=["web"])
        for number in range(3):
            result = await kit.process_inbound(message(number), room_id=room.id)
            print(f"acknowledged: index {result.event.index}, {result.event.text}")
        try:
            await build(file).start()
        except StoreLocked as error:
            print(f"a second process is refused: {str(error).replace(str(file), 'rooms.db')}")

    async with build(file) as kit:
        print(f"after the restart: {[event.text for event in await kit.events('lobby') if event.text]}")
        again = await kit.process_inbound(message(2), room_id="lobby")  # the client was not sure and sends it again
        print(f"sent again: duplicate={again.duplicate}, still index {again.event.index}")


if __name__ == "__main__":
    asyncio.run(main())
