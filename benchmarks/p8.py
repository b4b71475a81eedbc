"""P8: what a guard costs; without one there is nothing to pay."""

from __future__ import annotations

from benchmarks.measure import Cost, Meter, Report, cpu_figure
from benchmarks.rooms import Numbered, Sink, Source, kit_with
from roomkit import BeforeCommit

TITLE = "a guard hook"
MANY = 10


async def guard(moment: BeforeCommit) -> None:
    return None


async def run(meter: Meter) -> Report:
    kit, numbered = kit_with(Source(), Sink()), Numbered()
    async with kit:
        await kit.create_room("r", channels=["in", "out"])

        async def work(_: Cost) -> int:
            count = meter.size(2_000, 50)
            for message in numbered.many(count):
                await kit.process_inbound(message, room_id="r")
            return count

        def difference(more: Cost, less: Cost, guards: int) -> Cost:
            return Cost((more.cpu - less.cpu) / guards, 0.0, (more.reference - less.reference) / guards)

        firsts: list[Cost] = []
        furthers: list[Cost] = []
        for _ in range(meter.size(7, 1)):
            none = await meter.cost(work, 1)
            removers = [kit.hooks.before(BeforeCommit, guard)]
            one = await meter.cost(work, 1)
            removers += [kit.hooks.before(BeforeCommit, guard) for _ in range(MANY)]
            many = await meter.cost(work, 1)
            for remove in removers:
                remove()
            firsts.append(difference(one, none, 1))
            furthers.append(difference(many, one, MANY))
    return Report(
        [
            cpu_figure("each further guard", _median(furthers), 1.5),
            cpu_figure("the first guard, with the moment it is shown", _median(firsts)),
        ]
    )


def _median(costs: list[Cost]) -> Cost:
    return sorted(costs, key=lambda cost: cost.reference)[len(costs) // 2]
