"""The server ends itself at each named crash point, under load: nothing is lost, doubled or out of order."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from proofs.kill9 import Proof, finish, restart
from proofs.world import World
from roomkit.runtime import CRASH_POINTS

TITLE = "the server ends itself at every named crash point, for every kind of channel"
REACHED_S = 60.0
KINDS: dict[str, tuple[str, ...]] = {
    "cursor": ("web",),
    "outbox": ("web", "sink"),
    "turn": ("web", "ai"),
    "all": ("web", "sink", "ai"),
}
"""Rooms by what is in them besides who writes; a room of sockets alone never sends, and one without a brain never
replies."""
WITHOUT = {"cursor": ("outbox.", "reply."), "outbox": ("reply.",), "turn": ("outbox.",), "all": ()}
EVERY = tuple((kind, point) for kind in KINDS for point in CRASH_POINTS if not point.startswith(WITHOUT[kind] or "-"))


async def prove(n: int, seed: int, where: tuple[tuple[str, str], ...] = EVERY) -> Proof:
    """`n` crashes at each point for each kind of channel."""
    proof, dice = Proof(), random.Random(seed)
    for kind, point in where:
        for _ in range(n):
            with tempfile.TemporaryDirectory(prefix="roomkit-crash-") as folder:
                async with World(Path(folder), ["r0", "r1"], channels=KINDS[kind]) as world:
                    await _crash(world, proof, f"{point}:{dice.randint(8, 30)}", kind)
        proof.figures["points_and_kinds"] += 1
    proof.figures["points"] = len({point for _, point in where})
    proof.figures["kinds"] = len({kind for kind, _ in where})
    return proof


async def _crash(world: World, proof: Proof, where: str, kind: str) -> None:
    before = len(proof.wrong)
    served = await world.server.start(crash_at=where)
    if served:
        await world.enter()
    if not await world.server.died(REACHED_S):
        proof.wrong.append("it was never reached")
        await world.server.kill()
    proof.figures["crashes"] += 1
    if not served:
        await world.server.start()
        await world.enter()
        await world.server.kill()
    await restart(world, proof)
    await finish(world, proof)
    proof.wrong[before:] = [f"{kind}, {where}: {what}" for what in proof.wrong[before:]]
