"""The simulated disk: what is synced survives, what is not is gone; it may be slow, full, or break off in between."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from roomkit.core.memory import MemoryStore
from roomkit.errors import Fenced, StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.ports.store import Batch, Duplicate, EventQuery, Record, RecordQuery, StoreHealth, StoreInfo
from roomkit.runtime.crashpoint import crashpoint
from roomkit.testing.simulation.nodes import Leases

if TYPE_CHECKING:
    from roomkit.testing.simulation.process import Process
    from roomkit.testing.simulation.world import World

_ANY_EPOCH = 1 << 40
Answer = asyncio.Future["Duplicate | None"]


class Disk:
    """What all processes of a schedule share. `batches` are the synced transactions: (time, process, batch)."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self.dice = dice
        self.memory = MemoryStore()
        self.batches: list[tuple[float, int, Batch]] = []
        self.leases = Leases()
        self.inbox_waits: list[asyncio.Future[None]] = []
        self.full = False
        self.calm = True
        self.slow = dice.choice((0.0, 0.05, 0.3))
        self.in_order = dice.random() < 0.7
        self.broken = dice.choice((0.0, 0.0, 0.02, 0.05))

    def open(self) -> StoreInfo:
        """A process takes the disk over: every older one is fenced. Nodes only join in."""
        info: StoreInfo = _now(self.memory.open())
        if self.world.nodes == 1:
            for older in self.world.processes[:-1]:
                older.stale = True
            info = self.memory.take_over()
        return replace(info, incarnation="sim", durable=True)

    def sync(self, process: Process, batch: Batch) -> Duplicate | None:
        if not self.calm and (self.full or (self.broken and self.dice.random() < self.broken)):
            self.world.trace.later("disk", _refused, batch)
            raise StoreUnavailable("no space left on the simulated disk")
        if process.ownership is not None:
            self.leases.check(process.ownership.node, batch)
        try:
            duplicate = _now(self.memory.commit(batch))
        except Fenced as error:
            self.world.trace("disk", f"fences p{process.number} off: {told(batch)}")
            if not process.stale:
                self.world.wrong.append(f"two writers were in one room, only the index told: {error}")
            raise
        if process.stale:
            self.world.wrong.append(f"process {process.number} wrote after another had taken over: {told(batch)}")
        if duplicate is None:
            self.batches.append((self.world.loop.time(), process.number, batch))
            self.world.trace.later("disk", _synced, process.number, batch)
            if process.ownership is not None:
                self.leases.wake()
        else:
            self.world.trace("disk", f"p{process.number} has {duplicate.room_id}[{duplicate.index}] already")
        return duplicate

    def write_for_host(self, row: Record) -> None:
        """The host's own transaction, which no epoch fences; who waits for the inbox is told."""
        _now(self.memory.commit(Batch(row.tenant, _ANY_EPOCH, put=(row,))))
        self.world.trace("host", f"enqueues {_short(row.key)} for {row.room_id}")
        waits, self.inbox_waits = self.inbox_waits, []
        for one in waits:
            if not one.done():
                one.set_result(None)

    def delay(self) -> float:
        """Until it is synced."""
        if self.calm or self.slow == 0.0 or self.dice.random() < 0.5:
            return 0.0
        return self.dice.choice((0.001, 0.01, self.slow))

    def read(self, query: RecordQuery) -> list[Record]:
        return _now(self.memory.records(query))

    def log(self, tenant: str, room_id: str) -> list[RoomEvent]:
        return _now(self.memory.events(EventQuery(tenant, room_id, limit=100_000)))


