"""Fork: a copy of a room up to an event, to try another prompt or model. Nothing leaves it, and no tool runs in it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from roomkit.core.actor import SYSTEM
from roomkit.core.copying import blobs_in, breathing, drop, marks, renamed, write_room
from roomkit.core.erasure import ERASING
from roomkit.core.policy import may_see, require_room_id
from roomkit.core.results import Settlement
from roomkit.core.state import all_of
from roomkit.errors import StateError, UsageError
from roomkit.models.content import SystemContent, ToolCallContent
from roomkit.models.event import EventType, RoomEvent
from roomkit.models.room import Category, ChannelBinding, Origin, Room
from roomkit.ports.store import Batch, EventQuery, RecordKey, RecordQuery

if TYPE_CHECKING:
    from roomkit.core.actor import RoomActor
    from roomkit.core.engine import Engine

PAGE = 500


async def fork_room(
    engine: Engine,
    original: RoomActor,
    at: int | None,
    new_id: str | None,
    channels: Sequence[str] | None,
    ask: str | None,
) -> Room:
    """Copies events 0 to `at` under new ids, with the people and the intelligence channels of the room (or `channels`);
    then has channel `ask` answer the last of them, or the last message before that is not its own and that it may see,
    and waits for it."""
    at = original.state.next_index - 1 if at is None else at
    if not 0 <= at < original.state.next_index:
        raise UsageError(f'room "{original.room_id}" has no event {at}; its last is {original.state.next_index - 1}')
    room_id = new_id or engine.new_id()
    require_room_id(room_id)
    erased = RecordQuery(ERASING, original.tenant, key=original.room_id)
    mark = await engine.store.records(erased)

    async def whole(original: RoomActor, commit: Callable[[], Awaitable[object]]) -> None:
        """Within the original, so that nobody is erased from it meanwhile: the copy would still have them."""
        if await engine.store.records(erased) != mark:
            raise StateError(f'somebody was erased from room "{original.room_id}" during this fork; fork it again')
        await commit()

    bindings = _seats(engine, original, room_id, channels, ask)
    log = await _events(engine, original, at)
    question = _question(log, next((seat for seat in bindings if seat.channel_id == ask), None))
    now = engine.now()
    room = _room(original.state.room, room_id, log[-1], now)
    people = [person.replaced(room_id=room_id) for person in original.state.people]

    async def written() -> tuple[RoomActor, RoomEvent]:
        copies = await _files(engine, original, room_id, log)
        names = {event.id: engine.new_id(event.created_at) for event in log} | copies
        events = [event async for event in breathing(_copied(event, room_id, names) for event in log)]
        records = marks(room.tenant, room_id, events)
        finish, undo = partial(original.call, whole), partial(_take_back, engine, room.tenant, room_id)
        try:
            return await write_room(engine, room, bindings, people, events, records, finish, undo), events[question]
        except BaseException:
            there = await engine.table.look(room.tenant, room_id)
            if there is None or there.room.created_at != now:  # it became no room, or is another one
                await drop(engine, room.tenant, copies.values())
            raise

    # A caller who hangs up cuts nothing: the files of half a fork nobody would find to erase somebody from them.
    actor, asked = await engine.scope.complete(written(), name=f"fork {original.room_id}")
    if ask is not None:
        settlement = Settlement()
        engine.turns.enqueue(actor, ask, asked, settlement)
        await settlement.wait()
    return actor.state.snapshot()


def _room(old: Room, room_id: str, last: RoomEvent, now: datetime) -> Room:
    return Room(
        id=room_id,
        tenant=old.tenant,
        created_at=now,
        updated_at=now,
        metadata=old.metadata,
        language=old.language,
        agent_response_policy=old.agent_response_policy,
        delivery=old.delivery,
        forked_from=Origin(room_id=old.id, index=last.index, event_id=last.id),
        last_activity_at=now,
    )


def _question(log: list[RoomEvent], seat: ChannelBinding | None) -> int:
    """Which event is to be answered. A note among the staff is shown to no model, also when somebody forks there."""
    if seat is None:
        return -1
    for event in reversed(log):
        others = event.source.channel_id != seat.channel_id and may_see(event, seat)
        if others and (event.type is EventType.MESSAGE or event is log[-1]):
            return event.index
    raise UsageError(f'"{seat.channel_id}" may see no message up to event {log[-1].index}; fork further on (--at)')


async def _events(engine: Engine, original: RoomActor, at: int) -> list[RoomEvent]:
    log: list[RoomEvent] = []
    while len(log) <= at:
        query = EventQuery(original.tenant, original.room_id, start=len(log), stop=at + 1, limit=PAGE)
        log += await engine.store.events(query)
    return log


async def _files(engine: Engine, original: RoomActor, room_id: str, log: list[RoomEvent]) -> dict[str, str]:
    """Copies the files that the events name: a room reads only its own. Returns what their URLs are called now."""
    named = {one for event in log for one in blobs_in(event.model_dump_json(include={"content", "metadata"}))}
    names: dict[str, str] = {}
    if not named or engine.blobs is None:
        return names
    blobs = engine.blobs()
    for blob_id in sorted(named):
        info = await blobs.info(original.tenant, blob_id)
        if info is not None and info.room_id == original.room_id:
            data = blobs.read(original.tenant, blob_id)
            new = await blobs.put(
                original.tenant, data, mime_type=info.mime_type, filename=info.filename, room_id=room_id
            )
            names[f"blob:{blob_id}"] = f"blob:{new.id}"
    return names


async def _take_back(engine: Engine, tenant: str, room_id: str) -> None:
    """What became no room nobody would find to erase somebody from it."""
    epoch = engine.epoch if engine.nodes is None else await engine.nodes.acquire(tenant, room_id)
    marked = await all_of(engine.store, "mutation", tenant, room_id)
    gone = tuple(RecordKey(mark.kind, tenant, mark.key) for mark in marked)
    await engine.store.commit(Batch(tenant, epoch, room_id, delete=gone))
    start = 0
    while page := await engine.store.events(EventQuery(tenant, room_id, start=start, limit=PAGE)):
        await engine.store.commit(Batch(tenant, epoch, room_id, erase=tuple(map(_blank, page))))
        start = page[-1].index + 1


def _blank(event: RoomEvent) -> RoomEvent:
    content = SystemContent(code="deleted", data={"reason": "erased"})
    metadata = {"deleted": True, "erased": True}
    return event.replaced(source=SYSTEM, content=content, metadata=metadata, channel_data={}, blocked_reason=None)


def _copied(event: RoomEvent, room_id: str, names: dict[str, str]) -> RoomEvent:
    value = renamed(event.model_dump(mode="json"), names)
    return RoomEvent.model_validate({**value, "room_id": room_id}).replaced(idempotency_key=None)


def _seats(
    engine: Engine, original: RoomActor, room_id: str, channels: Sequence[str] | None, ask: str | None
) -> list[ChannelBinding]:
    """Copies of seats have their settings; a transport is left out, because it would bring in what people write."""
    old = {b.channel_id: b for b in original.state.seats if b.category is Category.INTELLIGENCE}
    wanted = list(channels) if channels is not None else list(old)
    if ask is not None and ask not in wanted:
        wanted.append(ask)
    found: list[ChannelBinding] = []
    for channel_id in wanted:
        if channel_id in old:
            found.append(old[channel_id].replaced(room_id=room_id))
            continue
        channel = engine.registry.require(channel_id, original.tenant)
        if channel.category is not Category.INTELLIGENCE:
            raise UsageError(f'channel "{channel_id}" is no AI: nothing leaves a fork, so it has no place in one')
        found.append(engine.registry.seat(channel, room_id, original.tenant))
    return found


def answers(actor: RoomActor) -> Callable[[ToolCallContent], Awaitable[ToolCallContent | None]]:
    """What the same call, by name and arguments, came to in the original: the first one after the fork's last event,
    else the latest before it. Of a fork of a fork, in whichever of them it was made."""

    async def answer(call: ToolCallContent) -> ToolCallContent | None:
        origin, asked = actor.state.room.forked_from, _fingerprint(call)
        while origin is not None:
            before: ToolCallContent | None = None
            for reply, made in await _journal(actor, origin.room_id):
                if _fingerprint(made) != asked or made.status == "pending":
                    continue
                if reply > origin.event_id:  # Ids begin with their time.
                    return made
                before = made
            if before is not None:
                return before
            room = await actor.engine.store.records(RecordQuery("room", actor.tenant, key=origin.room_id))
            origin = Room.model_validate(room[0].value).forked_from if room else None
        return None

    return answer


def _fingerprint(call: ToolCallContent) -> str:
    return json.dumps([call.name, call.arguments], sort_keys=True)


async def _journal(actor: RoomActor, room_id: str) -> list[tuple[str, ToolCallContent]]:
    """The calls of a room with the replies that made them, in the order of these."""
    found: list[tuple[str, ToolCallContent]] = []
    after: str | None = None
    while True:
        query = RecordQuery("journal", actor.tenant, room_id=room_id, after=after, limit=PAGE)
        page = await actor.engine.store.records(query)
        for record in page:
            value = {k: v for k, v in record.value.items() if k in ToolCallContent.model_fields}
            found.append((str(record.value["reply"]), ToolCallContent.model_validate(value)))
        if len(page) < PAGE:
            return found
        after = page[-1].key
