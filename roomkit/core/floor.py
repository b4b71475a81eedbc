"""Who answers: floor control, attention, whispers, notes and drafts (D26, D27). Every function runs in the actor."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from roomkit.core import approvals, messages, policy
from roomkit.core.actor import Change, Entry, RoomActor
from roomkit.core.inbound import DEDUPE_S
from roomkit.core.policy import EARLY_S, PERSON, ai_may_answer, require_seconds
from roomkit.core.results import InboundResult, Settlement
from roomkit.core.state import key
from roomkit.errors import ChannelNotFound, FloorTaken, RoomClosed, StateError, StoreUnavailable
from roomkit.models.content import Content, TextContent
from roomkit.models.event import EventDraft, EventSource, EventStatus, EventType, RoomEvent
from roomkit.models.room import Attention, Floor, FloorMode, Room, person_token
from roomkit.ports.store import Record, RecordQuery

HOST = "host"


def host_source(who: str, direction: str = "internal") -> EventSource:
    """The source of what a person does through the host's own surface rather than a channel."""
    return EventSource(channel_id=HOST, channel_type=HOST, direction=direction, participant_id=who)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def _changed(actor: RoomActor, floor: Floor, **more: Any) -> Room:
    return actor.state.room.model_copy(update={"floor": floor, "updated_at": actor.engine.now(), **more})


def _require_open(actor: RoomActor) -> None:
    if not actor.state.room.open:
        raise RoomClosed(actor.room_id, actor.state.room.status)


def _generation(old: Floor, mode: FloorMode) -> int:
    """Rises whenever the AI is not to answer: what it began before is void. Who may go on keeps what was begun."""
    return old.generation if ai_may_answer(Floor(mode=mode)) else old.generation + 1


async def _move(
    actor: RoomActor, floor: Floor, code: str, *, lease: float = 0, before: Entry | None = None, **data: Any
) -> Room:
    """Changes the floor and, in the same commit, ends what a machine is saying or gives it what waited for it."""
    change = Change()
    if lease:
        change.timers.append(actor.engine.timers.plan(actor, "floor", lease, {"generation": floor.generation}))
    if before is not None:
        change.add(before)
    keep = {} if floor.mode is FloorMode.WAITING else {"attention": None}
    change.room = _changed(actor, floor, **keep)
    had_attention = actor.state.room.attention is not None
    public = {"mode": floor.mode.value, "holder": floor.holder, "generation": floor.generation, "cause": code}
    change.system(EventType.FLOOR_CHANGED, "floor_changed", visibility="transport", **public, **data)
    if not ai_may_answer(floor):
        await actor.engine.turns.commit_cut(actor, change, code)
    else:
        await approvals.let_go(actor, change)
        await actor.commit(change)
    if had_attention and change.room.attention is None:
        actor.engine.attention.changed(actor)
    return actor.state.snapshot()


async def take_over(actor: RoomActor, who: str, force: bool, lease_s: float | None) -> Room:
    """A person takes the floor (compare-and-set): the running AI turn ends in the same step."""
    _require_open(actor)
    require_seconds(lease_s, "lease_s")
    floor = actor.state.room.floor
    if floor.mode is FloorMode.HUMAN and floor.holder not in (None, who) and not force:
        raise FloorTaken(actor.room_id, str(floor.holder))
    lease = lease_s or floor.lease_seconds
    taken = Floor(
        mode=FloorMode.HUMAN,
        holder=who,
        generation=floor.generation + 1,
        lease_seconds=lease,
        lease_until=actor.engine.now() + timedelta(seconds=lease),
    )
    return await _move(actor, taken, "take_over", lease=lease)


async def release(actor: RoomActor, who: str | None, note: str | None, mode: FloorMode = FloorMode.AI) -> Room:
    """Hands back; the note goes into the room first, where the AI reads it."""
    _require_open(actor)
    floor = actor.state.room.floor
    if who is not None and floor.mode is FloorMode.HUMAN and floor.holder != who:
        raise FloorTaken(actor.room_id, str(floor.holder))
    entry = _note(note, who or "host", "intelligence") if note else None
    freed = Floor(mode=mode, generation=_generation(floor, mode), lease_seconds=floor.lease_seconds)
    return await _move(actor, freed, "release", before=entry, note=bool(note))


