"""Thousands of room sockets on one server process, which is killed: all of them come back and have missed nothing."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proofs.crowd import Part
from proofs.kill9 import Proof
from proofs.nursery import Nursery, spawn_module
from proofs.patience import patience
from proofs.server import Plan
from proofs.world import Server
from roomkit.cli.witness import guest_may_see, read_room

TITLE = "room sockets on one server process that is killed: one kill, so many clients"
CLIENTS_A_ROOM = 50
PROCESSES = 2
BACK_S = 20.0
"""Within this time of the restart everybody is to be back."""
PATIENCE_S = 180.0
STILL_S = 60.0
"""So long nothing may move before all are in, or back."""
RESTED_S = 30.0
WHOLE_S = 600.0
"""As all others for an idle machine."""
WRITING_S = 2.0
KB_EACH = 40.0
MOST_TOLD = 1 << 26
"""Bytes of what a process of clients tells at once: all that was acknowledged, in one line."""


@dataclass(slots=True)
class Crowds:
    """The client processes, and what they told last."""

    processes: list[asyncio.subprocess.Process]
    told: list[dict[str, Any]]
    _reading: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    def order(self, what: bytes) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(what + b"\n")

    def sum(self, what: str) -> int:
        return sum(one.get(what, 0) for one in self.told)

    @property
    def broken(self) -> list[str]:
        """What no client should ever have heard."""
        return [what for one in self.told for what in one.get("wrong", ())]

    async def until(self, server: Server, true: Callable[[], bool], within: float) -> str:
        """Waits for it; returns why it has given up, "" when it is true. Nobody waits for a process that has ended, nor
        for one that does nothing any more: within `STILL_S` somebody comes in, however busy the machine is."""
        began = moved = time.monotonic()
        before = (0, 0)
        while not true():
            now, at = time.monotonic(), (self.sum("live"), self.sum("resumed"))
            if at != before:
                moved, before = now, at
            if ended := [process.returncode for process in self.processes if process.returncode is not None]:
                return f"a process of clients has ended with {ended[0]}"
            if unread := [task for task in self._reading if task.done()]:
                return f"a process of clients is heard no more: {unread[0].exception()!r}"
            if not server.alive:
                return "the server has ended by itself"
            if now - began > within:
                return f"after {within:.0f} s"
            if now - moved > STILL_S * patience():
                return f"nothing has moved for {now - moved:.0f} s"
            await asyncio.sleep(0.05)
        return ""


@asynccontextmanager
async def crowds(plan: Plan, clients: int) -> Any:
    """`clients` clients in a few processes, connecting at once."""
    each = -(-clients // PROCESSES)
    parts = [
        Part(plan.port, plan.secret, plan.rooms, first, min(each, clients - first)) for first in range(0, clients, each)
    ]
    processes = [await spawn_module("proofs.crowd", limit=MOST_TOLD) for _ in parts]
    told: list[dict[str, Any]] = [{} for _ in parts]

    async def read(number: int) -> None:
        stdout = processes[number].stdout
        assert stdout is not None
        while line := await stdout.readline():
            told[number] = json.loads(line)

    reading = [asyncio.create_task(read(number)) for number in range(len(parts))]
    for process, part in zip(processes, parts, strict=True):
        assert process.stdin is not None
        process.stdin.write(part.line())
    try:
        yield Crowds(processes, told, reading)
    finally:
        for process in processes:
            process.kill()
            await process.wait()
        await asyncio.gather(*reading, return_exceptions=True)


@asynccontextmanager
async def served(clients: int) -> Any:
    """A server with rooms for so many clients."""
    rooms = tuple(f"r{number}" for number in range(max(1, clients // CLIENTS_A_ROOM)))
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="roomkit-storm-"))
        nursery = await stack.enter_async_context(Nursery())
        server = Server(nursery, Plan(str(Path(folder) / "rooms.db"), "a secret for the storm only", rooms, ("web",)))
        await server.start()
        yield server
        await server.kill()


def resident_kb(pid: int) -> int:
    with Path(f"/proc/{pid}/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far: on a busy machine the only fair measure."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def prove(n: int, seed: int) -> Proof:
    """One kill under `n` clients. It ends in any case, and says how far it had come."""
    proof, doing = Proof(), ["starting the server"]
    try:
        async with asyncio.timeout(WHOLE_S * patience()), served(n) as server:
            await _attack(proof, server, n, doing)
    except TimeoutError:
        proof.wrong.append(f"it did not end: {doing[-1]} took too long")
    return proof


async def _attack(proof: Proof, server: Server, n: int, doing: list[str]) -> None:
    bare = resident_kb(server.pid)
    began = time.monotonic()
    async with crowds(server.plan, n) as crowd:
        doing.append(f"waiting for {n} clients to come in")
        why = await crowd.until(server, lambda: crowd.sum("live") == n or bool(crowd.broken), PATIENCE_S * patience())
        if why or crowd.broken:
            proof.wrong.append(f"only {crowd.sum('live')} of {n} clients came in: {why or crowd.broken}")
            return
        proof.took("until all were in", time.monotonic() - began)
        each = (resident_kb(server.pid) - bare) / n
        proof.figures["clients"] = n
        proof.figures["KB_per_client"] = round(each)
        if each > KB_EACH and n >= 1_000:
            proof.wrong.append(f"a client takes {each:.0f} KB of the server, more than {KB_EACH:g}")
        await _storm(proof, server, crowd, n, doing)


async def _storm(proof: Proof, server: Server, crowd: Crowds, n: int, doing: list[str]) -> None:
    crowd.order(b"write")
    await asyncio.sleep(WRITING_S)
    doing.append("killing and restarting the server")
    await server.kill()
    killed = time.monotonic()
    if not await server.start():
        proof.wrong.append("the server died before it served again")
        return
    ready = time.monotonic()
    doing.append(f"waiting for {n} clients to come back")
    most = PATIENCE_S * patience()
    why = await crowd.until(server, lambda: crowd.sum("live") == n and crowd.sum("resumed") >= n, most)
    took = time.monotonic() - ready
    proof.took("restart", ready - killed)
    proof.took("until all were back", took)
    if why:
        proof.wrong.append(f"only {crowd.sum('live')} of {n} clients were back: {why}")
        return
    proof.took("CPU of the server until then", cpu_s(server.pid))
    if took > BACK_S * patience():
        proof.wrong.append(f"all clients were back after {took:.1f} s, not within {BACK_S:g} s")
    await asyncio.sleep(WRITING_S)
    crowd.order(b"hush")
    doing.append("waiting for the clients to have seen the whole log")
    wrong: list[str] = []

    def rested() -> bool:
        wrong[:] = _wrong(server, crowd)
        return not wrong

    if why := await crowd.until(server, rested, RESTED_S * patience()):
        proof.wrong += [*wrong[:20], why]
    proof.wrong += crowd.broken
    proof.figures["resumed"] = crowd.sum("resumed")
    proof.figures["acknowledged"] = sum(len(one.get("acked", ())) for one in crowd.told)
    proof.figures["gave_up_a_silent_line"] = crowd.sum("gave_up")
    proof.figures["rooms"] = len(server.plan.rooms)


def _wrong(server: Server, crowd: Crowds) -> list[str]:
    """What the file and the clients disagree about."""
    if not all("seen" in one for one in crowd.told):
        return ["not all have told what they have seen"]
    if under_way := crowd.sum("under_way"):
        return [f"{under_way} messages were never acknowledged"]
    wrong: list[str] = []
    places: dict[tuple[str, int], str] = {}
    for room_id in server.plan.rooms:
        stored = read_room(server.db, room_id)
        places |= {(room_id, event["index"]): event["id"] for event in stored.events}
        checksum, position = 0, -1
        for event in filter(guest_may_see, stored.events):
            checksum = zlib.crc32(f"{event['index']} {event['id']}\n".encode(), checksum)
            position = event["index"]
        for one in crowd.told:
            for said, count in one["seen"].get(room_id, {}).items():
                where, _, seen = said.partition(":")
                if seen != f"{checksum:08x}" or int(where) < position:
                    wrong.append(f"{count} clients of {room_id} are at {where}, and have not seen exactly its log")
    for one in crowd.told:
        for client_id, (room_id, index, event_id) in one["acked"].items():
            if places.get((room_id, index)) != event_id:
                wrong.append(f"{client_id} was acknowledged at {room_id}[{index}] and is not there")
    return wrong
