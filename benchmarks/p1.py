"""P1: `process_inbound` end to end, in-memory store, one receiving channel."""

from __future__ import annotations

import time

from benchmarks.measure import Cost, Meter, Report, cpu_figure, wall_figures
from benchmarks.peer import compared
from benchmarks.rooms import Numbered, Sink, Source, kit_with

TITLE = "process_inbound end to end, in memory, one receiving channel"


async def run(meter: Meter) -> Report:
    sink, numbered = Sink(), Numbered()
    kit = kit_with(Source(), sink)
    async with kit:
        await kit.create_room("r", channels=["in", "out"])

        rounds, count = 120, meter.size(200, 100)
        waiting = iter([numbered.many(count) for _ in range(meter.size(rounds, 1))])

        async def work(cost: Cost) -> int:
            for message in next(waiting):
                began = time.perf_counter()
                await kit.process_inbound(message, room_id="r")
                cost.calls.append((time.perf_counter() - began) * 1e6)
            return count

        cost = await meter.cost(work, rounds)
        assert sink.taken == numbered.last, "every message reached the receiving channel"
    figures = [cpu_figure("per message", cost, 60.0), *wall_figures(cost)]
    return compared(meter, Report(figures), receivers=1, count=1_000, unit="message")
