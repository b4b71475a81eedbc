"""Finding what a call means: the rooms of a search, the running turn of a directive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roomkit.core.state import room_of
from roomkit.errors import UsageError
from roomkit.models.room import Room
from roomkit.models.steering import Cancel, SteeringDirective
from roomkit.ports.store import RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine


async def find_rooms(
    engine: Engine, tenant: str, q: str, terms: tuple[str, ...], limit: int, offset: int
) -> list[Room]:
    """Rooms with all the terms, and where there is a `q` with it as a name, an address, a person or an id as well."""
    if not q:
        return await _rooms(engine, tenant, terms, limit, offset)
    names = tuple(f"name:{word}" for word in q.casefold().split())
    ways = [(f"address:{q}",), (f"person:{q}",), (f"external:{q}",), names]
    seen: dict[str, Room] = {}
    direct = await engine.table.look(tenant, q)
    if direct is not None and not terms:
        seen[q] = direct.snapshot()
    for way in ways:
        for room in await _rooms(engine, tenant, (*terms, *way), limit + offset, 0):
            seen.setdefault(room.id, room)
    return list(seen.values())[offset : offset + limit]


async def _rooms(engine: Engine, tenant: str, terms: tuple[str, ...], limit: int, offset: int) -> list[Room]:
    query = RecordQuery("room", tenant, terms=terms, order="activity", limit=limit, offset=offset)
    return [await _with_head(engine, tenant, record.value) for record in await engine.store.records(query)]


async def _with_head(engine: Engine, tenant: str, value: dict[str, Any]) -> Room:
    room = room_of(value)
    state = await engine.table.look(tenant, room.id)
    return state.snapshot() if state is not None else room


def steer(engine: Engine, actor: RoomActor, directive: SteeringDirective, channel_id: str | None) -> None:
    """Hands the directive to the channel whose turn runs; of one that takes none, `Cancel` ends the turn."""
    turns = dict(engine.turns.running(actor))
    if channel_id is None:
        if not turns:
            raise UsageError(f'no AI is at work in room "{actor.room_id}"; whisper() reaches the next turn')
        if len(turns) > 1:
            raise UsageError(f'several AIs are at work in room "{actor.room_id}" ({", ".join(turns)}); pass channel_id')
        channel_id = next(iter(turns))
    channel: Any = engine.channels.get(channel_id)
    if hasattr(channel, "steer"):
        channel.steer(directive, room_id=actor.room_id, tenant=actor.tenant)
    elif not isinstance(directive, Cancel):
        raise UsageError(f'channel "{channel_id}" takes no {type(directive).__name__}; only Cancel works on it')
    elif channel_id in turns:
        turns[channel_id].cancel(directive.reason)
