"""Many schedules on several processes: how `python -m proofs simulation` and the tests run them."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

CHUNK = 100
MOST_FAILURES = 10


@dataclass(slots=True)
class Tally:
    """What came of many schedules. `failures` maps seeds to reports; `digest` stands for the course of all of them."""

    schedules: int = 0
    steps: int = 0
    events: int = 0
    crashes: int = 0
    seconds: float = 0.0
    digest: str = ""
    failures: dict[int, str] = field(default_factory=dict[int, str])
    points: Counter[str] = field(default_factory=Counter[str])
    features: Counter[str] = field(default_factory=Counter[str])
    """How many schedules had what; "nodes": more than one."""

    def add(self, other: Tally) -> None:
        for name in ("schedules", "steps", "events", "crashes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.digest = hashlib.sha256(f"{self.digest}{other.digest}".encode()).hexdigest()[:16]
        self.failures |= other.failures
        self.points += other.points
        self.features += other.features


def run_some(first: int, count: int, bug: str | None = None) -> Tally:
    """Plays the seeds from `first` on in this process, with a planted bug until it is found."""
    from roomkit.testing.simulation import simulate
    from roomkit.testing.simulation.bugs import planted

    tally = Tally()
    digest = hashlib.sha256()
    with planted(bug) if bug is not None else nullcontext() as plant:
        for seed in range(first, first + count):
            chosen: dict[str, Any] = {}
            if plant is not None:
                chosen = {"nodes": plant.nodes, "tight": plant.tight, "features": plant.features}
            outcome = simulate(seed, **chosen)
            tally.schedules += 1
            tally.steps += outcome.steps
            tally.events += outcome.events
            tally.crashes += outcome.crashes
            tally.points += outcome.points
            tally.features.update(outcome.features)
            tally.features["nodes"] += outcome.nodes > 1
            digest.update(f"{outcome.steps} {outcome.events} {outcome.crashes} {outcome.ended}\n".encode())
            if outcome.wrong:
                tally.failures[seed] = outcome.report()
                if bug is not None or len(tally.failures) >= MOST_FAILURES:
                    break
    tally.digest = digest.hexdigest()[:16]
    return tally


def _warm_up() -> None:
    """What is there before the first schedule stays: no collection needs to look at it again."""
    from roomkit.testing.simulation import simulate

    simulate(0)
    gc.collect()
    gc.freeze()


def _run_apart(first: int, count: int) -> Tally:
    """As `run_some`, in a process that ends before anybody has to clear up what so many schedules leave behind."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            gc.disable()
            theirs.send(run_some(first, count))
        finally:
            os._exit(0)
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"the process that played the seeds from {first} on has died of them") from None
    finally:
        ours.close()
        os.waitpid(child, 0)


def run_many(first: int, count: int, *, workers: int = 2) -> Tally:
    """Plays `count` seeds from `first` on, in `workers` processes; stops early when a good many have failed."""
    total, began = Tally(), time.perf_counter()
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawning, initializer=_warm_up) as pool:
        starts = range(first, first + count, CHUNK)
        chunks = [pool.submit(_run_apart, at, min(CHUNK, first + count - at)) for at in starts]
        for chunk in chunks:
            if not chunk.cancelled():
                total.add(chunk.result())
            if len(total.failures) >= MOST_FAILURES:
                for left in chunks:
                    left.cancel()
    total.seconds = time.perf_counter() - began
    return total
