"""What the tests of the room machine share: a kit in virtual time with a transport or two and a scripted brain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from roomkit import Channel, ChannelOutput, InboundMessage, RoomContext, RoomKit
from roomkit.core.results import InboundResult
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Category, ChannelBinding, ChannelCapabilities
from roomkit.models.stream import ReplyPart
from roomkit.testing import VirtualClock

Script = Callable[[RoomContext, RoomEvent], Any]


class Brain(Channel):
    """An intelligence channel whose answers are scripted. `seen` holds the texts of each turn."""

    reach = "turn"
    category = Category.INTELLIGENCE

    def __init__(self, channel_id: str = "ai", script: Script | None = None) -> None:
        super().__init__(channel_id, "ai", capabilities=ChannelCapabilities(rich=True))
        self.script = script or (lambda context, event: stream(f"echo {event.text}"))
        self.seen: list[list[str]] = []
        self.histories: list[list[str]] = []
        self.cancelled = 0

    async def on_event(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> ChannelOutput:
        self.seen.append([e.text for e in context.events])
        self.histories.append([e.text for e in await context.history(50)])
        made = self.script(context, event)
        if isinstance(made, ChannelOutput):
            return made
        return ChannelOutput(response_stream=self._watched(made))

    async def _watched(self, parts: AsyncIterator[ReplyPart]) -> AsyncIterator[ReplyPart]:
        try:
            async for part in parts:
                yield part
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise


async def stream(*parts: Any, every: float = 0.0) -> AsyncIterator[Any]:
    """Yields each part, `every` seconds apart."""
    for part in parts:
        if every:
            await asyncio.sleep(every)
        yield part


def kit_with(*channels: Channel, **options: Any) -> RoomKit:
    kit = RoomKit(clock=VirtualClock(), **options)
    for channel in channels:
        kit.register_channel(channel, default=channel.reach == "turn")
    return kit


async def say(
    kit: RoomKit, text: str, room_id: str | None = None, *, channel: str = "sms", who: str = "+4411", **more: Any
) -> InboundResult:
    return await kit.process_inbound(InboundMessage.text(channel, who, text, **more), room_id=room_id)


async def said(kit: RoomKit, room_id: str | None) -> list[tuple[str, str, str]]:
    """(channel, text, status) of every message in the log."""
    events = await kit.events(room_id or "", limit=1000, raw=True)
    return [(e.source.channel_id, e.text, e.status.value) for e in events if e.type is EventType.MESSAGE]


async def gapless(kit: RoomKit, room_id: str | None) -> bool:
    events = await kit.events(room_id or "", limit=10_000, raw=True)
    return [e.index for e in events] == list(range(len(events)))
