"""Opening a gapless view of a room: what was missed, then everything live."""

from __future__ import annotations

from roomkit.core.actor import RoomActor
from roomkit.core.history import projected
from roomkit.core.streams import Deliver, View, Viewer
from roomkit.ports.store import EventQuery

MAX_MISSED = 1_000
"""A viewer that missed more events than this is given the tail and told to start over."""


async def open_view(actor: RoomActor, viewer: Viewer, deliver: Deliver, after: int | None, tail: int) -> View:
    """Reads and subscribes within one operation of the actor, so that nothing falls between."""
    state, store = actor.state, actor.engine.store
    head = state.next_index - 1
    resync = after is not None and (after > head or head - after > MAX_MISSED)
    if after is not None and not resync:
        query = EventQuery(actor.tenant, actor.room_id, start=after + 1, limit=MAX_MISSED + 1)
    else:
        query = EventQuery(actor.tenant, actor.room_id, limit=tail, newest_first=True)
    page = await store.events(query) if head >= 0 and query.limit > 0 else []
    page = sorted(page, key=lambda e: e.index)
    events = [event for event in page if viewer.sees(event, state.bindings)]
    events = await projected(actor, events, viewer)
    leave, growing = actor.hub.join(viewer, deliver, state.bindings)
    return View(
        events=events,
        index=head,
        epoch=actor.engine.info.incarnation,
        resync=resync,
        room=state.snapshot(),
        bindings=list(state.bindings.values()),
        participants=list(state.participants.values()),
        streams=growing,
        close=leave,
        start=page[0].index if page else state.next_index,
    )
