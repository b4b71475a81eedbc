"""kill -9 of a real server under load, again and again: what was acknowledged is there, once and in order."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofs.judge import lost, open_rows, verdict
from proofs.patience import patience
from proofs.world import World
from roomkit.cli.witness import guest_may_see, read_room

TITLE = "kill -9 of the server under load"
ERA = 10
"""Rounds with the same rooms and people; then all of it is judged, and new ones come."""
CLOSED_S = 2.0
"""How long a reply that was cut may stay open once the restarted server serves."""
QUIET_S = 60.0


@dataclass(slots=True)
class Proof:
    """What was found: `wrong` is empty when every promise was kept."""

    wrong: list[str] = field(default_factory=list[str])
    figures: Counter[str] = field(default_factory=Counter[str])
    slowest: dict[str, float] = field(default_factory=dict[str, float])

    def took(self, what: str, seconds: float) -> None:
        self.slowest[what] = max(self.slowest.get(what, 0.0), round(seconds, 3))

    def report(self) -> dict[str, Any]:
        return {"figures": dict(self.figures), "slowest_s": self.slowest, "violations": self.wrong}


async def prove(n: int, seed: int) -> Proof:
    proof, dice = Proof(), random.Random(seed)
    for start in range(0, n, ERA):
        with tempfile.TemporaryDirectory(prefix="roomkit-kill9-") as folder:
            async with World(Path(folder), [f"r{number}" for number in range(3)]) as world:
                await _era(world, proof, dice, min(ERA, n - start))
        if proof.wrong:
            break
    return proof


async def _era(world: World, proof: Proof, dice: random.Random, rounds: int) -> None:
    await world.server.start()
    await world.enter()
    for _ in range(rounds):
        await asyncio.sleep(dice.choice((0.05, 0.4, 1.2)) * dice.random() + dice.choice((0.0, 0.3)))
        await world.server.kill()
        proof.figures["kills"] += 1
        await restart(world, proof)
    await finish(world, proof)


async def restart(world: World, proof: Proof) -> None:
    """Looks at the file while nobody serves, starts again, and sees that replies which were cut are closed in time."""
    proof.wrong += lost(world)
    cut = set(open_rows(world.server.db, "stream"))
    proof.figures["cut_replies"] += len(cut)
    proof.figures["open_deliveries"] += len(open_rows(world.server.db, "outbox"))
    began = time.monotonic()
    if not await world.server.start():
        proof.wrong.append("the server did not start again")
        return
    serving = time.monotonic()
    proof.took("start", serving - began)
    while left := cut.intersection(open_rows(world.server.db, "stream")):
        if time.monotonic() - serving > CLOSED_S * patience():
            proof.wrong.append(f"{len(left)} replies are still open {CLOSED_S * patience():.1f} s after the restart")
            break
        await asyncio.sleep(0.02)
    proof.took("closing cut replies", time.monotonic() - serving)


async def finish(world: World, proof: Proof) -> None:
    """Everybody stops writing, everything comes to rest, and all of it is judged."""
    began = time.monotonic()
    try:
        await world.hush()
        await _rest(world)
    except TimeoutError:
        proof.wrong.append(f"it did not come to rest within {QUIET_S:g} s")
    proof.took("coming to rest", time.monotonic() - began)
    wrong, figures = verdict(world)
    proof.wrong += wrong
    proof.figures += figures


async def _rest(world: World) -> None:
    """Waits until no row is open and everybody has seen the end of each log."""
    async with asyncio.timeout(QUIET_S):
        while any(open_rows(world.server.db, kind) for kind in ("turn", "stream", "outbox")):
            await asyncio.sleep(0.1)
        for room_id, people in world.people.items():
            end = max((e["index"] for e in read_room(world.server.db, room_id).events if guest_may_see(e)), default=-1)
            while any(max((event["index"] for event in one.seen), default=-1) < end for one in people):
                await asyncio.sleep(0.05)
