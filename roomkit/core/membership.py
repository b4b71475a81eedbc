"""Channels and people of a room, and the room's own life. Every function runs in the actor and leaves a record."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from roomkit.core import approvals
from roomkit.core.actor import Change, RoomActor
from roomkit.core.policy import EARLY_S, LONGEST_S, require_json, require_seconds, wellformed
from roomkit.core.state import key
from roomkit.errors import ChannelNotFound, RoomClosed, StateError
from roomkit.models.event import EventType
from roomkit.models.room import (
    ChannelBinding,
    Membership,
    Participant,
    Room,
    RoomStatus,
    RoomTimers,
)
from roomkit.models.stream import Ephemeral
from roomkit.ports.store import Record, RecordKey

GONE = {Membership.LEFT: "source_left", Membership.BANNED: "source_banned"}
"""Who stands so has no business in the room: by which rule nothing that they write goes in. Writing does not bring
anybody back; the host takes them in again."""


def _binding(actor: RoomActor, channel_id: str) -> ChannelBinding:
    found = actor.state.bindings.get(channel_id)
    if found is None:
        raise ChannelNotFound(channel_id, actor.state.bindings, where=f'room "{actor.room_id}"')
    return found


def _note(actor: RoomActor, change: Change, kind: EventType, code: str, **data: Any) -> None:
    """The record of a change. Rights can be taken away in a closed room too, but nothing makes its log grow."""
    if actor.state.room.open:
        change.system(kind, code, **data)


async def attach(
    actor: RoomActor, binding: ChannelBinding, explicit: bool = True, given: frozenset[str] = frozenset()
) -> ChannelBinding:
    """Seats a channel. Attaching again updates its address and what the host has `given` by name (rights among it);
    by itself it never widens rights that were narrowed, and what was detached comes back only when asked for."""
    if not actor.state.room.open:
        raise RoomClosed(actor.room_id, actor.state.room.status)
    if explicit:
        require_json(binding.metadata, "the metadata of a seat")
    old = actor.state.bindings.get(binding.channel_id)
    if not explicit and (old is not None or binding.channel_id in actor.state.detached):
        return old or binding
    if old is not None:
        named = {name: getattr(binding, name) for name in given}
        binding = old.model_copy(update={**named, "metadata": {**old.metadata, **binding.metadata}})
        if binding == old:
            return old
    change = Change()
    change.bindings[binding.channel_id] = binding
    if binding.channel_id in actor.state.detached:
        change.delete.append(RecordKey("detached", actor.tenant, key(actor.room_id, binding.channel_id)))
    kind = EventType.CHANNEL_ATTACHED if old is None else EventType.CHANNEL_UPDATED
    changed = [n for n in given if old is not None and getattr(old, n) != getattr(binding, n)]
    changes: dict[str, Any] = {"changes": {n: str(getattr(binding, n)) for n in sorted(changed)}} if changed else {}
    change.system(kind, kind.value, channel_id=binding.channel_id, channel_type=binding.channel_type, **changes)
    await actor.commit(change)
    actor.state.detached -= {binding.channel_id}
    return binding


async def detach(actor: RoomActor, channel_id: str) -> None:
    """Unseats a channel, durably: nothing attaches it again by itself."""
    _binding(actor, channel_id)
    change = Change()
    change.bindings[channel_id] = None
    value = {"channel_id": channel_id}
    change.put.append(Record("detached", actor.tenant, key(actor.room_id, channel_id), value, actor.room_id))
    _note(actor, change, EventType.CHANNEL_DETACHED, "channel_detached", channel_id=channel_id)
    await approvals.withdraw(actor, change, channel_id)
    await actor.commit(change)
    if change.room is not None:
        actor.engine.attention.changed(actor)
    for running_id, running in actor.engine.turns.running(actor):
        if running_id == channel_id:
            running.cancel("channel_detached")
    actor.state.detached |= {channel_id}


async def update_binding(actor: RoomActor, channel_id: str, by: str | None, update: dict[str, Any]) -> ChannelBinding:
    """Changes rights, marks or metadata of a seat; live gates hear of it at once."""
    old = _binding(actor, channel_id)
    fields = {k: v for k, v in update.items() if getattr(old, k) != v}
    if not fields:
        return old
    with wellformed(f'the seat of "{channel_id}"'):
        new = ChannelBinding.model_validate({**dict(old), **fields})
    kind = EventType.CHANNEL_UPDATED
    if "muted" in fields:
        kind = EventType.CHANNEL_MUTED if fields["muted"] else EventType.CHANNEL_UNMUTED
    shown = {k: v if isinstance(v, (bool, int, str)) else str(v) for k, v in fields.items() if k != "metadata"}
    change = Change()
    change.bindings[channel_id] = new
    _note(actor, change, kind, kind.value, channel_id=channel_id, by=by, changes=shown)
    await actor.commit(change)
    return new


async def patch_binding(actor: RoomActor, channel_id: str, patch: dict[str, Any]) -> ChannelBinding:
    require_json(patch, "the metadata of a seat")
    metadata = {**_binding(actor, channel_id).metadata, **patch}
    return await update_binding(actor, channel_id, None, {"metadata": metadata})


async def add_person(actor: RoomActor, person: Participant) -> Participant:
    """Adds somebody, or brings back who had left. An existing record is never re-homed to another channel."""
    if not actor.state.room.open:
        raise RoomClosed(actor.room_id, actor.state.room.status)
    if person.metadata:
        require_json(person.metadata, "the metadata of a person")
    old = actor.state.participants.get(person.id)
    if old is not None and old.status is Membership.BANNED:
        raise StateError(f'"{person.id}" is banned from room "{actor.room_id}"; lift the ban with kit.update_member()')
    change = Change()
    if old is not None:
        if old.status is Membership.ACTIVE:
            return old
        person = old.model_copy(update={"status": Membership.ACTIVE})
    join(change, person)
    await actor.commit(change)
    return person


def join(change: Change, person: Participant) -> None:
    """Adds somebody, and the record of it."""
    change.participants[person.id] = person
    change.system(
        EventType.PARTICIPANT_JOINED,
        "participant_joined",
        visibility="transport",
        participant_id=person.id,
        name=person.display_name,
        role=person.role.value,
    )


async def remove_person(actor: RoomActor, participant_id: str, status: Membership, reason: str | None) -> Participant:
    person = _person(actor, participant_id)
    if person.status is status:
        return person
    person = person.model_copy(update={"status": status})
    change = Change()
    change.participants[person.id] = person
    _left(actor, change, person, reason)
    await actor.commit(change)
    return person


async def update_person(actor: RoomActor, participant_id: str, update: dict[str, Any]) -> Participant:
    """Renames, re-roles or identifies somebody, or says where they stand; no change, no record. Whoever is put out by
    it leaves as by `remove_person`."""
    old = _person(actor, participant_id)
    fields = {k: v for k, v in update.items() if getattr(old, k) != v}
    if not fields:
        return old
    with wellformed(f'participant "{participant_id}"'):
        person = Participant.model_validate({**dict(old), **fields})
    kind = EventType.PARTICIPANT_IDENTIFIED if "identity_id" in fields else EventType.PARTICIPANT_UPDATED
    change = Change()
    change.participants[person.id] = person
    if fields.get("status") in GONE:
        del fields["status"]
        _left(actor, change, person)
    if fields:
        _note(actor, change, kind, kind.value, participant_id=person.id, fields=sorted(fields))
    await actor.commit(change)
    return person


def _left(actor: RoomActor, change: Change, person: Participant, reason: str | None = None) -> None:
    told = {"participant_id": person.id, "name": person.display_name, "status": person.status.value, "reason": reason}
    _note(actor, change, EventType.PARTICIPANT_LEFT, "participant_left", visibility="transport", **told)


def _person(actor: RoomActor, participant_id: str) -> Participant:
    found = actor.state.participants.get(participant_id)
    if found is None:
        known = ", ".join(sorted(actor.state.participants)) or "nobody"
        raise StateError(f'participant "{participant_id}" is not in room "{actor.room_id}"; there are: {known}')
    return found


async def mark_read(actor: RoomActor, channel_id: str, index: int) -> None:
    """Moves a read marker forward, never back."""
    binding = _binding(actor, channel_id)
    index = min(index, actor.state.next_index - 1)
    if index <= binding.last_read_index:
        return
    change = Change(activity=False)
    change.bindings[channel_id] = binding.model_copy(update={"last_read_index": index})
    await actor.commit(change)
    seen = Ephemeral(kind="read", room_id=actor.room_id, sender=channel_id, data={"index": index})
    actor.hub.ephemeral(seen, actor.state.bindings)


_TRANSITIONS: dict[RoomStatus, tuple[EventType, frozenset[RoomStatus]]] = {
    RoomStatus.ACTIVE: (EventType.ROOM_REOPENED, frozenset({RoomStatus.CLOSED, RoomStatus.PAUSED})),
    RoomStatus.PAUSED: (EventType.ROOM_PAUSED, frozenset({RoomStatus.ACTIVE})),
    RoomStatus.CLOSED: (EventType.ROOM_CLOSED, frozenset({RoomStatus.ACTIVE, RoomStatus.PAUSED})),
    RoomStatus.ARCHIVED: (
        EventType.ROOM_ARCHIVED,
        frozenset({RoomStatus.ACTIVE, RoomStatus.PAUSED, RoomStatus.CLOSED}),
    ),
}


async def set_status(actor: RoomActor, status: RoomStatus, by: str | None, reason: str | None = None) -> Room:
    """Moves the room along; its own record is the one thing a closed room still takes. No change, no record."""
    room = actor.state.room
    if room.status is status:
        return actor.state.snapshot()
    kind, allowed = _TRANSITIONS[status]
    if room.status not in allowed:
        raise StateError(f'room "{room.id}" is {room.status} and cannot become {status}')
    now = actor.engine.now()
    update: dict[str, Any] = {"status": status, "updated_at": now}
    update["paused_at"] = now if status is RoomStatus.PAUSED else None
    if status in (RoomStatus.CLOSED, RoomStatus.ARCHIVED):
        update["closed_at"] = room.closed_at or now
        update["attention"] = None
    if status is RoomStatus.ACTIVE:
        kind = EventType.ROOM_RESUMED if room.status is RoomStatus.PAUSED else kind
        update["closed_at"] = None
    change = Change(room=room.model_copy(update=update), activity=status is RoomStatus.ACTIVE)
    change.system(kind, kind.value, visibility="transport", by=by, reason=reason)
    plan_timers(actor, change)
    if status in (RoomStatus.CLOSED, RoomStatus.ARCHIVED):
        await approvals.withdraw(actor, change)
        # Whoever is still speaking is cut off as the door closes, so that what was heard is kept.
        await actor.engine.turns.commit_cut(actor, change, "room_closed")
    else:
        await actor.commit(change)
    if room.waiting_since is not None and actor.state.room.waiting_since is None:
        actor.engine.attention.changed(actor)
    return actor.state.snapshot()


async def patch_metadata(actor: RoomActor, patch: dict[str, Any]) -> Room:
    """Merges keys; None removes one."""
    require_json(patch, "the metadata of a room")
    merged = {**actor.state.room.metadata, **patch}
    merged = {k: v for k, v in merged.items() if v is not None}
    change = Change(activity=False)
    change.room = actor.state.room.model_copy(update={"metadata": merged, "updated_at": actor.engine.now()})
    await actor.commit(change)
    return actor.state.snapshot()


async def set_settings(actor: RoomActor, update: dict[str, Any]) -> Room:
    """Changes timers, policies or language; the idle clock keeps running."""
    change = Change(activity=False)
    with wellformed(f'room "{actor.room_id}"'):
        change.room = Room.model_validate({**dict(actor.state.room), **update, "updated_at": actor.engine.now()})
    if "timers" in update:
        require_timers(change.room.timers)
    plan_timers(actor, change)
    await actor.commit(change)
    return actor.state.snapshot()


def require_timers(timers: RoomTimers) -> None:
    """Refuses spans that no clock can keep, before anything is committed."""
    require_seconds(timers.inactive_after_seconds, "inactive_after_seconds")
    require_seconds(timers.closed_after_seconds, "closed_after_seconds")


def plan_timers(actor: RoomActor, change: Change) -> None:
    """Adds the timer that the room's status will ask for, so that it is durable with what it times."""
    now = actor.engine.now()
    last = now if change.entries and change.activity else actor.state.last_activity
    found = _timer(change.room or actor.state.room, last)
    if found is not None:
        name, due = found
        change.timers.append(actor.engine.timers.plan(actor, name, (due - now).total_seconds(), {}))


