"""P3: one room, 1,000 bound channels, each event delivered to all of them."""

from __future__ import annotations

from benchmarks.measure import Cost, Meter, Report, cpu_figure
from benchmarks.rooms import Numbered, Sink, Source, kit_with

TITLE = "one room, 1,000 bound channels"


async def run(meter: Meter) -> Report:
    sinks = [Sink(f"out{number}") for number in range(meter.size(1_000, 20))]
    numbered = Numbered()
    kit = kit_with(Source(), *sinks)
    async with kit:
        await kit.create_room("r", channels=["in", *(sink.channel_id for sink in sinks)])
        await kit.process_inbound(numbered.many(1)[0], room_id="r")

        async def work(_: Cost) -> int:
            messages = numbered.many(meter.size(4, 3))
            for message in messages:
                result = await kit.process_inbound(message, room_id="r")
                await result.settled()
            return len(messages) * len(sinks)

        cost = await meter.cost(work, 25)
        assert all(sink.taken == numbered.last for sink in sinks), "every channel got every event"
    return Report([cpu_figure("per channel and event", cost, 5.0)])
