# pyright: reportPrivateUsage=false
"""Planted bugs in what hosts do with rooms and people: copies, erasures, consumers, enqueued rows, whispers, and in the
rows of long replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from roomkit.core import erasure, fork, forwarding, inbound, inbox, policy, recovery, streams, transfer, turns
from roomkit.core.actor import RoomActor
from roomkit.core.consumers import Consumer
from roomkit.core.engine import Engine
from roomkit.core.holdings import Holdings
from roomkit.errors import Fenced, StoreError
from roomkit.models.event import RoomEvent
from roomkit.ports.store import Batch, Record, RecordKey
from roomkit.testing.simulation.planting import bug


async def _nothing(*_: Any, **__: Any) -> int:
    """In place of something that ought to happen."""
    return 0


def _none(*_: Any, **__: Any) -> None:
    """As `_nothing`, at once."""


# -- who is new, and who has no key ----------------------------------------------------------------------------------


async def _no_rooms(*_: Any) -> list[Any]:
    return []


@asynccontextmanager
async def _side_by_side(_: Holdings, *__: str) -> AsyncGenerator[None]:
    yield


bug("words without a key are sent twice", 200, (forwarding, "_make_once", _none), nodes=2, features=("keyless",))
bug("nobody is known again", 50, (inbound, "_open_rooms", _no_rooms), features=("newcomer",))
bug("two nodes open a room each", 100, (Holdings, "alone", _side_by_side), nodes=3, features=("newcomer",))

# -- erasures and copies ---------------------------------------------------------------------------------------------

_fork_write, _import_write = fork.write_room, transfer.write_room


async def _shorter(engine: Engine, room: Any, seats: Any, people: Any, events: Any, records: Any = ()) -> RoomActor:
    return await _fork_write(engine, room, seats, people, events[:-1], records)


async def _unwritten(engine: Engine, room: Any, seats: Any, people: Any, events: Any, records: Any = ()) -> RoomActor:
    """The room first, its log after that."""
    await _import_write(engine, room, seats, people, (), ())
    return await _import_write(engine, room, seats, people, events, records)


bug("an erasure leaves the rows beside the log", 50, (erasure, "_scrub_records", _nothing), features=("erase",))
bug("an erasure leaves the person", 50, (erasure, "_forget", _nothing), features=("erase",))
bug("a copy lacks its last event", 50, (fork, "write_room", _shorter), features=("fork",))
bug("a copy is a room before it is whole", 50, (transfer, "write_room", _unwritten), features=("import",))
bug("a tool runs in a fork", 200, (turns, "recorded_answers", _none), features=("fork",))

# -- consumers and enqueued rows -------------------------------------------------------------------------------------

_event, _save, _take = Consumer._event, Consumer._save, inbox._take


async def _noted_first(self: Consumer, event: RoomEvent) -> object:
    await _save(self, {event.room_id: event.index})
    return await _event(self, event)


async def _from_the_first(self: Consumer) -> None:
    self._cursors.clear()


async def _gone_first(engine: Engine, rooms: Any, row: Record) -> str | None:
    gone = RecordKey(inbox.KIND, row.tenant, row.key)
    try:
        await engine.store.commit(Batch(row.tenant, engine.epoch, delete=(gone,)))
        return await _take(engine, rooms, row)
    except (Fenced, StoreError):
        return None


async def _keyless(engine: Engine, rooms: Any, row: Record) -> str | None:
    return await _take(engine, rooms, row._replace(key=engine.new_id()))


bug("a consumer notes what it has not done", 200, (Consumer, "_event", _noted_first), features=("shop",))
bug("a consumer begins anew", 50, (Consumer, "_load", _from_the_first), features=("shop",))
bug("an enqueued row goes before it is sent", 200, (inbox, "_take", _gone_first), features=("enqueue",))
bug("an enqueued row has another key each time", 400, (inbox, "_take", _keyless), features=("enqueue",))

# -- whispers, and replies in several rows ---------------------------------------------------------------------------

_visible = policy.visible


def _loud(visibility: str, *more: Any) -> bool:
    return visibility.startswith("person:") or _visible(visibility, *more)


async def _the_end(_: RoomActor, record: Record) -> tuple[str, list[RecordKey]]:
    return record.value["text"], []


bug("a whisper is heard by all", 50, (policy, "visible", _loud), (streams, "visible", _loud), features=("tell",))
bug("only the end of a long reply is read back", 400, (recovery, "_kept_text", _the_end), features=("segments",))
