"""Timers that act by themselves: one heap and one sleeping task for the whole kit; durable, so they survive restarts.

A timer is a hint to look again: what it leads to is decided by the room's actor when it rings.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING, Any

from roomkit.core import alarms
from roomkit.core.state import key
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery
from roomkit.runtime import Wakeup

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

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
        due = self._engine.now().timestamp() + max(0.0, seconds)
        self._arm(actor.tenant, actor.room_id, name, due, data)
        record = Record(
            "timer",
            actor.tenant,
            key(actor.room_id, name),
            {"name": name, "data": data},
            actor.room_id,
            due,
        )
        self._engine.write_soon(Batch(actor.tenant, self._engine.epoch, put=(record,)))

    def _arm(self, tenant: str, room_id: str, name: str, due: float, data: dict[str, Any]) -> None:
        self._due[tenant, room_id, name] = (due, data)
        heapq.heappush(self._heap, (due, tenant, room_id, name))
        self._wakeup.set()

    async def load(self) -> None:
        """Arms everything that was armed before a restart; what came due meanwhile rings at once."""
        offset = 0
        while True:
            page = await self._engine.store.records(
                RecordQuery("timer", None, due_before=float("inf"), offset=offset, limit=1000)
            )
            for record in page:
                name = record.value["name"]
                self._arm(record.tenant, record.room_id or "", name, record.due or 0.0, record.value["data"])
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
            wait = LONGEST_SLEEP
            if self._heap:
                wait = min(wait, max(0.0, self._heap[0][0] - self._engine.now().timestamp()))
            try:
                async with asyncio.timeout(wait):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    async def _ring(self, tenant: str, room_id: str, name: str, data: dict[str, Any]) -> None:
        """What cannot be done now, because the store fails or the kit closes, rings again at the next start."""
        await self._engine.insist(lambda: self._look(tenant, room_id, name, data), f"timer {name} of {room_id}")
        if (tenant, room_id, name) not in self._due:
            gone = RecordKey("timer", tenant, key(room_id, name))
            self._engine.write_soon(Batch(tenant, self._engine.epoch, delete=(gone,)))

    async def _look(self, tenant: str, room_id: str, name: str, data: dict[str, Any]) -> None:
        actor = await self._engine.table.actor(tenant, room_id)
        if actor is not None:
            await alarms.ring(actor, name, data)
