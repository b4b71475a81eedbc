"""The channels and messages that the workloads share; they do nothing, so that only the room machine is measured."""

from __future__ import annotations

from roomkit import Channel, ChannelBinding, InboundMessage, RoomContext, RoomEvent, RoomKit, TextContent
from roomkit.models.delivery import DeliveryResult

DONE = DeliveryResult(success=True)


class Source(Channel):
    """Where messages come in."""

    def __init__(self, channel_id: str = "in") -> None:
        super().__init__(channel_id, "sms")


class Sink(Channel):
    """Takes everything at once and only counts."""

    def __init__(self, channel_id: str = "out") -> None:
        super().__init__(channel_id, "sms")
        self.taken = 0

    async def deliver(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> DeliveryResult:
        self.taken += 1
        return DONE


class Numbered:
    """Makes messages, each with a vendor's id of its own."""

    def __init__(self) -> None:
        self.last = 0

    def many(self, count: int) -> list[InboundMessage]:
        first, self.last = self.last, self.last + count
        content = TextContent(text="Hello, where is my order?")
        return [
            InboundMessage(channel_id="in", sender_id="+4411", content=content, external_id=f"m{number}")
            for number in range(first, self.last)
        ]


def kit_with(*channels: Channel, store: str | None = None) -> RoomKit:
    kit = RoomKit(store)
    for channel in channels:
        kit.register_channel(channel)
    return kit