async def set_floor(actor: RoomActor, mode: FloorMode, holder: str | None) -> Room:
    _require_open(actor)
    if mode is FloorMode.HUMAN:
        return await take_over(actor, holder or "host", True, None)
    floor = actor.state.room.floor
    moved = Floor(mode=mode, holder=holder, generation=_generation(floor, mode), lease_seconds=floor.lease_seconds)
    return await _move(actor, moved, "set")


async def lease_due(actor: RoomActor, generation: int) -> None:
    """The lease of a holder who has gone quiet lapses: the room waits for somebody."""
    floor = actor.state.room.floor
    if floor.mode is not FloorMode.HUMAN or floor.generation != generation or floor.lease_until is None:
        return
    left = (floor.lease_until - actor.engine.now()).total_seconds()
    if left > EARLY_S:
        actor.engine.timers.set(actor, "floor", left, {"generation": generation})
        return
    if not actor.state.room.open:
        return
    # The call comes first: should the second commit fail, the timer rings again and both are there in the end.
    await request_human(actor, f"{floor.holder} went quiet", "system")
    waiting = Floor(mode=FloorMode.WAITING, generation=generation + 1, lease_seconds=floor.lease_seconds)
    await _move(actor, waiting, "lapsed", previous=floor.holder)


async def renew(actor: RoomActor, who: str) -> None:
    """What the holder does besides writing renews the lease, too."""
    floor = policy.renewed(actor.state.room.floor, who, actor.engine.now())
    if floor is None:
        return
    change = Change(activity=False)
    change.room = _changed(actor, floor)
    try:
        await actor.commit(change)
    except StoreUnavailable as error:  # what the holder did is done; the lease is renewed by what they do next
        actor.engine.warn(actor, f"the lease of {who} was not renewed: {error}")


async def request_human(actor: RoomActor, reason: str, by: str, priority: int = 0) -> Room:
    """Puts the room into the waiting queue; asking again keeps the clock running from the first time."""
    _require_open(actor)
    room = actor.state.room
    if room.attention is not None and room.attention.priority >= priority:
        return actor.state.snapshot()
    since = room.attention.since if room.attention else actor.engine.now()
    attention = Attention(reason=reason, requested_by=by, since=since, priority=priority)
    change = Change()
    change.room = room.model_copy(update={"attention": attention, "updated_at": actor.engine.now()})
    change.system(
        EventType.ATTENTION_CHANGED, "human_requested", visibility="transport", reason=reason, requested_by=by
    )
    await actor.commit(change)
    actor.engine.attention.changed(actor)
    return actor.state.snapshot()


async def clear_attention(actor: RoomActor, by: str) -> Room:
    if actor.state.room.attention is None:
        return actor.state.snapshot()
    change = Change()
    change.room = actor.state.room.model_copy(update={"attention": None, "updated_at": actor.engine.now()})
    change.system(EventType.ATTENTION_CHANGED, "attention_cleared", visibility="transport", by=by)
    await actor.commit(change)
    actor.engine.attention.changed(actor)
    return actor.state.snapshot()


async def write_note(
    actor: RoomActor, text: str, by: str, visibility: str = "internal", once: str | None = None
) -> RoomEvent:
    """A note between colleagues; with visibility "intelligence" the AI reads it too. Never leaves the house.

    Of this and what follows a repeated key (`once`) returns the first event and changes nothing."""
    if (first := await _written(actor, once)) is not None:
        return first
    _require_open(actor)
    event, _ = await _write(actor, Change().add(_note(text, by, visibility)), once)
    await renew(actor, by)
    return event


async def _written(actor: RoomActor, once: str | None) -> RoomEvent | None:
    known = await messages.known_duplicate(actor, HOST, once) if once is not None else None
    return None if known is None else known.event


async def _write(actor: RoomActor, change: Change, once: str | None) -> tuple[RoomEvent, bool]:
    """The event that stands now, and whether it is new."""
    if once is not None:
        change.dedupe_for = (HOST, once, DEDUPE_S)
    done = await actor.commit(change)
    if isinstance(done, list):
        return done[0], True
    first = await actor.engine.event_result(actor.tenant, done.room_id, done.event_id)
    if first.event is None:
        raise StateError(f'the event that was written under the key "{once}" is gone; use another key')
    return first.event, False


def _note(text: str, by: str, visibility: str) -> Entry:
    draft = EventDraft(
        source=host_source(by), content=TextContent(text=text), type=EventType.NOTE, visibility=visibility
    )
    return Entry(draft, targets=())


