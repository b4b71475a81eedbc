"""How a workload is measured: short rounds of CPU and wall time, each between two runs of a calibration loop.

The machines are shared and noisy: the same code takes twice the CPU time when the other cores are busy. So a fixed loop
of plain Python runs before and after every short round, and a figure also stands "at reference speed": as it would be
if that loop had taken `REFERENCE_MS`, its time on a quiet core of the development machine. Compare those, or ratios.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from benchmarks.calibration import REFERENCE_MS, calibrate


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `reference` is the value at reference speed; `better` tells which side of `target` is good."""

    name: str
    value: float
    unit: str
    target: float | None = None
    better: str = "lower"
    reference: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached, at reference speed where the figure is a time; None without a target."""
        if self.target is None:
            return None
        judged = self.value if self.reference is None else self.reference
        return judged <= self.target if self.better == "lower" else judged >= self.target


@dataclass(frozen=True, slots=True)
class Report:
    """What a workload came to; `notes` say in words what the numbers cannot."""

    figures: list[Figure]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Cost:
    """What one unit of a workload costs, in microseconds, over all rounds; `reference` is CPU at reference speed."""

    cpu: float
    wall: float
    reference: float
    calls: list[float] = field(default_factory=list[float])

    def quantile(self, share: float) -> float:
        ordered = sorted(self.calls)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Meter:
    """Times workloads, and remembers how fast the machine was meanwhile."""

    def __init__(self, *, small: bool = False, peer_python: str | None = None) -> None:
        self.small = small
        self.peer_python = peer_python
        self.calibrations: list[float] = []

    def size(self, full: int, small: int) -> int:
        """The size of a workload: the pinned one, or a small one that only shows that it works."""
        return small if self.small else full

    def speed(self) -> float:
        """How slow the machine is right now: 1.0 is the reference."""
        took = calibrate()
        self.calibrations.append(took)
        return took / REFERENCE_MS

    async def cost(self, work: Callable[[Cost], Awaitable[int]], rounds: int) -> Cost:
        """Runs `work(cost)` `rounds` times; it returns how many units it did and may note single calls' times.

        Rounds should be short, some tens of milliseconds: the machine's speed changes faster than that."""
        cost = Cost(0.0, 0.0, 0.0)
        cpu = wall = slow = 0.0
        units = 0
        gc.collect()
        before = self.speed()
        for _ in range(self.size(rounds, 1)):
            cpu_began, wall_began = time.process_time(), time.perf_counter()
            done = await work(cost)
            cpu += time.process_time() - cpu_began
            wall += time.perf_counter() - wall_began
            after = self.speed()
            slow += (before + after) / 2 * done
            before = after
            units += done
        cost.cpu, cost.wall = cpu / units * 1e6, wall / units * 1e6
        cost.reference = cost.cpu / (slow / units)
        return cost


def cpu_figure(name: str, cost: Cost, target: float | None = None, unit: str = "us CPU") -> Figure:
    return Figure(name, cost.cpu, unit, target, reference=cost.reference)


def wall_figures(cost: Cost) -> list[Figure]:
    """Median and p99 of the single calls, by the wall clock."""
    return [Figure("median", cost.quantile(0.5), "us wall"), Figure("p99", cost.quantile(0.99), "us wall")]
