"""The owner of 1,000 rooms is killed -9 under load: all rooms are served again, nothing is lost or out of order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time

from proofs.fleet import LEASE_S, Fleet
from proofs.kill9 import Proof
from proofs.patience import patience
from roomkit.testing.postgres import PostgresCluster

TITLE = "kill -9 of the process that owns all rooms, one of three"
ROOMS = int(os.environ.get("ROOMKIT_PROOF_ROOMS", "1000"))
WATCHED = 4
SERVED_S = LEASE_S + 0.5
CLOSED_S = LEASE_S + 2.0
"""How long after the kill a reply that was cut may stay open: the lease and 2 seconds (R7)."""


async def prove(n: int, seed: int) -> Proof:
    proof, dice = Proof(), random.Random(seed)
    with PostgresCluster() as cluster:
        for _ in range(n):
            async with Fleet(cluster, pause=0.05) as fleet:
                await _round(fleet, proof, dice)
            if proof.wrong:
                break
    return proof


async def _round(fleet: Fleet, proof: Proof, dice: random.Random) -> None:
    rooms = [f"r{number}" for number in range(ROOMS)]
    owner = fleet.nodes["a"]
    await owner.ask("create", rooms=rooms, channels=["web"])
    watched = [f"w{number}" for number in range(WATCHED)]
    await owner.ask("create", rooms=watched, channels=["web", "ai"])
    people = [
        await fleet.person(room, node, writes=writes, pause=0.1)
        for room in watched
        for node, writes in (("b", True), ("c", True), ("c", False))
    ]
    await asyncio.sleep(1.0 + dice.random())
    proof.figures["owned_rooms"] += (await fleet.owned())[f"http://127.0.0.1:{owner.port}"]
    owner.signal(signal.SIGKILL)
    killed = time.time()
    await owner.ended()
    proof.figures["kills"] += 1
    closing = asyncio.create_task(_closed(fleet, killed))
    halves = (("b", rooms[::2]), ("c", rooms[1::2]))
    served = await asyncio.gather(*(fleet.nodes[name].ask("serve", rooms=some, name="after") for name, some in halves))
    times = sorted(stamp - killed for some in served for stamp in some)
    proof.took("first room served", times[0])
    proof.took("half of the rooms", times[len(times) // 2])
    proof.took("all rooms served", times[-1])
    allowed = SERVED_S * patience()
    late = [stamp for stamp in times if stamp > allowed]
    if late or len(times) != ROOMS:
        proof.wrong.append(f"{len(late)} of {len(times)} rooms were served later than {allowed:.1f} s after the kill")
    cut = await closing
    proof.took("cut replies closed", cut)
    if cut > CLOSED_S * patience():
        proof.wrong.append(f"cut replies were open {cut:.1f} s after the kill")
    try:
        await fleet.hush()
    except TimeoutError:
        proof.wrong.append("it did not come to rest")
    wrong, figures = await fleet.verdict()
    proof.wrong += wrong
    proof.figures += figures
    fallen = sum(one.client.reconnections for one in people)
    proof.figures["sockets"] += len(people)
    if fallen:
        proof.wrong.append(f"{fallen} sockets of the other nodes were dropped")
    doubled = await fleet.sql(
        "SELECT room_id FROM events WHERE body LIKE '%after in %' GROUP BY room_id HAVING count(*) <> 1"
    )
    proof.wrong += [f"the message after the kill is in {room} more than once" for (room,) in doubled]


async def _closed(fleet: Fleet, killed: float) -> float:
    """Seconds until the replies that were open at the kill were closed."""
    open_ones = {key for (key,) in await fleet.sql("SELECT key FROM records WHERE kind = 'stream'")}
    while open_ones and time.time() - killed < 60:
        left = {key for (key,) in await fleet.sql("SELECT key FROM records WHERE kind = 'stream'")}
        if not open_ones & left:
            break
        await asyncio.sleep(0.02)
    return time.time() - killed