class SimStore:
    """One process's way to the disk: a `Store`."""

    def __init__(self, disk: Disk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._loop = disk.world.loop
        self._queue: deque[tuple[Batch, Answer]] = deque()
        self._last: dict[tuple[str, str | None], float] = {}

    async def open(self) -> StoreInfo:
        await self._process.thawed()
        self._require()
        info = self._disk.open()
        ownership = self._process.ownership
        return info if ownership is None else replace(info, epoch=ownership.begin())

    async def commit(self, batch: Batch) -> Duplicate | None:
        await self._process.thawed()
        self._require()
        disk = self._disk
        delay = disk.delay()
        if delay == 0.0 and not self._queue and (disk.in_order or not self._waiting(batch)):
            crashpoint("store.before_commit")
            self._require()
            duplicate = disk.sync(self._process, batch)
            crashpoint("store.after_commit")
            self._require()
            return duplicate
        answer: Answer = self._loop.create_future()
        if disk.in_order:
            self._queue.append((batch, answer))
            if len(self._queue) == 1:
                self._loop.call_later(delay, self._drain)
        else:
            self._loop.call_at(self._turn(batch, delay), self._sync, batch, answer)
        return await answer

    def _turn(self, batch: Batch, delay: float) -> float:
        """When it is synced: batches that touch the same thing in the order they came, others as it falls out."""
        names = {
            batch.room_id,
            *(put.room_id for put in batch.put),
            *(gone.key.split("\n")[0] for gone in batch.delete),
        }
        at = max(self._loop.time() + delay, *(self._last.get((batch.tenant, name), 0.0) + 1e-6 for name in names))
        for name in names:
            self._last[batch.tenant, name] = at
        return at

    def _waiting(self, batch: Batch) -> bool:
        return self._turn(batch, 0.0) > self._loop.time()

    def _drain(self) -> None:
        """Syncs what has gathered up to here, in order; a group of its own for what comes meanwhile."""
        for _ in range(len(self._queue)):
            batch, answer = self._queue.popleft()
            self._sync(batch, answer)
        if self._queue:
            self._loop.call_later(self._disk.delay(), self._drain)

    def _sync(self, batch: Batch, answer: Answer) -> None:
        """Cancelling the caller does not undo a commit under way; a crash before this moment does."""
        if not self._process.alive:
            return
        if self._process.frozen:  # It waits in a buffer of the stopped process, and is written when that wakes up.
            self._loop.call_later(0.05, self._sync, batch, answer)
            return
        crashpoint("store.before_commit")
        if not self._process.alive:
            return
        try:
            duplicate = self._disk.sync(self._process, batch)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            if not answer.done():
                answer.set_exception(error)
            return
        crashpoint("store.after_commit")
        if self._process.alive:
            self._loop.call_later(self._disk.delay() / 2, self._tell, answer, duplicate)

    def _tell(self, answer: Answer, duplicate: Duplicate | None) -> None:
        if self._process.alive and not answer.done():
            answer.set_result(duplicate)

    async def events(self, query: EventQuery) -> list[RoomEvent]:
        await self._seek()
        return await self._disk.memory.events(query)

    async def records(self, query: RecordQuery) -> list[Record]:
        await self._seek()
        return await self._disk.memory.records(query)

    async def _seek(self) -> None:
        await self._process.thawed()
        self._require()
        disk = self._disk
        if not disk.calm and disk.slow and disk.dice.random() < 0.1:
            await asyncio.sleep(disk.dice.choice((0.0, 0.01)))
            self._require()

    def health(self) -> StoreHealth:
        return StoreHealth(not self._disk.full, "full" if self._disk.full else "")

    async def aclose(self) -> None:
        if self._process.ownership is not None and self._process.alive:
            self._process.ownership.leave()

    def _require(self) -> None:
        if not self._process.alive:
            raise StoreUnavailable("the simulated process is dead")


def told(batch: Batch) -> str:
    """One line about a transaction."""
    parts = [f"{e.room_id}[{e.index}] {e.type.value} {e.source.channel_id} {e.text[:24]!r}" for e in batch.events]
    parts += [f"+{r.kind} {_short(r.key)}" for r in batch.put if r.kind not in ("participant", "binding", "room")]
    parts += [f"-{k.kind} {_short(k.key)}" for k in batch.delete]
    return f"{batch.tenant}: " + ("; ".join(parts) or "a change")


def _synced(number: int, batch: Batch) -> str:
    return f"p{number} syncs {told(batch)}"


def _refused(batch: Batch) -> str:
    return f"refuses {told(batch)}"


def _short(key: str) -> str:
    return "/".join(part.lstrip("0") or "0" if part.isdecimal() else part for part in key.split("\n"))


def _now(coro: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the memory store waited")