def arm_timers(actor: RoomActor) -> None:
    """Arms the timer of the room's status once more, counted from what really happened last."""
    found = _timer(actor.state.room, actor.state.last_activity)
    if found is not None:
        name, due = found
        actor.engine.timers.set(actor, name, (due - actor.engine.now()).total_seconds(), {})


def _timer(room: Room, last: datetime | None) -> tuple[str, datetime] | None:
    after, since, name = room.timers.inactive_after_seconds, last, "idle"
    if room.status is not RoomStatus.ACTIVE:
        after, since, name = room.timers.closed_after_seconds, room.paused_at, "close"
    if after is None or since is None or room.status not in (RoomStatus.ACTIVE, RoomStatus.PAUSED):
        return None
    # A room of earlier days may hold a span that has no date.
    return name, since + timedelta(seconds=min(after, LONGEST_S) if after > 0 else LONGEST_S)


async def timer_due(actor: RoomActor, name: str) -> None:
    """An idle or closing timer rang: look again under the actor whether it still holds."""
    room, now = actor.state.room, actor.engine.now()
    if name == "idle" and room.status is RoomStatus.ACTIVE and room.timers.inactive_after_seconds is not None:
        last = actor.state.last_activity
        if last is not None and (now - last).total_seconds() >= room.timers.inactive_after_seconds - EARLY_S:
            await set_status(actor, RoomStatus.PAUSED, "timer", "inactive")
        else:
            arm_timers(actor)
    elif name == "close" and room.status is RoomStatus.PAUSED and room.paused_at is not None:
        after = room.timers.closed_after_seconds
        if after is not None and (now - room.paused_at).total_seconds() >= after - EARLY_S:
            await set_status(actor, RoomStatus.CLOSED, "timer", "inactive")
        else:
            arm_timers(actor)


__all__ = [
    "add_person",
    "arm_timers",
    "attach",
    "detach",
    "join",
    "mark_read",
    "patch_binding",
    "patch_metadata",
    "plan_timers",
    "remove_person",
    "require_timers",
    "set_settings",
    "set_status",
    "timer_due",
    "update_binding",
    "update_person",
]
