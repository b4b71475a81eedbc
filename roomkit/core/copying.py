"""Writing a whole room into the store: events first, what makes it a room last, so that a cut copy is no room yet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from roomkit.core.messages import altered
from roomkit.core.state import binding_record, key, participant_record, room_record
from roomkit.errors import RoomNotFound, StateError, UsageError
from roomkit.models.content import DeleteContent, EditContent, ReactionContent
from roomkit.models.event import EventStatus, RoomEvent
from roomkit.models.room import ChannelBinding, Participant, Room
from roomkit.ports.store import Batch, EventQuery, Record, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

_BLOB = re.compile(r'"blob:([A-Za-z0-9_-]+)"')
AT_ONCE = 500
BREATH = 100
T = TypeVar("T")


async def write_room(
    engine: Engine,
    room: Room,
    bindings: Sequence[ChannelBinding],
    people: Sequence[Participant],
    events: Sequence[RoomEvent],
    records: Sequence[Record] = (),
    finish: Callable[[Callable[[], Awaitable[object]]], Awaitable[object]] | None = None,
    undo: Callable[[], Awaitable[object]] | None = None,
) -> RoomActor:
    """Stores the room with its whole log and loads it; nothing is sent, asked or timed. What a crash has cut is
    finished by doing the same again; a caller who stops waiting cuts nothing. `finish` does the last step, which makes
    it a room, or refuses to; `undo` takes back what was written here and became none. Raises `StateError` where the
    room, or another log in its place, exists."""
    key, writing = (room.tenant, room.id), engine.table.writing
    while (busy := writing.get(key)) is not None:
        await asyncio.shield(busy)
    gate = writing[key] = asyncio.get_running_loop().create_future()

    def written() -> None:
        del writing[key]
        gate.set_result(None)

    work = _write(engine, room, bindings, people, events, records, finish, undo)
    return await engine.scope.complete(work, name=f"write {room.id}", then=written)


async def _write(
    engine: Engine,
    room: Room,
    bindings: Sequence[ChannelBinding],
    people: Sequence[Participant],
    events: Sequence[RoomEvent],
    records: Sequence[Record],
    finish: Callable[[Callable[[], Awaitable[object]]], Awaitable[object]] | None,
    undo: Callable[[], Awaitable[object]] | None,
) -> RoomActor:
    tenant, room_id, store = room.tenant, room.id, engine.store
    if await engine.table.look(tenant, room_id) is not None:
        raise StateError(f'room "{room_id}" exists already; choose another id')
    epoch = engine.epoch if engine.nodes is None else await engine.nodes.acquire(tenant, room_id)
    done = await _written(engine, tenant, room_id, events)
    try:
        for first in range(done, len(events), AT_ONCE):
            page = tuple(events[first : first + AT_ONCE])
            await store.commit(Batch(tenant, epoch, room_id, events=page))
        for first in range(0, len(records), AT_ONCE):
            await store.commit(Batch(tenant, epoch, room_id, put=tuple(records[first : first + AT_ONCE])))
        seats = [*map(binding_record, bindings), *map(participant_record, people), room_record(room, bindings, people)]
        last = Batch(tenant, epoch, room_id, put=tuple(seats), activity_at=room.last_activity_at)
        await (store.commit(last) if finish is None else finish(partial(store.commit, last)))
    except BaseException:
        if undo is not None and await engine.table.look(tenant, room_id) is None:
            await undo()
        raise
    actor = await engine.table.actor(tenant, room_id)
    if actor is None:
        raise RoomNotFound(room_id)
    if actor.state.room.waiting_since is not None:
        engine.attention.changed(actor)
    return actor


async def _written(engine: Engine, tenant: str, room_id: str, events: Sequence[RoomEvent]) -> int:
    """How many of the events an earlier attempt has written."""
    heads = await engine.store.records(RecordQuery("head", tenant, key=room_id))
    done = heads[0].value["next_index"] if heads else 0
    last = await engine.store.events(EventQuery(tenant, room_id, start=done - 1, limit=1)) if done else []
    if done > len(events) or (last and last[0] != events[done - 1]):
        raise StateError(f'there is another log under the id "{room_id}"; choose another id')
    for first in range(done, len(events), AT_ONCE):
        ids = tuple(event.id for event in events[first : first + AT_ONCE])
        if found := await engine.store.events(EventQuery(tenant, "", ids=ids)):
            raise UsageError(
                f'event {found[0].id} is here already, in room "{found[0].room_id}"; '
                "import into another tenant, or fork that room"
            )
    return done


async def drop(engine: Engine, tenant: str, urls: Iterable[str]) -> None:
    """Deletes the files of a copy that came to nothing."""
    if engine.blobs is not None:
        for url in urls:
            await engine.blobs().delete(tenant, url.removeprefix("blob:"))


def blobs_in(text: str) -> list[str]:
    """The ids of the stored files that a JSON text names."""
    return _BLOB.findall(text)


def marks(tenant: str, room_id: str, events: Sequence[RoomEvent]) -> list[Record]:
    """The marks of edits, deletions and reactions, made anew from the log."""
    by_id = {event.id: event for event in events}
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        content = event.content
        if event.status is not EventStatus.COMMITTED:
            continue
        if isinstance(content, EditContent | DeleteContent | ReactionContent):
            target = by_id.get(content.target_event_id)
            if target is None:
                continue
            mark = found.get(target.index, {"index": target.index})
            found[target.index] = altered(mark, event, event.visibility, target)
            if isinstance(content, EditContent):
                found[event.index] = {"index": event.index, "of": target.index}
    return [Record("mutation", tenant, key(room_id, i), mark, room_id) for i, mark in sorted(found.items())]


async def breathing(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, and after every few of them everybody else's turn: a long log must not hold up the loop."""
    for number, item in enumerate(items):
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        yield item


def renamed(value: Any, names: dict[str, str]) -> Any:
    """The same JSON with every text that is one of `names` replaced by what it is called now."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {name: renamed(inner, names) for name, inner in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [renamed(inner, names) for inner in value]  # pyright: ignore[reportUnknownVariableType]
    return value
