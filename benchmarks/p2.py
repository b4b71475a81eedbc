"""P2: one room, one channel with 1,000 connections."""

from __future__ import annotations

from benchmarks.measure import Cost, Meter, Report, cpu_figure
from benchmarks.peer import compared
from benchmarks.rooms import Numbered, Source, kit_with
from roomkit import RoomEvent, WebSocketChannel

TITLE = "one room, one channel with 1,000 connections"


async def run(meter: Meter) -> Report:
    connections = meter.size(1_000, 20)
    sockets, numbered, taken = WebSocketChannel("out"), Numbered(), 0

    async def send(connection_id: str, event: RoomEvent) -> None:
        nonlocal taken
        taken += 1

    kit = kit_with(Source(), sockets)
    async with kit:
        await kit.create_room("r", channels=["in", "out"])
        for number in range(connections):
            sockets.register_connection(f"c{number}", send, room_id="r")
        await kit.process_inbound(numbered.many(1)[0], room_id="r")
        taken = 0

        async def work(_: Cost) -> int:
            messages = numbered.many(meter.size(20, 5))
            for message in messages:
                await kit.process_inbound(message, room_id="r")
            return len(messages) * connections

        cost = await meter.cost(work, 30)
        assert taken == (numbered.last - 1) * connections, "every connection was told every event"
    report = Report([cpu_figure("per connection and event", cost, 2.0)])
    return compared(meter, report, receivers=connections, count=20, unit="connection and event")
