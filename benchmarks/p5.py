"""P5: a streamed reply of 200 deltas with one loop turn between them; frames are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure
from benchmarks.rooms import Numbered, Source, kit_with
from roomkit import (
    Channel,
    ChannelBinding,
    ChannelOutput,
    InboundMessage,
    RoomContext,
    RoomEvent,
    RoomKit,
    WebSocketChannel,
)
from roomkit.models.room import Category
from roomkit.models.stream import StreamChunk, StreamMessage, TextDelta
from roomkit.protocols.room_socket.codec import ServerSession, wire

TITLE = "a streamed reply of 200 deltas, one loop turn between them"
DELTAS = 200
TEXT = "A delta of sixty characters, as long as a few words of text. "


class Brain(Channel):
    """Says the same again and again, with one turn of the loop between two deltas."""

    reach = "turn"
    category = Category.INTELLIGENCE

    def __init__(self) -> None:
        super().__init__("ai", "ai")

    async def on_event(self, event: RoomEvent, binding: ChannelBinding, context: RoomContext) -> ChannelOutput:
        return ChannelOutput(response_stream=self._say())

    async def _say(self) -> AsyncIterator[TextDelta]:
        for _ in range(DELTAS):
            await asyncio.sleep(0)
            yield TextDelta(TEXT)


class Sockets:
    """Streaming connections of one room, which count frames and characters on the wire."""

    def __init__(self, channel: WebSocketChannel) -> None:
        self.channel = channel
        self.count = 0
        self.frames = 0

    def add(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            self.channel.register_connection(f"c{self.count}", self._event, stream_send_fn=self._take, room_id="r")

    async def _event(self, connection_id: str, event: RoomEvent) -> None:
        pass

    async def _take(self, connection_id: str, message: StreamMessage) -> None:
        if type(message) is StreamChunk:
            self.frames += 1


async def run(meter: Meter) -> Report:
    brain, sockets, numbered = Brain(), Sockets(WebSocketChannel("web")), Numbered()
    kit = kit_with(Source(), brain, sockets.channel)
    replies, more = meter.size(5, 2), meter.size(50, 3)
    asked = 0

    async def work(_: Cost) -> int:
        nonlocal asked
        for message in numbered.many(replies):
            result = await kit.process_inbound(message, room_id="r")
            await result.settled()
            asked += 1
        return replies * DELTAS

    async with kit:
        await kit.create_room("r", channels=["in", "ai", "web"])
        sockets.add(1)
        one = await meter.cost(work, 40)
        frames = sockets.frames / (asked * DELTAS)
        sockets.add(more)
        many = await meter.cost(work, 20)
        bytes_ratio = await _bytes(kit)
    bare = await meter.cost(lambda _: _bare(), 20)
    further = Cost((many.cpu - one.cpu) / more, 0.0, (many.reference - one.reference) / more)
    return Report(
        [
            cpu_figure("per delta, one subscriber", one, 10.0),
            cpu_figure("per delta and further subscriber", further, 2.0),
            cpu_figure("of it: a bare loop turn and generator", bare),
            Figure("frames per delta and subscriber", frames, "frames", 1.0),
            Figure("bytes on the wire per byte of text", bytes_ratio, "x", 3.0),
        ]
    )


async def _bytes(kit: RoomKit) -> float:
    """What a client gets over the wire for one reply, per character said."""
    session, sent, said = ServerSession(), 0, 0

    def take(item: object) -> None:
        nonlocal sent, said
        if isinstance(item, StreamChunk):
            sent += len(wire(session.stream(item)).encode())
            said += len(item.delta)

    view = await kit.open_view("r", "web", take)
    result = await kit.process_inbound(InboundMessage.text("in", "+4411", "Say it again."), room_id="r")
    await result.settled()
    view.close()
    return sent / said


async def _bare() -> int:
    async def deltas() -> AsyncIterator[TextDelta]:
        for _ in range(DELTAS):
            await asyncio.sleep(0)
            yield TextDelta(TEXT)

    for _ in range(10):
        async for _ in deltas():
            pass
    return 10 * DELTAS
