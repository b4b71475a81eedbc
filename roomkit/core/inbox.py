"""Inbox: turns what the host has written in its own transactions into events, each exactly once.

A row is taken by sending it under its own idempotency key and deleted after that, so that a crash in between changes
nothing. Where several processes share the store one of them does it for a tenant, under a lease whose epoch every
deletion carries.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import TypeAdapter

from roomkit.errors import Elsewhere, Fenced, Overloaded, RoomKitError, StoreUnavailable
from roomkit.models.content import Content
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
KIND, REFUSED = "inbox", "inbox_refused"
LOOK_EVERY_S = 5.0
PAGE = 100
MOST_PAGES = 10
"""So many pages with rooms that are news are read at a time."""
AT_ONCE = 16
"""Rooms of one tenant of which rows are taken at the same time."""
_OWN = "~inbox"
_CONTENT: TypeAdapter[Any] = TypeAdapter(Content)
_numbers = itertools.count()
Room = tuple[str, str]
"""(tenant, room)."""


class HostInbox(Protocol):
    """What a store with an inbox gives."""

    async def insert(self, connection: Any, tenant: str, key: str, room_id: str, value: dict[str, Any]) -> None: ...
    async def wait(self, seconds: float) -> None: ...
    async def aclose(self) -> None: ...


def row_key(engine: Engine) -> str:
    """In the order of the calls within this process."""
    return f"{int(engine.now().timestamp() * 1000):012x}{next(_numbers):010x}{engine.new_id()[-8:]}"


def open_inbox(engine: Engine, surface: Callable[[str], Any]) -> None:
    """Takes what is enqueued from now on. `surface` gives the rooms of a tenant. Idempotent."""
    if engine.inbox is None:
        engine.inbox = cast("Any", engine.store).inbox()
        engine.scope.spawn(_Pump(engine, cast("HostInbox", engine.inbox), surface).run(), name="inbox")


class _Pump:
    """Every room is a line of its own, so many of a tenant at a time: one that takes long, or is out of reach, keeps
    its rows, in their order, and holds up no other."""

    def __init__(self, engine: Engine, inbox: HostInbox, surface: Callable[[str], Any]) -> None:
        self._engine = engine
        self._inbox = inbox
        self._surface = surface
        self._busy: set[Room] = set()
        self._waiting: dict[str, dict[Room, None]] = {}
        self._running: Counter[str] = Counter()
        self._epochs: dict[str, int] = {}

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._look()
                    await self._inbox.wait(LOOK_EVERY_S)
                except (Elsewhere, Fenced, StoreUnavailable):
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await self._inbox.aclose()

    async def _look(self) -> None:
        """Finds the rooms for which there is something."""
        offset = pages = 0
        while page := await self._engine.store.records(RecordQuery(KIND, None, limit=PAGE, offset=offset)):
            found = dict.fromkeys(room for row in page if (room := (row.tenant, row.room_id or "")) not in self._busy)
            for room in found:
                self._busy.add(room)
                self._waiting.setdefault(room[0], {})[room] = None
            for tenant in {room[0] for room in found}:
                self._go_on(tenant)
            offset += len(page)
            pages += bool(found)
            if len(page) < PAGE or pages >= MOST_PAGES:
                return

    def _go_on(self, tenant: str) -> None:
        waiting = self._waiting[tenant]
        while waiting and self._running[tenant] < AT_ONCE and not self._engine.scope.closed:
            room = next(iter(waiting))
            del waiting[room]
            self._running[tenant] += 1
            self._engine.scope.spawn(self._room(room), name=f"inbox of {room[1]}")

    async def _room(self, room: Room) -> None:
        tenant, room_id = room
        try:
            epoch = await self._epoch(tenant)
            query = RecordQuery(KIND, tenant, room_id=room_id, limit=PAGE)
            while rows := await self._engine.store.records(query):
                for row in rows:
                    await self._one(row, epoch)
        except (StoreUnavailable, Fenced, Elsewhere) as error:
            log.warning("enqueued messages for room %s wait until it can be reached: %s", room_id, error)
            self._epochs.pop(tenant, None)
            await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._busy.discard(room)
            self._running[tenant] -= 1
            self._go_on(tenant)

    async def _epoch(self, tenant: str) -> int:
        """Of several processes one takes what is a tenant's."""
        nodes = self._engine.nodes
        if nodes is None:
            return self._engine.epoch
        if tenant not in self._epochs:
            self._epochs[tenant] = await nodes.acquire(tenant, _OWN)
        return self._epochs[tenant]

    async def _one(self, row: Record, epoch: int) -> None:
        engine, put = self._engine, tuple[Record, ...]()
        refused = await _take(engine, self._surface(row.tenant), row)
        if refused is not None:
            engine.count("inbox_refused")
            log.warning("an enqueued message for room %s was refused: %s", row.room_id, refused)
            put = (Record(REFUSED, row.tenant, row.key, {**row.value, "room_id": row.room_id, "error": refused}),)
        gone = RecordKey(KIND, row.tenant, row.key)
        own = _OWN if engine.nodes is not None else None
        await engine.store.commit(Batch(row.tenant, epoch, own, delete=(gone,), put=put))


async def _take(engine: Engine, rooms: Any, row: Record) -> str | None:
    """Sends one; returns why it never can be."""
    value = dict(row.value)
    while True:
        try:
            content = _CONTENT.validate_python(value.pop("content"))
            key = value.pop("idempotency_key", None) or f"inbox:{row.key}"
            result = await rooms.send(row.room_id, content, **value, idempotency_key=key)
        except (StoreUnavailable, Fenced, Elsewhere):
            raise
        except Overloaded:
            await asyncio.sleep(0.1)
            value = dict(row.value)
        except (RoomKitError, ValueError, TypeError, KeyError) as error:
            return f"{type(error).__name__}: {error}"
        else:
            engine.count("inbox_taken")
            return result.reason if result.event is None else None
