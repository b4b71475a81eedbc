"""The server ends itself at each named crash point, under load: nothing is lost, doubled or out of order."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from proofs.kill9 import Proof, finish, restart
from proofs.world import World
from roomkit.runtime import CRASH_POINTS

TITLE = "the server ends itself at every named crash point"
REACHED_S = 60.0


async def prove(n: int, seed: int, points: tuple[str, ...] = tuple(CRASH_POINTS)) -> Proof:
    proof, dice = Proof(), random.Random(seed)
    for name in points:
        for _ in range(n):
            with tempfile.TemporaryDirectory(prefix="roomkit-crash-") as folder:
                async with World(Path(folder), ["r0", "r1"]) as world:
                    await _crash(world, proof, f"{name}:{dice.randint(8, 30)}")
        proof.figures["points"] += 1
    return proof


async def _crash(world: World, proof: Proof, where: str) -> None:
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
    proof.wrong[before:] = [f"{where}: {what}" for what in proof.wrong[before:]]
