"""Deterministic simulation: the real core on a simulated disk and network, one whole schedule out of one number.

    outcome = simulate(4711)
    assert not outcome.wrong, outcome.report()

A schedule has rooms of several tenants, vendors that answer ambiguously, sockets that die and resume, a model with
tools, people at the desk, crashes at every named point, disks that are slow or full. Then all heals, and the judge
compares what everybody saw with what is stored. The same number gives the same schedule, to the last step.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from roomkit.testing.loop import VirtualLoop
from roomkit.testing.simulation.deeds import include
from roomkit.testing.simulation.judge import judge
from roomkit.testing.simulation.process import Points, note_tasks
from roomkit.testing.simulation.trace import Trace
from roomkit.testing.simulation.world import World

LIMIT_S, LIMIT_STEPS = 60.0, 100_000
"""After which a schedule is given up: in real time; in steps, the same everywhere (most take 500)."""
MOST_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """`wrong` is empty when every promise was kept."""

    seed: int
    wrong: list[str]
    story: Trace
    steps: int
    events: int
    crashes: int
    points: dict[str, int]
    """Crash points, and how often something passed there."""
    nodes: int
    features: frozenset[str]
    ended: float
    """In virtual seconds."""

    @property
    def digest(self) -> str:
        """Stands for all that happened: two schedules that differ anywhere have two."""
        return self.story.digest()

    @property
    def trace(self) -> str:
        """What happened, for people."""
        return self.story.render(MOST_LINES)

    def report(self) -> str:
        """For people: what is wrong, how it came about, and how to see it again."""
        found = "\n".join(f"  {line}" for line in self.wrong)
        return f"seed {self.seed}:\n{found}\n{self.trace}\nreplay: python -m proofs simulation --n 1 --seed {self.seed}"


def simulate(
    seed: int,
    *,
    nodes: int | None = None,
    tight: bool = False,
    features: Iterable[str] = (),
    prepare: Callable[[World], None] | None = None,
) -> Outcome:
    """Plays one schedule and judges it. The seed decides how many nodes there are unless `nodes` does; a `tight` one
    keeps one idle room in memory; `features` happen in any case; `prepare` may change the world before it begins."""
    with _quiet(), _points() as points:
        loop = VirtualLoop(seed=seed, limit_s=LIMIT_S, limit_steps=LIMIT_STEPS)
        try:
            asyncio.set_event_loop(None)
            loop.set_task_factory(cast("Any", note_tasks))
            world = World(seed, loop, nodes)
            loop.set_exception_handler(lambda _, context: world.wrong.append(f"loop: {context.get('message')}"))
            if tight:
                world.options = replace(world.options, resident_rooms=1)
            include(world, features)
            if prepare is not None:
                prepare(world)
            with _own(world.features):
                wrong = _play(world)
        finally:
            loop.close()
    events = sum(len(batch.events) for _, _, batch in world.disk.batches)
    crashes = len(world.processes) - 1
    more = (points.seen, world.nodes, world.features, loop.time())
    return Outcome(seed, wrong, world.trace, loop.steps, events, crashes, *more)


def _play(world: World) -> list[str]:
    verdict: list[str] = []

    async def main() -> None:
        verdict.extend(await world.live())

    try:
        world.loop.run_until_complete(main())
    except Exception as error:  # noqa: BLE001 - a core so broken that the schedule itself fails is found, too
        verdict = [*world.wrong, f"the schedule failed: {type(error).__name__}: {error}"]
        with suppress(Exception):
            world.loop.run_until_complete(world.stop())
    return verdict


@contextmanager
def _quiet() -> Generator[None]:
    """Thousands of schedules full of failures would log for nobody; and their garbage is theirs to bring out."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        logging.disable(before)
        if collecting:
            gc.enable()


@contextmanager
def _own(features: frozenset[str]) -> Generator[None]:
    """What is one for all kits of a process, made this schedule's own: the numbers of enqueued rows; and where segments
    are short, replies of a few words have rows beside their own."""
    changed: list[tuple[str, str, Any]] = [("inbox", "_numbers", itertools.count())]
    if "segments" in features:
        changed += [("checkpoint", "SEGMENT", 16), ("checkpoint", "EVERY_CHARS", 8)]
    with ExitStack() as stack:
        for where, name, value in changed:
            module = importlib.import_module(f"roomkit.core.{where}")
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        yield


@contextmanager
def _points() -> Generator[Points]:
    """Crash points ask the simulation."""
    module, name = importlib.import_module("roomkit.runtime.crashpoint"), "_armed"
    before, points = getattr(module, name), Points()
    setattr(module, name, points)
    try:
        yield points
    finally:
        setattr(module, name, before)


__all__ = ["Outcome", "World", "judge", "simulate"]
