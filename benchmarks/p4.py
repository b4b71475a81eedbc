"""P4: 10,000 rooms, one message each, concurrently; and what an idle room costs."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from benchmarks.measure import Cost, Figure, Meter, Report, cpu_figure
from benchmarks.rooms import Numbered, Sink, Source, kit_with
from roomkit import RoomKit

TITLE = "10,000 rooms, one message each, concurrently"


async def run(meter: Meter) -> Report:
    rooms = meter.size(10_000, 100)
    kit, numbered = kit_with(Source(), Sink()), Numbered()
    async with kit:
        tasks = len(asyncio.all_tasks())
        created = await meter.cost(lambda _: _create(kit, rooms, meter), 1)

        async def work(_: Cost) -> int:
            messages = numbered.many(rooms)
            calls = [kit.process_inbound(one, room_id=f"r{number}") for number, one in enumerate(messages)]
            results = await asyncio.gather(*calls)
            for result in results:
                await result.settled()
            return rooms

        cost = await meter.cost(work, 3)
        left = len(asyncio.all_tasks()) - tasks
    memory = await _memory(meter)
    return Report(
        [
            Figure("events a second", 1e6 / cost.wall, "1/s", 10_000, "higher", 1e6 / cost.reference),
            cpu_figure("per event", cost),
            Figure("idle room", memory, "bytes", 8_192),
            Figure("tasks per idle room", max(0, left - 64) / rooms, "", 0),
            cpu_figure("creating a room", created),
        ],
        (f"tasks that stay, whatever the number of rooms: {left} (parked carriers)",),
    )


async def _create(kit: RoomKit, rooms: int, meter: Meter) -> int:
    for number in range(rooms):
        await kit.create_room(f"r{number}", channels=["in", "out"])
    return rooms


async def _memory(meter: Meter) -> float:
    """Bytes a room holds after one message was delivered: its log, records and actor, all in memory."""
    rooms = meter.size(2_000, 50)
    kit, numbered = kit_with(Source(), Sink()), Numbered()
    async with kit:
        await kit.create_room("first", channels=["in", "out"])
        for message in numbered.many(70):
            await kit.process_inbound(message, room_id="first")
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(rooms):
            await kit.create_room(f"m{number}", channels=["in", "out"])
            result = await kit.process_inbound(numbered.many(1)[0], room_id=f"m{number}")
            await result.settled()
        del result
        gc.collect()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    return used / rooms
