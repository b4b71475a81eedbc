"""Schedules of the whole core on a simulated disk and network, each out of one number; every one is judged."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

from roomkit.testing.simulation.runner import Tally, run_many

TITLE = "schedules of crashes, refusals, delays and repetitions"


@dataclass(slots=True)
class Proof:
    tally: Tally

    def report(self) -> dict[str, Any]:
        tally = self.tally
        figures = {name: getattr(tally, name) for name in ("schedules", "steps", "events", "crashes")}
        figures["crash_points_visited"] = len(tally.points)
        figures["schedules_per_second"] = round(tally.schedules / tally.seconds) if tally.seconds else 0
        return {
            "violations": list(tally.failures.values()),
            "figures": figures,
            "slowest_s": {},
            "digest": tally.digest,
        }


async def prove(n: int, seed: int) -> Proof:
    return Proof(await asyncio.to_thread(run_many, seed, n, workers=min(os.cpu_count() or 1, 8)))