async def whisper(actor: RoomActor, text: str, to: str, by: str, once: str | None = None) -> tuple[RoomEvent, bool]:
    """Words for one channel or one person only. To an AI they are guidance, read at its next round; to people a
    private message, which passes the guards like any other (a blocked one is stored as such). Tells whether the event
    is new."""
    if (first := await _written(actor, once)) is not None:
        return first, False
    _require_open(actor)
    binding = actor.state.bindings.get(to)
    if to.startswith(PERSON):
        _require_person(actor, to)
    elif binding is None:
        raise ChannelNotFound(to, actor.state.bindings, where=f'room "{actor.room_id}"')
    if binding is not None and binding.category == "intelligence":
        draft = EventDraft(
            source=host_source(by),
            content=TextContent(text=text),
            type=EventType.NOTE,
            visibility=to,
            metadata={"whisper": to},
        )
        event, new = await _write(actor, Change().add(Entry(draft, targets=())), once)
    else:
        draft = EventDraft(
            source=host_source(by, "outbound"),
            content=TextContent(text=text),
            visibility=to,
            metadata={"whisper": to},
        )
        dedupe = (HOST, once, DEDUPE_S) if once is not None else None
        sub = messages.Submission(draft, Settlement(), binding_required=False, dedupe=dedupe)
        result = await messages.submit(actor, sub)
        assert result.event is not None, "only a closed room refuses without a record"
        event, new = result.event, not result.duplicate
    await renew(actor, by)
    return event, new


def _require_person(actor: RoomActor, to: str) -> None:
    if to not in map(person_token, actor.state.participants):
        known = ", ".join(sorted(map(person_token, actor.state.participants))) or "nobody"
        raise StateError(f'"{to}" is nobody in room "{actor.room_id}"; there are: {known}')


async def write_draft(actor: RoomActor, content: Content, by: str, once: str | None = None) -> RoomEvent:
    """A proposed message: kept in the room, shown to colleagues, sent only when somebody approves it."""
    if (first := await _written(actor, once)) is not None:
        return first
    _require_open(actor)
    draft = EventDraft(source=host_source(by, "outbound"), content=content, visibility="internal")
    change = Change().add(Entry(draft, status=EventStatus.DRAFT, targets=()))
    event_id = actor.engine.new_id()
    change.entries[0].draft = draft.model_copy(update={"event_id": event_id})
    value: dict[str, Any] = {"id": event_id, "room_id": actor.room_id, "by": by, "status": "pending"}
    value["content"] = content.model_dump(mode="json")
    change.put.append(Record("draft", actor.tenant, key(actor.room_id, event_id), value, actor.room_id))
    event, _ = await _write(actor, change, once)
    return event


async def settle_draft(actor: RoomActor, draft_id: str, approve: bool, by: str) -> InboundResult:
    """Sends a draft as its author's message, or discards it; each draft is settled once."""
    _require_open(actor)
    found = await actor.engine.store.records(RecordQuery("draft", actor.tenant, key=key(actor.room_id, draft_id)))
    if not found:
        raise StateError(f'draft "{draft_id}" does not exist in room "{actor.room_id}"')
    value = found[0].value
    if value["status"] != "pending":
        raise StateError(f'draft "{draft_id}" is already {value["status"]}; nothing was changed')
    value = {**value, "status": "sent" if approve else "discarded", "settled_by": by}
    record = Record("draft", actor.tenant, found[0].key, value, actor.room_id)
    if not approve:
        change = Change()
        change.put.append(record)
        change.system(EventType.SYSTEM, "draft_discarded", id=draft_id, by=by)
        await actor.commit(change)
        return InboundResult(None, actor.room_id, settlement=Settlement())
    draft = EventDraft.model_validate(
        {
            "source": host_source(value["by"], "outbound"),
            "content": value["content"],
            "correlation_id": draft_id,
            "metadata": {"draft": draft_id, "approved_by": by},
        }
    )
    blocked = Record("draft", actor.tenant, found[0].key, {**value, "status": "blocked"}, actor.room_id)
    sub = messages.Submission(draft, Settlement(), binding_required=False, put=[record], put_blocked=[blocked])
    return await messages.submit(actor, sub)


__all__ = [
    "clear_attention",
    "host_source",
    "lease_due",
    "release",
    "renew",
    "request_human",
    "set_floor",
    "settle_draft",
    "take_over",
    "whisper",
    "write_draft",
    "write_note",
]
