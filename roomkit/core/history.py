"""Reading a room back: by index from the tail, filtered by the one visibility rule, edits projected (D21)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from roomkit.core.state import key
from roomkit.core.streams import Viewer
from roomkit.errors import RoomKitError
from roomkit.models.content import EditContent, SystemContent, ToolCallContent
from roomkit.models.event import CONVERSATION_TYPES, EventType, RoomEvent
from roomkit.models.room import ChannelBinding
from roomkit.ports.channel import MediaReader
from roomkit.ports.store import EventQuery, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

PROMPT_TYPES = CONVERSATION_TYPES | {EventType.NOTE, EventType.TOOL_CALL_START, EventType.TOOL_CALL_END}
PAGE = 200


def history_reader(engine: Engine, actor: RoomActor, channel_id: str) -> Callable[[int], Awaitable[list[RoomEvent]]]:
    """What a channel may see of the conversation, oldest first, at most `limit` events, newest at the end."""
    return partial(read_history, engine, actor, channel_id)


async def read_history(engine: Engine, actor: RoomActor, channel_id: str, limit: int) -> list[RoomEvent]:
    """The newest `limit` events of what the channel may see of the conversation, oldest first."""
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
    return await projected(actor, kept, viewer)


def media_reader(engine: Engine, actor: RoomActor) -> MediaReader:
    """Reads files of this room, or of none; those of another room are not there, whoever names them."""

    async def read(url: str, at_most: int) -> bytes | None:
        if engine.blobs is None or not url.startswith("blob:"):
            return None
        blob_id = url.removeprefix("blob:")
        try:
            blobs = engine.blobs()
            info = await blobs.info(actor.tenant, blob_id)
            if info is None or info.room_id not in (None, actor.room_id) or info.size_bytes > at_most:
                return None
            return b"".join([chunk async for chunk in blobs.read(actor.tenant, blob_id)])
        except (OSError, RoomKitError) as error:
            engine.warn(actor, f"a file was not read: {error}")
            return None

    return read


def recorded_answers(actor: RoomActor) -> Callable[[ToolCallContent], Awaitable[ToolCallContent | None]] | None:
    """Of a fork, what the tools said in the original; else None."""
    if actor.state.room.forked_from is None:
        return None
    from roomkit.core.fork import answers

    return answers(actor)


async def projected(actor: RoomActor, events: Iterable[RoomEvent], viewer: Viewer) -> list[RoomEvent]:
    """The same events as they read today for `viewer`: the last edit that it may see in place, deleted ones marked,
    and no older words in what edited them."""
    events, engine, tenant, room_id = list(events), actor.engine, actor.tenant, actor.room_id
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
    for target in {mark["of"] for mark in marks.values() if "of" in mark} - marks.keys():
        for record in await engine.store.records(RecordQuery("mutation", tenant, key=key(room_id, target))):
            marks[target] = record.value
    sees = partial(_sees, viewer, actor.state.bindings)
    return [_project(event, marks, sees) if event.index in marks else event for event in events]


def _sees(viewer: Viewer, bindings: Mapping[str, ChannelBinding], mark: Mapping[str, Any]) -> bool:
    return viewer.sees_visibility(mark["visibility"], mark["channel"], bindings, mark.get("by"))


def _words(mark: Mapping[str, Any], sees: Callable[[Mapping[str, Any]], bool]) -> Any:
    """What stands in place of the original for who sees this, None when it is the original."""
    found = next((edit for edit in reversed(mark.get("edits", ())) if sees(edit)), None)
    return None if found is None else EditContent.model_validate(found["content"]).new_content


def _project(
    event: RoomEvent, marks: Mapping[int, Mapping[str, Any]], sees: Callable[[Mapping[str, Any]], bool]
) -> RoomEvent:
    mark = marks[event.index]
    if "of" in mark:
        return _edit_today(event, marks.get(mark["of"], {}), sees)
    update: dict[str, object] = {}
    metadata = dict(event.metadata)
    words = _words(mark, sees)
    if words is not None:
        update["content"] = words
        metadata["edited"] = True
    if mark.get("deleted"):
        metadata["deleted"] = True
        told = "told" not in mark or sees(mark["told"])
        reason = {"reason": mark.get("reason")} if told else {}
        update["content"] = SystemContent(code="deleted", message="", data=reason)
    reactions = {emoji: _people(marks, sees) for emoji, marks in mark.get("reactions", {}).items()}
    if any(reactions.values()):
        metadata["reactions"] = {emoji: people for emoji, people in reactions.items() if people}
    update["metadata"] = metadata
    return event.model_copy(update=update)


def _people(reacted: Iterable[Any], sees: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """Who of those that reacted did so before the eyes of who sees this."""
    return [one if isinstance(one, str) else one["who"] for one in reacted if isinstance(one, str) or sees(one)]


def _edit_today(event: RoomEvent, target: Mapping[str, Any], sees: Callable[[Mapping[str, Any]], bool]) -> RoomEvent:
    """An edit says what its target says now: words that were taken back are in nobody's reach."""
    gone = SystemContent(code="deleted", message="", data={})
    words = gone if target.get("deleted") else _words(target, sees)
    if words is None or not isinstance(event.content, EditContent):
        return event
    return event.replaced(content=event.content.replaced(new_content=words))
