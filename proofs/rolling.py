"""Three processes are restarted one after another (SIGTERM) while people write and replies grow: none is dropped."""

from __future__ import annotations

import asyncio
import random
import signal
import time

from proofs.fleet import Fleet
from proofs.kill9 import Proof
from proofs.patience import patience
from roomkit.testing.postgres import PostgresCluster

TITLE = "restarts of three processes, one after another, with replies in the making"
ROOMS = 6
STOP_S = 20.0
BACK_S = 40.0
WORDS, PAUSE = 30, 0.05


async def prove(n: int, seed: int) -> Proof:
    """`n` times all three."""
    proof, dice = Proof(), random.Random(seed)
    with PostgresCluster() as cluster:
        async with Fleet(cluster, words=WORDS, pause=PAUSE) as fleet:
            names = list(fleet.nodes)
            for number in range(ROOMS):
                await fleet.nodes[names[number % 3]].ask("create", rooms=[f"r{number}"], channels=["web", "ai"])
                for name in names:
                    await fleet.person(f"r{number}", name, writes=name == names[number % 2], pause=1.0)
            await asyncio.sleep(1.5)
            for _ in range(n):
                for name in names:
                    await _restart(fleet, proof, name, dice)
            await _end(fleet, proof)
    return proof


async def _restart(fleet: Fleet, proof: Proof, name: str, dice: random.Random) -> None:
    node = fleet.nodes[name]
    others = [one for room in fleet.people.values() for one in room if not one.name.endswith(f"-{name}")]
    before = sum(one.client.reconnections for one in others)
    await asyncio.sleep(dice.random())
    began = time.monotonic()
    node.signal(signal.SIGTERM)
    code = await asyncio.wait_for(node.ended(), STOP_S * patience())
    proof.took("stopping", time.monotonic() - began)
    if code != 0:
        proof.wrong.append(f"node {name} ended with {code} instead of draining")
    await node.start()
    proof.took("restarting", time.monotonic() - began)
    proof.figures["restarts"] += 1
    await _all_back(fleet, proof, name)
    await asyncio.sleep(1.0)
    fallen = sum(one.client.reconnections for one in others) - before
    if fallen:
        proof.wrong.append(f"{fallen} sockets of the other processes were dropped when {name} was restarted")


async def _all_back(fleet: Fleet, proof: Proof, name: str) -> None:
    """Who was at the node is there again: otherwise they would count as dropped when the next one is restarted."""
    own = [one.client for room in fleet.people.values() for one in room if one.name.endswith(f"-{name}")]
    try:
        async with asyncio.timeout(BACK_S * patience()):
            while not all(client.live for client in own):
                await asyncio.sleep(0.05)
    except TimeoutError:
        proof.wrong.append(f"not everybody came back to {name} within {BACK_S * patience():.0f} s")


async def _end(fleet: Fleet, proof: Proof) -> None:
    try:
        await fleet.hush()
    except TimeoutError:
        proof.wrong.append("it did not come to rest")
    wrong, figures = await fleet.verdict()
    proof.wrong += wrong
    proof.figures += figures
    if figures["interrupted"]:
        proof.wrong.append(f"{figures['interrupted']} replies were cut by a restart that had time to let them end")
    for room_id in fleet.people:
        stored = await fleet.stored(room_id)
        proof.figures["replies"] += sum(event["source"]["channel_id"] == "ai" for event in stored.events)
