"""P8: what a guard costs; without one there is nothing to pay."""

from __future__ import annotations

from statistics import fmean

from benchmarks.measure import Cost, Meter, Report, cpu_figure
from benchmarks.rooms import Numbered, Sink, Source, kit_with
from roomkit import BeforeCommit

TITLE = "a guard hook"
MANY = 10


async def guard(moment: BeforeCommit) -> None:
    return None


async def run(meter: Meter) -> Report:
    kit, numbered = kit_with(Source(), Sink()), Numbered()
    costs: dict[int, list[Cost]] = {0: [], 1: [], 1 + MANY: []}
    async with kit:
        await kit.create_room("r", channels=["in", "out"])

        async def work(_: Cost) -> int:
            count = meter.size(100, 50)
            for message in numbered.many(count):
                await kit.process_inbound(message, room_id="r")
            return count

        for _ in range(meter.size(60, 1)):
            for guards, measured in costs.items():
                removers = [kit.hooks.before(BeforeCommit, guard) for _ in range(guards)]
                measured.append(await meter.cost(work, 1))
                for remove in removers:
                    remove()
    none, one, many = (_mean(measured) for measured in costs.values())
    return Report(
        [
            cpu_figure("each further guard", _difference(many, one, MANY), 1.5),
            cpu_figure("the first guard, with the moment it is shown", _difference(one, none, 1)),
        ]
    )


def _mean(costs: list[Cost]) -> Cost:
    return Cost(fmean(one.cpu for one in costs), 0.0, fmean(one.reference for one in costs))


def _difference(more: Cost, less: Cost, guards: int) -> Cost:
    return Cost((more.cpu - less.cpu) / guards, 0.0, (more.reference - less.reference) / guards)
