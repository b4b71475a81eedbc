"""`roomkit replay ROOM`: a room as its log tells it, up to any point."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from roomkit.cli.console import clean, paint, say
from roomkit.cli.stores import reading, room_named
from roomkit.core.actor import RoomActor
from roomkit.core.history import projected
from roomkit.core.streams import INTERNAL
from roomkit.models.content import SystemContent, ToolCallContent
from roomkit.models.event import EventStatus, EventType, RoomEvent
from roomkit.ports.store import EventQuery

PAGE = 500


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    room: str
    store: str | None = None
    to: int | None = None
    tenant: str = "default"
    raw: bool = False
    json: bool = False


def replay_room(options: ReplayOptions) -> int:
    """Prints the room. Raises what the store raises, and `StateError` where it is not there."""
    return asyncio.run(_replay(options))


async def _replay(options: ReplayOptions) -> int:
    async with reading(options.store) as engine:
        room_id = await room_named(engine, options.tenant, options.room)
        actor = await engine.table.require(options.tenant, room_id)
        if not options.json:
            room = actor.state.snapshot()
            say(
                paint(
                    f"room {clean(room.id)}, {room.status}, floor {room.floor.mode}, {room.event_count} events", "bold"
                )
            )
        names = {person.id: person.display_name or person.id for person in actor.state.people}
        async for event in _events(actor, options):
            say(event.model_dump_json() if options.json else _line(event, names))
    return 0


async def _events(actor: RoomActor, options: ReplayOptions) -> AsyncIterator[RoomEvent]:
    stop = actor.state.next_index if options.to is None else min(options.to + 1, actor.state.next_index)
    for start in range(0, stop, PAGE):
        query = EventQuery(actor.tenant, actor.room_id, start=start, stop=min(start + PAGE, stop), limit=PAGE)
        page = await actor.engine.store.events(query)
        for event in page if options.raw else await projected(actor, page, INTERNAL):
            yield event


def _line(event: RoomEvent, names: dict[str, str]) -> str:
    source = event.source
    who = names.get(source.participant_id or "", source.participant_id or source.external_id or "")
    where = source.channel_id if not who or who == source.channel_id else f"{source.channel_id} {who}"
    marks = [event.visibility] if event.visibility != "all" else []
    if event.blocked:
        marks.append(f"blocked by {event.blocked_by}" + (f": {event.blocked_reason}" if event.blocked_reason else ""))
    if event.status is EventStatus.DRAFT:
        marks.append("draft")
    marks += [name for name in ("edited", "deleted") if event.metadata.get(name)]
    body = clean(_told(event)).replace("\n", "\n" + " " * 32)
    tail = paint(f"  [{clean(', '.join(marks))}]", "dim") if marks else ""
    stamp = event.created_at.strftime("%Y-%m-%d %H:%M:%S")
    return f"{event.index:>6}  {paint(stamp, 'dim')}  {paint(clean(where), 'cyan')}: {body}{tail}"


def _told(event: RoomEvent) -> str:
    content = event.content
    if isinstance(content, SystemContent):
        facts = " ".join(f"{name}={value}" for name, value in content.data.items() if value not in (None, "", [], {}))
        return " ".join(filter(None, (content.code, content.message, facts)))
    if isinstance(content, ToolCallContent):
        outcome = content.result if content.error is None else content.error
        return f"{content.name}({content.arguments}) {content.status}" + (f": {outcome}" if outcome else "")
    text = event.text
    if event.type is EventType.MESSAGE:
        return text or f"<{content.type}>"
    return f"{event.type}: {text}" if text else f"{event.type} {content.model_dump(mode='json', exclude={'type'})}"
