"""Inbox: turns what the host has written in its own transactions into events, each exactly once.

A row is taken by sending it under its own idempotency key and deleted after that, so that a crash in between changes
nothing. Where several processes share the store one of them does it, under a lease.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import TypeAdapter

from roomkit.errors import Elsewhere, Fenced, Overloaded, RoomKitError, StoreUnavailable
from roomkit.models.content import Content
from roomkit.ports.store import Batch, Record, RecordKey, RecordQuery
from roomkit.runtime import bounded

if TYPE_CHECKING:
    from roomkit.core.engine import Engine

log = logging.getLogger(__name__)
KIND, REFUSED = "inbox", "inbox_refused"
LOOK_EVERY_S = 5.0
PAGE = 100
REACH_S = 3.0
"""How long a room may take over one message before the others go on. What is done nevertheless is done once: it has
a key."""
_OWN = "~inbox"
_CONTENT: TypeAdapter[Any] = TypeAdapter(Content)
_numbers = itertools.count()


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
        engine.scope.spawn(_pump(engine, cast("HostInbox", engine.inbox), surface), name="inbox")


async def _pump(engine: Engine, inbox: HostInbox, surface: Callable[[str], Any]) -> None:
    try:
        while True:
            try:
                nodes = engine.nodes
                epoch = engine.epoch if nodes is None else await nodes.acquire("default", _OWN)
                while True:
                    await _take_all(engine, surface, epoch)
                    await inbox.wait(LOOK_EVERY_S)
            except (Elsewhere, Fenced, StoreUnavailable):
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await inbox.aclose()


async def _take_all(engine: Engine, surface: Callable[[str], Any], epoch: int) -> None:
    """Takes what can be taken. A room that is out of reach keeps its rows, in their order, and holds up no other."""
    away: set[tuple[str, str | None]] = set()
    left = 0
    while page := await engine.store.records(RecordQuery(KIND, None, limit=PAGE, offset=left)):
        for row in page:
            room = (row.tenant, row.room_id)
            if room in away:
                left += 1
                continue
            try:
                refused = await bounded(_take(engine, surface(row.tenant), row), REACH_S, "it takes too long")
            except (StoreUnavailable, Fenced, Elsewhere, TimeoutError) as error:
                log.warning("enqueued messages for room %s wait until it can be reached: %s", row.room_id, error)
                away.add(room)
                left += 1
                continue
            put: tuple[Record, ...] = ()
            if refused is not None:
                engine.count("inbox_refused")
                log.warning("an enqueued message for room %s was refused: %s", row.room_id, refused)
                put = (Record(REFUSED, row.tenant, row.key, {**row.value, "room_id": row.room_id, "error": refused}),)
            gone = RecordKey(KIND, row.tenant, row.key)
            await engine.store.commit(Batch(row.tenant, epoch, delete=(gone,), put=put))


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
