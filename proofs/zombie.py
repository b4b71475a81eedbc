"""An owner is stopped (SIGSTOP) in the midst of writing into all its rooms, another process takes over and writes, then
it goes on (SIGCONT): it may write nothing any more that it had begun as their owner."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from proofs.fleet import LEASE_S, Fleet, log_of
from proofs.kill9 import Proof
from proofs.patience import patience
from roomkit.testing.postgres import PostgresCluster

TITLE = "writes that a paused owner has begun, by a process that was taken over from meanwhile"
ROOMS = 100
TAKEN_S = LEASE_S + 2.0
AGAIN_S = 5.0


async def prove(n: int, seed: int) -> Proof:
    """`n` writes: so many rooms, as often as it takes."""
    proof, dice = Proof(), random.Random(seed)
    with PostgresCluster() as cluster:
        async with Fleet(cluster, names=("a", "b")) as fleet:
            rooms = [f"r{number}" for number in range(min(ROOMS, n))]
            await fleet.nodes["a"].ask("create", rooms=rooms, channels=["web"])
            for _ in range(-(-n // len(rooms))):
                await _round(fleet, proof, rooms, dice)
                if proof.wrong:
                    break
            for room in rooms:
                stored = await fleet.stored(room)
                proof.wrong += log_of(room, stored)
                proof.figures["events"] += len(stored.events)
    return proof


async def _round(fleet: Fleet, proof: Proof, rooms: list[str], dice: random.Random) -> None:
    owned = await fleet.owned()
    by_port = {f"http://127.0.0.1:{node.port}": node for node in fleet.nodes.values()}
    address = owned.most_common(1)[0][0]
    zombie = by_port.pop(address)
    (peer,) = by_port.values()
    ((old,),) = await fleet.sql("SELECT id FROM nodes WHERE address = $1", address)
    before = await zombie.ask("counters")
    await zombie.ask("hammer", rooms=rooms)
    await asyncio.sleep(0.2 + 0.3 * dice.random())
    zombie.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    while await fleet.sql("SELECT 1 FROM leases WHERE node = $1 LIMIT 1", old):
        await asyncio.sleep(0.02)
        if time.monotonic() - stopped > TAKEN_S * patience():
            proof.wrong.append(f"nobody took over within {TAKEN_S * patience():.1f} s")
            break
    proof.took("taken over", time.monotonic() - stopped)
    await peer.ask("serve", rooms=rooms, name="peer")
    await asyncio.sleep(dice.random() * 0.2)
    zombie.signal(signal.SIGCONT)
    woken = time.monotonic()
    proof.figures["writes_tried"] += len(rooms)
    proof.figures["pauses"] += 1
    while not await fleet.sql("SELECT 1 FROM nodes WHERE address = $1 AND id <> $2", address, old):
        await asyncio.sleep(0.02)
        if time.monotonic() - woken > AGAIN_S * patience():
            proof.wrong.append("the paused process did not find out that it had been taken over from")
            break
    proof.took("beginning again", time.monotonic() - woken)
    await asyncio.sleep(0.3)
    after = await zombie.ask("rest")
    lost = after.get("node_rooms_lost", 0) - before.get("node_rooms_lost", 0)
    proof.figures["rooms_lost_at_a_refused_write"] += int(lost)
