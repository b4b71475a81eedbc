"""Timers that act by themselves: one heap and one sleeping task for the whole kit; durable, so they survive restarts.

A timer is a hint to look again: what it leads to is decided by the room's actor when it rings.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from roomkit.core import alarms
from roomkit.core.state import key
from roomkit.errors import Elsewhere, Fenced, StoreUnavailable
from roomkit.models.event import RoomEvent
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery
from roomkit.runtime import Wakeup

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
LONGEST_SLEEP = 3600.0


class Timers:
    """`set` arms or moves a named timer of a room; a later `set` of the same name replaces the earlier one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._heap: list[tuple[float, str, str, str]] = []
        self._due: dict[tuple[str, str, str], tuple[float, dict[str, Any]]] = {}
        self._wakeup = Wakeup()

    def __len__(self) -> int:
        return len(self._due)

    def set(self, actor: RoomActor, name: str, seconds: float, data: dict[str, Any]) -> None:
        record = self.plan(actor, name, seconds, data)
        self.arm(record)
        engine = self._engine
        if not engine.eager.scope.closed:
            engine.eager.start(self._insist(actor, record))

    async def _insist(self, actor: RoomActor, record: Record) -> None:
        """What a closing kit, or one that has lost the room, does not write is armed by whoever has it next."""
        engine = self._engine
        try:
            await engine.insist(lambda: self._keep(actor, record), f"a timer of {actor.room_id}")
        except (Fenced, StoreUnavailable) as error:
            if isinstance(error, Fenced) and engine.nodes is None:
                raise
            log.info("a timer of %s is left to the next owner of the room: %s", actor.room_id, error)

    async def _keep(self, actor: RoomActor, record: Record) -> None:
        """While the store refused it, it may have been moved, or have rung: then it is written no more."""
        armed = self._due.get((record.tenant, actor.room_id, record.value["name"]))
        if armed is not None and armed[0] == record.due:
            await self._engine.store.commit(Batch(actor.tenant, actor.epoch, actor.room_id, put=(record,)))

    def plan(self, actor: RoomActor, name: str, seconds: float, data: dict[str, Any]) -> Record:
        """The timer for `Change.timers`: no crash comes between it and what it times."""
        due = self._engine.now().timestamp() + max(0.0, seconds)
        value = {"name": name, "data": data}
        return Record("timer", actor.tenant, key(actor.room_id, name), value, actor.room_id, due)

    def fallbacks(
        self, actor: RoomActor, event: RoomEvent, chosen: Iterable[tuple[str, tuple[str, ...]]]
    ) -> Iterable[Record]:
        """The timers that try another way to the same person when a message stays unread (D28)."""
        for channel_id, _ in chosen:
            binding = actor.state.bindings.get(channel_id)
            if binding is not None and binding.fallback_after_s is not None:
                data = {"index": event.index, "channel": channel_id}
                yield self.plan(actor, f"fallback:{event.index}:{channel_id}", binding.fallback_after_s, data)

    def arm(self, record: Record) -> None:
        """Makes a durable timer ring."""
        name, due = record.value["name"], record.due or 0.0
        room_id = record.room_id or ""
        self._due[record.tenant, room_id, name] = (due, record.value["data"])
        heapq.heappush(self._heap, (due, record.tenant, room_id, name))
        self._wakeup.set()

    def armed(self, record: Record) -> bool:
        return (record.tenant, record.room_id or "", record.value["name"]) in self._due

    def clear(self) -> None:
        """Rings nothing more that is armed now."""
        self._due.clear()
        self._heap.clear()

    async def load(self, rooms: Collection[tuple[str, str]] | None = None) -> None:
        """Arms everything (of these rooms, as tenant and id) that was armed before a restart; what came due meanwhile
        rings at once."""
        offset = 0
        while True:
            page = await self._engine.store.records(
                RecordQuery("timer", None, due_before=float("inf"), offset=offset, limit=1000)
            )
            for record in page:
                if rooms is None or (record.tenant, record.room_id or "") in rooms:
                    self.arm(record)
            if len(page) < 1000:
                return
            offset += len(page)

    async def run(self) -> None:
        """Rings timers for ever; cancel to stop."""
        while True:
            now = self._engine.now().timestamp()
            while self._heap and self._heap[0][0] <= now + 1e-6:
                due, tenant, room_id, name = heapq.heappop(self._heap)
                current = self._due.get((tenant, room_id, name))
                if current is None or current[0] != due:
                    continue
                del self._due[tenant, room_id, name]
                self._engine.scope.spawn(
                    self._ring(tenant, room_id, name, current[1]), name=f"timer {name} of {room_id}"
                )
            # Never longer: the calendar may be set anew meanwhile.
            left = self._heap[0][0] - self._engine.now().timestamp() if self._heap else None
            try:
                async with asyncio.timeout(None if left is None else min(LONGEST_SLEEP, max(0.0, left))):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    async def _ring(self, tenant: str, room_id: str, name: str, data: dict[str, Any]) -> None:
        """What cannot be done now, because the store fails or the kit closes, rings again at the next start; in a room
        that is another process's, there."""
        try:
            await self._engine.insist(lambda: self._look(tenant, room_id, name, data), f"timer {name} of {room_id}")
        except (Elsewhere, Fenced):
            if self._engine.nodes is None:
                raise

    async def _look(self, tenant: str, room_id: str, name: str, data: dict[str, Any]) -> None:
        actor = await self._engine.table.actor(tenant, room_id)
        if actor is None:
            gone = RecordKey("timer", tenant, key(room_id, name))
            await self._engine.store.commit(Batch(tenant, self._engine.epoch, delete=(gone,)))
            return
        await alarms.ring(actor, name, data)
        await actor.insist(self._forget, name)

    async def _forget(self, actor: RoomActor, name: str) -> None:
        """Between two operations of the room, so that it cannot take away what one of them has just armed."""
        if (actor.tenant, actor.room_id, name) not in self._due:
            gone = RecordKey("timer", actor.tenant, key(actor.room_id, name))
            await self._engine.store.commit(Batch(actor.tenant, actor.epoch, actor.room_id, delete=(gone,)))
