"""P7: the N-th message of one room costs what the first ones did."""

from __future__ import annotations

from benchmarks.measure import Cost, Figure, Meter, Report
from benchmarks.rooms import Numbered, Sink, Source, kit_with

TITLE = "the N-th message of one room"
WINDOW = 100


async def run(meter: Meter) -> Report:
    kit, numbered = kit_with(Source(), Sink()), Numbered()
    marks = [100, 1_000, 10_000, 50_000] if not meter.small else [100, 500]
    figures: list[Figure] = []
    async with kit:
        await kit.create_room("r", channels=["in", "out"])

        async def work(_: Cost) -> int:
            for message in numbered.many(WINDOW):
                await kit.process_inbound(message, room_id="r")
            return WINDOW

        for mark in marks:
            for message in numbered.many(max(0, mark - numbered.last)):
                await kit.process_inbound(message, room_id="r")
            cost = await meter.cost(work, 24)
            figures.append(Figure(f"at N = {mark:,}", cost.cpu, "us CPU", reference=cost.reference))
    first, last = figures[0].reference, figures[-1].reference
    assert first is not None
    assert last is not None
    return Report([*figures, Figure("last to first", last / first, "x", 1.1)])
