"""Reading a room back: by index from the tail, filtered by the one visibility rule, edits projected (D21)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from roomkit.core.state import key
from roomkit.core.streams import Viewer
from roomkit.models.content import EditContent, SystemContent
from roomkit.models.event import CONVERSATION_TYPES, EventType, RoomEvent
from roomkit.ports.store import EventQuery, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

PROMPT_TYPES = CONVERSATION_TYPES | {EventType.NOTE, EventType.TOOL_CALL_START, EventType.TOOL_CALL_END}
PAGE = 200


def history_reader(engine: Engine, actor: RoomActor, channel_id: str) -> Callable[[int], Awaitable[list[RoomEvent]]]:
    """What a channel may see of the conversation, oldest first, at most `limit` events, newest at the end."""

    async def read(limit: int) -> list[RoomEvent]:
        viewer = Viewer(channel_id=channel_id)
        found: list[RoomEvent] = []
        stop: int | None = None
        while len(found) < limit and stop != 0:
            query = EventQuery(
                actor.tenant, actor.room_id, stop=stop, limit=min(PAGE, max(limit * 2, 20)), newest_first=True
            )
            page = await engine.store.events(query)
            if not page:
                break
            seats = actor.state.bindings
            found += [event for event in page if event.type in PROMPT_TYPES and viewer.sees(event, seats)]
            stop = page[-1].index
        kept = found[:limit]
        kept.reverse()
        return await projected(engine, actor.tenant, actor.room_id, kept)

    return read


async def projected(engine: Engine, tenant: str, room_id: str, events: Iterable[RoomEvent]) -> list[RoomEvent]:
    """The same events as they read today: edited text in place, deleted ones marked."""
    events = list(events)
    if not events:
        return events
    low, high = events[0].index, events[-1].index
    marks: dict[int, dict[str, Any]] = {}
    after = None if low <= 0 else key(room_id, low - 1)
    while True:
        page = await engine.store.records(RecordQuery("mutation", tenant, room_id=room_id, after=after, limit=500))
        marks.update({record.value["index"]: record.value for record in page})
        if len(page) < 500 or page[-1].value["index"] >= high:
            break
        after = page[-1].key
    if not marks:
        return events
    return [_project(event, marks.get(event.index)) for event in events]


def _project(event: RoomEvent, mark: dict[str, Any] | None) -> RoomEvent:
    if mark is None:
        return event
    update: dict[str, object] = {}
    metadata = dict(event.metadata)
    if mark.get("edit") is not None:
        edit = EditContent.model_validate(mark["edit"])
        update["content"] = edit.new_content
        metadata["edited"] = True
    if mark.get("deleted"):
        metadata["deleted"] = True
        update["content"] = SystemContent(code="deleted", message="", data={"reason": mark.get("reason")})
    if mark.get("reactions"):
        metadata["reactions"] = mark["reactions"]
    update["metadata"] = metadata
    return event.model_copy(update=update)
