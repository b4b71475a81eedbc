"""A channel of one's own: a notice board that takes events out of rooms, in order, at least once."""

from __future__ import annotations

import asyncio

from roomkit import Channel, ChannelCapabilities, InboundMessage, RoomKit
from roomkit.models.delivery import DeliveryPolicy, DeliveryResult
from roomkit.models.event import RoomEvent
from roomkit.models.room import ChannelBinding
from roomkit.ports.channel import RoomContext


class NoticeBoard(Channel):
    """One object serves every room: which board is meant stands in the binding's metadata."""

    delivery_policy = DeliveryPolicy(max_retries=5, base_delay=0.05)

    def __init__(self, channel_id: str) -> None:
        super().__init__(channel_id, "board", capabilities=ChannelCapabilities(max_length=80))
        self.boards: dict[str, list[str]] = {}
        self.attempts = 0

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        self.attempts += 1
        if self.attempts == 1:  # a bad moment: the room tries again, in order
            return DeliveryResult(success=False, error="the board is being cleaned", retryable=True)
        board = self.boards.setdefault(binding.metadata["board"], [])
        board.append(event.text)
        return DeliveryResult(success=True, provider_message_id=f"note-{len(board)}")


async def main() -> None:
    kit, board = RoomKit(), NoticeBoard("board")
    kit.register_channel(board)
    async with kit:
        for name in ("kitchen", "garage"):
            await kit.create_room(name, channels=[])
            await kit.attach_channel(name, "board", metadata={"board": f"the {name}'s board"})
            result = await kit.send(name, f"Meeting in the {name} at five", by="ann")
            await result.settled()
        print(board.boards)
        said = await kit.process_inbound(InboundMessage.text("board", "somebody", "I cannot come"), room_id="kitchen")
        print(f"and back: index {said.event.index} in {said.room_id}: {said.event.text}")
        (first, *_) = await kit.deliveries("kitchen")
        print(f"delivery of {first.index}: {first.state} after {first.attempts} attempts")


if __name__ == "__main__":
    asyncio.run(main())
